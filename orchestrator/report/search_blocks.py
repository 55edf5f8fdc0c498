"""The tables of a search, as text that the terminal and Markdown share."""

from orchestrator.report.blocks import Block, Line
from orchestrator.report.model import Report, Searched, Tried
from orchestrator.report.wording import number, synthetic_mark, with_interval

BEST = 10  # configurations in the table of the best


def search_blocks(report: Report) -> list[Block]:
    """The answer, the best points, the surface and what matters; none for a study that searches nothing."""
    found = report.searched
    if found is None:
        return []
    mark = synthetic_mark(report)
    blocks = [_answer(found, report, mark)] if found.chosen else []
    blocks += [_best(found, mark), _progress(found, mark)]
    if found.surface:
        surface = found.surface
        lines = [
            Line(name, tuple(f"{number(mean, 'z.1f')} ({count})" if count else "-" for mean, count in cells))
            for name, cells in zip(
                surface.row_names,
                [zip(means, counts, strict=True) for means, counts in zip(surface.means, surface.counts, strict=True)],
                strict=True,
            )
        ]
        title = f"{mark}mean accuracy % (configurations) by {surface.rows} and {surface.columns}"
        heads = tuple(f"{surface.columns} {name}" for name in surface.column_names)
        blocks.append(Block(title, surface.rows, heads, tuple(lines)))
    if found.importance:
        ranked = sorted(found.importance.items(), key=lambda item: -item[1])
        lines = [Line(name, (number(share, ".2f"),)) for name, share in ranked]
        title = "among those trained to the end, what makes the best: importance, the sum being 1 (PED-ANOVA)"
        blocks.append(Block(title, "setting", ("importance",), tuple(lines)))
    return blocks


def _answer(found: Searched, report: Report, mark: str) -> Block:
    """Each chosen point with its validation figure and that of its training anew, and the procedure's estimate."""
    tested = [row.accuracy for row in report.rows]
    lines = []
    for index, (choice, score) in enumerate(zip(found.chosen, found.chosen_scores, strict=True)):
        anew = "-" if found.select == "test" else "not trained yet"
        if found.select != "test" and index < len(tested):
            anew = with_interval(tested[index])
        lines.append(Line(settings(found.points[choice]), (with_interval(score), anew)))
    if found.nested is not None:
        lines.append(Line("nested: the procedure, on subjects it never saw", ("-", with_interval(found.nested))))
    by = "test folds, optimistic" if found.select == "test" else "validation, chosen by it"
    return Block(f"{mark}the answer, accuracy %", "chosen", (by, "trained anew and tested"), tuple(lines))


def _best(found: Searched, mark: str) -> Block:
    ranked = sorted((p for p in found.points if p.accuracy is not None and p.repeats is None), key=_rank)
    lines = [Line(settings(point), (str(point.number), *_values(point, found))) for point in ranked[:BEST]]
    heads = tuple("accuracy %" if name == "accuracy" else name for name in found.objectives)
    return Block(f"{mark}the best configurations, by {found.select}", "settings", ("asked as", *heads), tuple(lines))


def _progress(found: Searched, mark: str) -> Block:
    """The best so far wherever it rose."""
    lines, before = [], None
    for point in found.points:
        if point.best_so_far is not None and point.best_so_far != before:
            lines.append(Line(str(point.number + 1), (number(point.best_so_far),)))
            before = point.best_so_far
    return Block(f"{mark}best so far", "after configurations", ("accuracy %",), tuple(lines))


def _rank(point: Tried) -> tuple[float, int]:
    return -(point.accuracy or 0.0), point.number


def _values(point: Tried, found: Searched) -> list[str]:
    names = zip(found.objectives, point.values, strict=True)
    return [number(100 * value) if name == "accuracy" else number(value, ".4g") for name, value in names]


def settings(point: Tried) -> str:
    """A point as people read it."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in point.settings.items()
    )
