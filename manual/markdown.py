"""Text and tables as Markdown."""

import html
from collections.abc import Iterable, Sequence


def text(words: str) -> str:
    """Words as a cell of a table shows them, character by character."""
    for sign in "\\`*_[]|":
        words = words.replace(sign, f"\\{sign}")
    return html.escape(words, quote=False)


def code(words: object) -> str:
    """A value as code in a cell."""
    return f"`{words}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, in which a cell has no line breaks."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines) + "\n"
