"""What a study found, in one sentence that claims no more than its statistics do. Pure."""

from orchestrator.report.model import Report, Row, Searched
from orchestrator.report.wording import number, p_value, with_interval
from orchestrator.statistics.folds import CONFIDENCE, Comparison, Estimate

LEVEL = 1 - CONFIDENCE  # of p after Holm's correction, under which a difference is shown
TOLD = 2  # of the differences that are shown, told one by one


def answer(report: Report) -> str:
    """The answer to the report's question; a difference is 'shown' only where it is significant after Holm's method."""
    found = _found(report)
    return f"On SYNTHETIC (drawn) data, {found}." if report.synthetic else f"{found[0].upper()}{found[1:]}."


def significant(comparison: Comparison) -> bool:
    """Whether the difference is shown: its p, corrected for the report's family, is under 5%."""
    return comparison.p_holm is not None and comparison.p_holm < LEVEL


def _found(report: Report) -> str:
    if report.searched and not report.searched.chosen:
        return "no answer yet, the search is not over and has chosen nothing"
    rows = [row for row in report.rows if row.accuracy.mean is not None]
    if not rows:
        failed = sum(row.failed for row in report.rows)
        return f"no answer, {failed} trials failed and none is complete" if failed else "no answer, nothing is measured"
    said = _searched(rows, report.searched) if report.searched else _compared(rows, report)
    done, planned = report.provenance["trials_complete"], report.provenance["trials_planned"]
    return said if done == planned else f"so far, with {done} of {planned} trials, {said}"


def _searched(rows: list[Row], found: Searched) -> str:
    if len(found.chosen) > 1:
        best = max(rows, key=lambda row: row.accuracy.mean or 0.0)
        none = f"none better in all of {' and '.join(found.objectives)}"
        said = f"the search by {found.sampler} chose {len(found.chosen)} configurations, {none}; most accurate is "
        said += f"{best.label}: {_percent(best.accuracy)}"
    else:
        said = f"the search by {found.sampler} chose {rows[0].label}: {_percent(rows[0].accuracy)}"
    if found.select == "test":
        return f"{said}, the best of many on the very test folds that chose it, so too high"
    if found.nested is not None:
        return f"{said} trained anew; the procedure itself gives {_percent(found.nested)} on subjects it never saw"
    return f"{said} trained anew, on subjects that its selection saw"


def _compared(rows: list[Row], report: Report) -> str:
    if not report.baselines:
        return _ranked(rows)
    found = _once(rows)
    tested = [(name, one) for name, one in found if one.p_holm is not None]
    others = " and ".join(report.baselines)
    if not tested:
        reason = next((one.difference.reason for _, one in found if one.difference.reason), "nothing in common")
        return f"no difference is shown: none to {others} can be tested, {reason}"
    shown = sorted((pair for pair in tested if significant(pair[1])), key=lambda pair: -abs(_mean(pair[1])))
    if not shown:
        name, largest = max(tested, key=lambda pair: abs(_mean(pair[1])))
        told = f"{name} minus {largest.baseline}, {_points(largest)}"
        if len(tested) == 1:
            return f"no difference is shown: the only one is not significant, {told}"
        return f"no difference is shown: none of {len(tested)} to {others} is significant, the largest is {told}"
    told = " and ".join(
        f"{name} is {'better' if _mean(one) > 0 else 'worse'} than {one.baseline}, {_points(one)}"
        for name, one in shown[:TOLD]
    )
    if len(shown) > TOLD:
        told += f", and {len(shown) - TOLD} more differences are shown"
    left = len(tested) - len(shown)
    return f"{told}; {left} of {len(tested)} differences are not shown" if left else told


def _ranked(rows: list[Row]) -> str:
    best, worst = (of(rows, key=lambda row: row.accuracy.mean or 0.0) for of in (max, min))
    if len(rows) == 1:
        return f"{best.label} has {_percent(best.accuracy)}"
    if best.accuracy.mean == worst.accuracy.mean:
        said = f"all {len(rows)} cells have {number(best.accuracy.mean)} %"
    else:
        said = f"{best.label} is highest with {_percent(best.accuracy)}, {worst.label} lowest with "
        said += _percent(worst.accuracy)
    return f"{said}; no baseline is named, so no difference is tested and none is shown"


def _once(rows: list[Row]) -> list[tuple[str, Comparison]]:
    """Each difference under its cell's name; F against Original and Original against F are one."""
    found: dict[tuple[frozenset[str], str], tuple[str, Comparison]] = {}
    for row in rows:
        for one in row.comparisons:
            if one is not None:
                previous = found.get((frozenset((row.row, one.baseline)), row.column))
                if previous is None or _mean(previous[1]) < _mean(one):  # said the way that is positive
                    found[frozenset((row.row, one.baseline)), row.column] = (row.label, one)
    return list(found.values())


def _mean(comparison: Comparison) -> float:
    return comparison.difference.mean or 0.0


def _points(comparison: Comparison) -> str:
    found = comparison.difference
    interval = (
        "" if found.low is None else f"95% interval {number(found.low, '+z.2f')} to {number(found.high, '+z.2f')}, "
    )
    return f"{number(found.mean, '+z.2f')} points ({interval}p Holm {p_value(comparison.p_holm)})"


def _percent(estimate: Estimate) -> str:
    return f"{with_interval(estimate)} %"
