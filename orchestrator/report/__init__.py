"""Reports: a study's results as tables, in several formats."""

from enum import StrEnum


class Format(StrEnum):
    """The formats a report can be written in."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    HTML = "html"
    LATEX = "latex"


FIGURES = (".svg", ".png", ".pdf")  # the kinds of picture a figure can be written as
SUFFIXES = {  # the format of a report by the ending of its file
    ".html": Format.HTML,
    ".md": Format.MARKDOWN,
    ".tex": Format.LATEX,
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".txt": Format.TERMINAL,
}
