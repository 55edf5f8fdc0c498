"""The console that commands print on: what others wrote, such as names of files, is shown and never obeyed."""

from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.names import visible


class _Plain(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def plain_console(*, stderr: bool = False) -> Console:
    """A console for plain text: brackets are no markup, `:words:` no pictures, control characters are written out."""
    return _Plain(stderr=stderr, highlight=False, markup=False, emoji=False)
