r"""The report as a LaTeX document whose tables have the paper's form and fit a column of 8.4 cm.

It needs booktabs, float and tabularx. A table environment is whole by itself, to be copied into a paper.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from orchestrator.report.blocks import Block, Line, accuracies, blocks, differences
from orchestrator.report.model import Report
from orchestrator.report.search_blocks import search_blocks
from orchestrator.report.tex import number, points, tex
from orchestrator.report.wording import beside_paper, provenance_lines, synthetic_mark, with_interval
from orchestrator.trial import IDENNET

COLUMN, GAP = 239.0, 8.0  # points: a paper's column of 8.4 cm, between two columns of a table
NAMES = (60.0, 100.0)  # points of a table's first column where others want room, least and most
LONGEST, PART = 18, 12  # letters of a word in the head of a column, and of the parts of a longer one
MOST_LINES = 40  # of a table, so that it fits a page
METHODS = {"Original": "Original Network", "I": "IDEnNet", "F": "IDEnNet", "IF": "IDEnNet"}  # as the paper calls them
HEADS = {"variant": "Method", "id_rate": "ID Rate"}
BEGIN = r"""\documentclass[twocolumn]{article}
\usepackage[a4paper,textwidth=17.6cm,columnsep=0.8cm,vmargin=2.2cm]{geometry}
\usepackage{booktabs,float,tabularx}
\setlength{\emergencystretch}{3em}
\renewcommand\labelitemi{--}
\setlength{\belowcaptionskip}{4pt}
\begin{document}
"""


def to_latex(reports: Sequence[Report]) -> str:
    """The reports as one document, a section each."""
    return BEGIN + "\n".join(map(_section, reports)) + "\\end{document}\n"


def _section(report: Report) -> str:
    parts = [rf"\section*{{\raggedright {tex(report.heading)}}}", rf"\noindent {tex(report.about)}", ""]
    parts += [table for block in _blocks(report) for table in _tables(block, report)]
    parts += [
        r"\begin{itemize}\small\raggedright",
        *(rf"\item {_note(note)}" for note in report.notes),
        r"\end{itemize}",
    ]
    parts += [r"\begin{description}\small\raggedright"]
    parts += [rf"\item[{tex(name)}] {tex(value)}" for name, value in provenance_lines(report)]
    return "\n".join([*parts, r"\end{description}", ""])


def _note(text: str) -> str:
    return rf"\textbf{{{tex(text)}}}" if text.startswith(("SYNTHETIC", "MIXED")) else tex(text)


def _blocks(report: Report) -> Iterator[Block]:
    """The paper's table first where there is one, then what else the other formats say."""
    if report.rows and not report.across:
        yield _average(report)
        folds = accuracies(report)
        lines = tuple(replace(line, texts=(line.texts[0], *line.texts[2:])) for line in folds.lines)
        title = f"{synthetic_mark(report)}accuracy % of all test frames at once and of sequences, seconds a trial"
        yield Block(title, report.by, (folds.columns[0], *folds.columns[2:]), lines)
        found = differences(report)
        for place in range(0, len(found.columns), 2):  # a table a baseline, so that p stands beside its difference
            lines = tuple(replace(line, texts=line.texts[place : place + 2]) for line in found.lines)
            yield Block(found.title, report.by, found.columns[place : place + 2], lines)
    yield from search_blocks(report)
    yield from blocks(report)


def _average(report: Report) -> Block:
    """As Tables 1 to 3 of the paper: a method and its average accuracy; the paper's own value beside."""
    mark = synthetic_mark(report)
    over = f", {report.num_folds} folds" if report.folds else ""
    beside = ("paper", f"{mark}minus paper") if report.reference_source else ()
    lines = tuple(Line(row.label, (with_interval(row.accuracy), *beside_paper(row, report))) for row in report.rows)
    title = f"{mark}average accuracy of {report.dataset}{over}"
    return Block(title, report.by, (f"{mark}accuracy %", *beside), lines)


def _tables(block: Block, report: Report) -> Iterator[str]:
    """A block as one table, or as the few that a column of a paper and a page have room for."""
    widths = [_width(block, place) for place in range(len(block.columns))]
    longest = max(points(text) for text in [block.corner, *(line.name for line in block.lines)])
    room = COLUMN - min(max(longest, NAMES[0]), NAMES[1])
    groups: list[list[int]] = [[]]
    for place in range(len(block.columns)):
        if groups[-1] and GAP * len(groups[-1]) + sum(widths[one] for one in [*groups[-1], place]) + GAP > room:
            groups.append([])
        groups[-1].append(place)
    for group in groups:
        for lines in _pages(block.lines):
            columns = tuple(block.columns[place] for place in group)
            texts = [replace(line, texts=tuple(line.texts[place] for place in group)) for line in lines]
            yield _table(Block(block.title, block.corner, columns, tuple(texts)), report)


def _width(block: Block, place: int) -> float:
    """Points of a column: of its widest text, or of its head's longest word."""
    return max(map(points, [*_words(block.columns[place]), *(line.texts[place] for line in block.lines)]))


def _pages(lines: Sequence[Line]) -> Iterator[tuple[Line, ...]]:
    """The lines, as many a table as a page holds; those that say more about a line stay with it."""
    page: list[Line] = []
    for line in lines:
        if line.first and len(page) >= MOST_LINES:
            yield tuple(page)
            page = []
        page.append(line)
    yield tuple(page)


def _table(block: Block, report: Report) -> str:
    heads = " & ".join(
        [
            tex(HEADS.get(block.corner, block.corner)),
            *(_head(place, block, report) for place in range(len(block.columns))),
        ]
    )
    lines = "\n".join(
        " & ".join([_name(line, block, report), *map(number, line.texts)]) + r" \\" for line in block.lines
    )
    return rf"""\begin{{table}}[H]
\centering\footnotesize\setlength{{\tabcolsep}}{{4pt}}
\caption{{{tex(block.title[:1].upper() + block.title[1:])}.}}
\begin{{tabularx}}{{\linewidth}}{{@{{}}>{{\raggedright\arraybackslash}}X{"r" * len(block.columns)}@{{}}}}
\toprule
{heads} \\
\midrule
{lines}
\bottomrule
\end{{tabularx}}
\end{{table}}
"""


def _words(text: str) -> list[str]:
    """The words of a column's head, long ones in parts."""
    return [
        word[start : start + PART]
        for word in text.split()
        for start in range(0, len(word), PART if len(word) > LONGEST else len(word))
    ]


def _head(place: int, block: Block, report: Report) -> str:
    """A column's head in as many lines as keep the column narrow; the paper speaks of 16 layers."""
    text, width, lines = block.columns[place], _width(block, place), [""]
    if report.across == "depth" and text.startswith("depth "):
        text = f"{text.removeprefix('depth ')} layers"
    for word in _words(text):
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if points(longer) <= width or not lines[-1] else [*lines, word]
    stacked = r" \\ ".join(map(tex, lines))
    return stacked if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{stacked}\end{{tabular}}"


def _name(line: Line, block: Block, report: Report) -> str:
    """A line's name; IDEnNet's variants as the paper calls them."""
    if not line.first:
        return rf"\quad {tex(line.name)}"
    head, *more = line.name.split(", ")
    if report.provenance["workload"] != IDENNET or block.corner not in HEADS or head not in METHODS:
        return tex(line.name)
    called = METHODS[head] if head == "Original" else rf"{METHODS[head]}\textsubscript{{{head}}}"
    said = [called if head == "Original" or report.across else f"Ours ({called})", *map(tex, more)]
    return ", ".join(said) + (" (baseline)" if line.name in report.baselines and not report.across else "")
