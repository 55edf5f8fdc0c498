"""The console that commands print on: what others wrote, such as names of files, is shown and never obeyed."""

import codecs
import os
import re
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from orchestrator.names import visible

# of tables, figures and bars
ASCII = str.maketrans("─├┤●◇◈╸…", "-||ox*-.")


class View(Console):
    """A console whose lines are ASCII where the terminal or the locale has no more."""

    @property
    def encoding(self) -> str:
        """As the terminal shows it, whatever Python would write."""
        return "ascii" if has_ascii_alone(self.file) else super().encoding


class _Plain(View):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def has_ascii_alone(stream: IO[str]) -> bool:
    """Whether a stream, or what locale and terminal say of it, has no letters beyond ASCII.

    In the locale C Python writes UTF-8, whatever the terminal shows, and sets LC_CTYPE to say so.
    """
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    encoding = codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name
    return locale in ("C", "POSIX") or os.environ.get("TERM") == "linux" or encoding == "ascii"


def in_ascii(text: str) -> str:
    """The text for a terminal that has ASCII alone; letters of names are spelled as Python spells them."""
    text = re.sub(r" ± (?=\d)", " +-", text).replace("±", "+-")
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode()


def plain_console(*, stderr: bool = False) -> Console:
    """A console for plain text: brackets are no markup, `:words:` no pictures, control characters are written out."""
    return _Plain(stderr=stderr, highlight=False, markup=False, emoji=False)
