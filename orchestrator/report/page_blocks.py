"""The tables that the page alone has: the cells of several studies, cost, failures, provenance."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.costs import Took
from orchestrator.report.blocks import Block, Line
from orchestrator.report.cells import NotRun
from orchestrator.report.evidence import Evidence
from orchestrator.report.model import Report
from orchestrator.report.wording import number, provenance_lines, with_interval

MOST_FAILURES = 200  # trials in the table


def overview(reports: Sequence[Report]) -> Block:
    """The cells of several studies under each other, each line with the kind of its data."""
    lines = []
    for report in reports:
        for row in report.rows:
            paper = number(row.reference), number(row.deviation, "+z.2f")
            kind = "SYNTHETIC" if report.synthetic else "real"
            folds = f"{row.accuracy.num_folds}/{report.num_folds}" if report.folds else "none"
            lines.append(Line(full_name(report), (kind, row.label, folds, with_interval(row.accuracy), *paper)))
    columns = ("data", "cell", "folds", "accuracy %", "paper", "minus paper")
    return Block("all cells", "study", columns, tuple(lines))


def full_name(report: Report) -> str:
    """The study with its profile, as commands name it."""
    return f"{report.study}@{report.profile}" if report.profile else report.study


def cost(evidence: Evidence) -> Block | None:
    """Predicted beside actual seconds of trunks and packs; None where nothing was predicted."""
    trunks = [one for one in evidence.took if not one.trials]
    packs = [one for one in evidence.took if one.trials]
    lines = [_cost(name, found) for name, found in (("trunks", trunks), ("packs", packs)) if found]
    if not lines:
        return None
    if len(lines) > 1:
        lines.append(_cost("in all", [*trunks, *packs]))
    return Block("time of devices, seconds", "what", ("number", "predicted", "took", "took / predicted"), tuple(lines))


def _cost(name: str, found: Sequence[Took]) -> Line:
    """The ratio is over those that are stored."""
    stored = [(one.predicted, one.actual) for one in found if one.actual is not None]
    predicted, actual = (sum(column) for column in zip(*stored, strict=True)) if stored else (0.0, None)
    count = f"{len(found)}" if len(stored) == len(found) else f"{len(found)}, {len(stored)} stored"
    guess = " (a guess)" if any(not one.measured for one in found) else ""
    ratio = number(actual / predicted) if actual is not None and predicted else "-"
    whole = sum(one.predicted for one in found)
    return Line(name, (count, f"{whole:,.1f}{guess}", "-" if actual is None else f"{actual:,.1f}", ratio))


def saved(report: Report, evidence: Evidence) -> Block | None:
    """What packing, reuse and pruning saved; None where nothing is known of any."""
    lines = []
    if evidence.alone and evidence.packed is not None:
        lines.append(_saved("packing, predicted seconds", evidence.alone, evidence.packed))
    if evidence.reused:
        took, again = float(report.provenance["seconds"]), sum(evidence.reused)
        lines.append(_saved(f"reuse of {len(evidence.reused)} trials, seconds", took, took - again))
    found = report.searched
    if found and found.trained_epochs < found.whole_epochs:
        lines.append(_saved("pruning, epochs of trials", float(found.whole_epochs), float(found.trained_epochs)))
    return Block("saved", "by", ("without", "with", "saved", "saved %"), tuple(lines)) if lines else None


def _saved(name: str, without: float, spent: float) -> Line:
    share = number(100 * (without - spent) / without, ".0f") if without else "-"
    return Line(name, (f"{without:,.0f}", f"{spent:,.0f}", f"{without - spent:,.0f}", share))


def failures(report: Report, evidence: Evidence) -> list[Block]:
    """The trials that failed, and those that were not run as their pack failed, with the reasons."""
    failed = evidence.trials.filter(state="failed").sort("configuration_id", "fold", "seed")
    trials = [] if failed.is_empty() else failed.select("configuration_id", "fold", "seed", "reason").rows()
    found = {"failed {}, in no number here": trials, "{} not run, as their pack failed": evidence.not_run}
    return [_reasons(title, trials, report) for title, trials in found.items() if trials]


def _reasons(title: str, trials: Sequence[NotRun], report: Report) -> Block:
    labels = {row.configuration_id: row.label for row in report.rows}
    lines = tuple(
        Line(labels.get(cell, cell[:8]), (reason or "no reason told", "none" if fold is None else str(fold), str(seed)))
        for cell, fold, seed, reason in trials[:MOST_FAILURES]
    )
    shown = f"{len(lines)} of " if len(trials) > len(lines) else ""
    title = f"{shown}{len(trials)} {title.format('trial' if len(trials) == 1 else 'trials')}"
    return Block(title, report.by, ("reason", "fold", "seed"), lines)


def provenance(report: Report, evidence: Evidence) -> list[tuple[str, str]]:
    """Where the numbers come from, as (name, value) lines; the command is left out."""
    lines = [line for line in provenance_lines(report) if line[0] != "again"]
    record = evidence.record
    if not record:
        return [*lines, ("record", "provenance.json is missing or damaged, so git and versions are not known")]
    changed = ", with changes that are not committed" if record.get("git_changes") else ""
    lines.append(("git", f"{record['git']}{changed}" if record.get("git") else "not a git checkout"))
    lines.append(("packages", _named(record.get("versions", {}))))
    lines.append(("machine", _named({**record.get("machine", {}), "device": record.get("device", "")})))
    if "device" in evidence.trials.columns:
        by = evidence.trials.group_by("device").len().sort("device")
        trained = ", ".join(f"{device} ({count} trials)" for device, count in by.iter_rows())
        lines.append(("trained on", trained))
    if record.get("overrides"):
        lines.append(("overrides", _named(record["overrides"])))
    lines.append(("last run", str(record.get("written_at", ""))))
    return [(name, value) for name, value in lines if value]


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in ("", None))
