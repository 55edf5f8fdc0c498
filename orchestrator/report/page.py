"""The report as one HTML file that asks the network for nothing; its tables are the blocks of the other formats."""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import polars as pl

from orchestrator.report import blocks, page_blocks, page_figures
from orchestrator.report.answer import answer
from orchestrator.report.blocks import Block
from orchestrator.report.evidence import Evidence
from orchestrator.report.model import Report
from orchestrator.report.page_figures import Figure
from orchestrator.report.search_blocks import search_blocks

FOLDER = Path(__file__).parent
TRIALS = {"configuration_id": pl.String, "state": pl.String, "fold": pl.Int64, "seed": pl.Int64, "accuracy": pl.Float64}
NOTHING = Evidence(pl.DataFrame(schema=TRIALS), pl.DataFrame())
OPEN_TABLES = 4  # of confusions, those that need no click


@dataclass(frozen=True)
class Table:
    """A block in the page, `closed` where it is folded up.

    `tinted` cells have a ground as strong as their percentage; the lines of a `square` one keep their order.
    """

    block: Block
    tinted: bool = False
    closed: bool = False
    square: bool = False

    @property
    def sortable(self) -> bool:
        """Whether there is an order to change."""
        return not self.square and sum(line.first for line in self.block.lines) > 1


@dataclass(frozen=True)
class Section:
    """A part of a study's report under its heading; one that is empty says `instead`."""

    heading: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    instead: str = ""


def to_html(reports: Sequence[Report], evidence: Sequence[Evidence] = ()) -> str:
    """One page of these reports; without their `evidence` it has no folds, curves or costs."""
    beside = list(evidence) or [NOTHING] * len(reports)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["share"] = _share
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    studies = [
        {
            "report": report,
            "name": page_blocks.full_name(report),
            "answer": answer(report),
            "sections": list(_sections(report, found)),
            "provenance": page_blocks.provenance(report, found),
        }
        for report, found in zip(reports, beside, strict=True)
    ]
    several = len(reports) > 1
    mark = "SYNTHETIC " if any(report.synthetic for report in reports) else ""
    return environment.get_template("page.html.j2").render(
        studies=studies,
        title=reports[0].title if not several else f"{mark}{', '.join(map(page_blocks.full_name, reports))}",
        synthetic=bool(mark),
        overview=Table(page_blocks.overview(reports)) if several else None,
        figure=page_figures.main(reports, beside) if several else None,
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _share(text: str) -> bool:
    """Whether a text is a percentage and no more, so that it may stand in a style."""
    return re.fullmatch(r"\d{1,3}\.\d+", text) is not None


def _sections(report: Report, evidence: Evidence) -> Iterator[Section]:
    """The parts of a report, in the order in which they are read."""
    if report.searched:
        tables = tuple(map(Table, search_blocks(report)))
        yield Section("The search", tuple(page_figures.search(report)), tables)
    if report.rows:
        main = page_figures.main([report], [evidence])
        yield Section("Accuracy", (main,) if main else (), tuple(map(Table, _accuracies(report))))
    if report.baselines and report.rows:
        figure = page_figures.differences(report, evidence)
        details = [Table(blocks.details(place, report), closed=True) for place in range(len(report.baselines))]
        tables = () if report.across else (Table(blocks.differences(report)),)
        yield Section("Paired differences", (figure,) if figure else (), (*tables, *details))
    if report.reference_source and report.rows:
        yield Section("Beside the paper", tables=(Table(blocks.beside_the_paper(report)),))
    if report.expressions:
        yield _expressions(report)
    figure = page_figures.curves(report, evidence) if report.rows else None
    if figure:
        yield Section("Learning curves", (figure,))
    costs = [Table(block) for block in (page_blocks.cost(evidence), page_blocks.saved(report, evidence)) if block]
    yield Section("Cost", tables=tuple(costs), instead="Nothing was predicted for this study.")
    failures = tuple(map(Table, page_blocks.failures(report, evidence)))
    yield Section("Failures", tables=failures, instead="No trial failed.")


def _accuracies(report: Report) -> list[Block]:
    return blocks.two_way(report) if report.across else [blocks.accuracies(report)]


def _expressions(report: Report) -> Section:
    """Accuracy by expression, confusions and people."""
    figure = page_figures.by_expression(report)
    tables = [Table(block, closed=place > 0) for place, block in enumerate(blocks.by_expression(report))]
    confusions = [blocks.confusion(row, report) for row in report.rows if row.confusion and row.complete]
    tables += [
        Table(block, tinted=True, closed=place >= OPEN_TABLES, square=True) for place, block in enumerate(confusions)
    ]
    if any(row.subjects for row in report.rows):
        tables.append(Table(blocks.by_subject(report), tinted=True, closed=True))
    return Section("By expression", (figure,) if figure else (), tuple(tables))
