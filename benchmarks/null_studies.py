"""How often the tests of a report are wrong, and what they find: simulated studies whose truth is known.

    python -m benchmarks.null_studies [--studies 20000] [--stored 20000] [--out docs/images]

Prints the tables of `docs/explanation/statistics.md` and draws its plots. The accuracies are those of
`benchmarks.simulated`, for thousands of studies at once in arrays, which go to the functions that a report calls. The
first table comes from studies that went all the way: design, plan, packs, store, report. Nothing measured is
remembered.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy import stats

from benchmarks import simulated
from idennet_core.streams import generator
from orchestrator import inline_engine, record, runner
from orchestrator.planning import Capacity
from orchestrator.report import tables
from orchestrator.report.model import Report
from orchestrator.source import Listed
from orchestrator.statistics import power
from orchestrator.statistics.bootstrap import over_subjects
from orchestrator.statistics.folds import Floats, holm, over_folds, seeds_averaged
from orchestrator.store import Store
from orchestrator.study import NUM_FOLDS, Study

LEVEL = 0.05
RATIO = 1 / (NUM_FOLDS - 1)  # n_test/n_train
ASSUMED = 1 / NUM_FOLDS  # the correlation of folds for which the correction is exact
CORRELATIONS = (0.0, 0.05, ASSUMED, 0.2, 0.3)
SEEDS = (1, 2, 5, 20)
DIFFERENCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # points of accuracy
STORED_AT_ONCE = 2_000  # studies in one store, 40,000 trials
WORKLOAD = "benchmarks.simulated:Simulated"


@dataclass(frozen=True)
class World:
    """Where studies come from: see `benchmarks.simulated` for the parts of an accuracy, in percent."""

    correlation: float = ASSUMED  # of a configuration's fold means over its seeds, whatever they are
    seeds: int = 1
    fold_sd: float = 3.0
    sd: float = 2.0
    noise: float = 1.0

    @property
    def settings(self) -> dict[str, float]:
        """What the simulated workload calls it; the part that folds share bears the correlation alone."""
        share = self.correlation * (self.sd**2 + self.noise**2 / self.seeds) / self.sd**2
        return {"fold_sd": self.fold_sd, "sd": self.sd, "noise": self.noise, "rho": share}

    def draw(self, studies: int, cells: int, *names: str) -> Floats:
        """Accuracies in percent, [studies, cells, folds, seeds], of cells between which there is no difference."""
        rng = generator("null studies", *names)
        settings = simulated.SETTINGS | self.settings
        means = simulated.final(
            settings,
            of_folds=rng.standard_normal((studies, 1, NUM_FOLDS)),
            common=rng.standard_normal((studies, cells, 1)),
            apart=rng.standard_normal((studies, cells, NUM_FOLDS)),
        )
        return means[..., None] + self.noise * rng.standard_normal((studies, cells, NUM_FOLDS, self.seeds))


def corrected(ours: Floats, theirs: Floats) -> Floats:
    """The p of a report: seeds averaged, the paired t-test with the variance for overlapping training sets."""
    return over_folds(seeds_averaged(ours - theirs), RATIO).p


def plain(ours: Floats, theirs: Floats) -> Floats:
    """Student's paired t-test over folds."""
    return over_folds(seeds_averaged(ours - theirs), 0.0).p


def repeated(ours: Floats, theirs: Floats) -> Floats:
    """The corrected repeated k-fold test, which takes every seed for a repetition with folds of its own."""
    differences = ours - theirs
    return over_folds(differences.reshape(len(differences), -1), RATIO).p


def every_trial(ours: Floats, theirs: Floats) -> Floats:
    """Student's paired t-test over folds and seeds."""
    differences = ours - theirs
    return over_folds(differences.reshape(len(differences), -1), 0.0).p


def wilcoxon(ours: Floats, theirs: Floats) -> Floats:
    """Wilcoxon's signed-rank test over folds, exact."""
    return np.asarray(stats.wilcoxon(seeds_averaged(ours - theirs), axis=-1, method="exact").pvalue)


def unpaired(ours: Floats, theirs: Floats) -> Floats:
    """Student's t-test of two samples of folds."""
    return np.asarray(stats.ttest_ind(seeds_averaged(ours), seeds_averaged(theirs), axis=-1).pvalue)


Test = Callable[[Floats, Floats], Floats]
OF_FOLDS: Mapping[str, Test] = {
    "corrected paired t (the report's)": corrected,
    "paired t": plain,
    "Wilcoxon signed rank": wilcoxon,
    "unpaired t": unpaired,
}
OF_SEEDS: Mapping[str, Test] = {
    "corrected paired t, seeds averaged (the report's)": corrected,
    "corrected repeated k-fold t": repeated,
    "paired t, seeds averaged": plain,
    "paired t over all trials": every_trial,
}


def sizes(tests: Mapping[str, Test], worlds: Mapping[str, World], studies: int) -> dict[str, list[float]]:
    """Of each test the percentage of studies without a difference in which it finds one, a number a world."""
    found: dict[str, list[float]] = {name: [] for name in tests}
    for label, world in worlds.items():
        drawn = world.draw(studies, 2, "sizes", label)
        for name, test in tests.items():
            found[name].append(share(test(drawn[:, 0], drawn[:, 1]) < LEVEL))
    return found


def family_errors(world: World, studies: int, cells: int = 7, baselines: int = 2) -> tuple[float, float]:
    """The percentage of studies in which any comparison errs, by Holm's p and by p: every cell with each baseline."""
    drawn = world.draw(studies, cells, "family", str(world.correlation))
    pairs = [(cell, base) for base in range(baselines) for cell in range(base + 1, cells)]
    p = np.stack([corrected(drawn[:, cell], drawn[:, base]) for cell, base in pairs], -1)
    return share((holm(p) < LEVEL).any(-1)), share((p < LEVEL).any(-1))


def powers(world: World, studies: int) -> dict[float, tuple[float, float]]:
    """By true difference, the percentage of studies that find it, and that of the formula in `power`."""
    drawn = world.draw(studies, 2, "power", str(world.seeds))
    parts = world.settings
    # of a difference of two cells; what folds share is not in the variance between them
    variance = 2 * ((1 - parts["rho"]) * world.sd**2 + world.noise**2 / world.seeds)
    found = {}
    for difference in DIFFERENCES:
        simulated_ = share(corrected(drawn[:, 0] + difference, drawn[:, 1]) < LEVEL)
        found[difference] = (simulated_, 100 * float(power.power(difference, variance, NUM_FOLDS, RATIO, LEVEL)))
    return found


def coverage(subjects: int, studies: int, frames: int = 18, spread: float = 0.1) -> tuple[float, float]:
    """How often the intervals over subjects, and over frames, hold the true difference, in percent.

    Two cells are right on a frame with probability 0.7 plus what the person adds to either, of standard deviation
    `spread`, so that their difference varies between people.
    """
    rng = generator("null studies", "coverage", subjects)
    skill = np.clip(0.7 + rng.normal(0, spread, (2, subjects, 1, studies)), 0, 1)
    right = rng.random((2, subjects, frames, studies)) < skill
    differences = 100.0 * (right[0].astype(np.float64) - right[1])
    held = []
    for sums, count in ((differences.sum(1), frames), (differences.reshape(-1, studies), 1)):
        found = over_subjects(sums, np.full(sums.shape, float(count)), generator("null studies", "resamples", subjects))
        held.append(share([one.low is not None and one.low <= 0 <= (one.high or 0.0) for one in found]))
    return held[0], held[1]


def stored(world: World, draws: range, folder: Path) -> Report:
    """The report of a study without a difference for each draw, of two arms, run through a store in `folder`."""
    study = Study.model_validate(
        {
            "name": "null",
            "question": "Does a name make a difference?",
            "workload": WORKLOAD,
            "dataset": "simulated",
            "seeds": list(range(world.seeds)),
            "base": world.settings,
            "design": {"grid": {"draw": list(draws), "arm": ["a", "b"]}},
            "report": {"by": ["arm", "draw"], "baselines": [{"arm": "a"}]},
        }
    )
    store = Store(folder).open()
    planned = runner.plan(study, store, Capacity("cpu", 1, 1))
    path = record.freeze(planned, store, ["python", "-m", "benchmarks.null_studies"])
    inline_engine.run(Listed(planned.packs), simulated.Simulated(store), store, planned.capacity, lambda _: None)
    return tables.build(json.loads((path / "plan.json").read_text()), store.trials())


def stored_error(world: World, studies: int) -> float:
    """The percentage of stored studies without a difference in which the report's p finds one."""
    p: list[float] = []
    for first in range(0, studies, STORED_AT_ONCE):
        with tempfile.TemporaryDirectory(prefix="null-") as folder:
            report = stored(world, range(first, min(first + STORED_AT_ONCE, studies)), Path(folder))
        p += [one.p for row in report.rows for one in row.comparisons if one is not None and one.p is not None]
    assert len(p) == studies
    return share(np.array(p) < LEVEL)


def share(which: ArrayLike) -> float:
    """How many are true, in percent."""
    return 100 * float(np.mean(np.asarray(which)))


def draw_sizes(found: Mapping[str, list[float]], path: Path) -> None:
    """The false positives against the correlation of folds, as an SVG."""
    import altair as alt

    rows = [
        {"test": name, "correlation": correlation, "share": value}
        for name, values in found.items()
        for correlation, value in zip(CORRELATIONS, values, strict=True)
    ]
    x = alt.X("correlation:Q", title="correlation of folds (the correction assumes 0.1)")
    y = alt.Y("share:Q", title="false positives, % of studies")
    lines = alt.Chart(pl.DataFrame(rows)).mark_line(point=True).encode(x=x, y=y, color=alt.Color("test:N", sort=None))
    nominal = alt.Chart(pl.DataFrame({"share": [100 * LEVEL]})).mark_rule(strokeDash=[4, 4]).encode(y="share:Q")
    _save(
        alt.layer(nominal, lines).properties(width=420, height=260, title="SIMULATED studies without a difference"),
        path,
    )


def draw_powers(found: Mapping[int, Mapping[float, tuple[float, float]]], path: Path) -> None:
    """The power against the difference by the number of seeds, simulated (dots) and by formula (lines), as an SVG."""
    import altair as alt

    rows = [
        {"seeds": str(seeds), "difference": difference, "simulated": simulated_, "formula": formula}
        for seeds, by_difference in found.items()
        for difference, (simulated_, formula) in by_difference.items()
    ]
    x = alt.X("difference:Q", title="true difference, points of accuracy")
    colour = alt.Color("seeds:N", sort=None)
    title = "studies that find it, %"
    table = alt.Chart(pl.DataFrame(rows))
    lines = table.mark_line(interpolate="monotone").encode(x=x, y=alt.Y("formula:Q", title=title), color=colour)
    dots = table.mark_point(filled=True, size=50).encode(x=x, y=alt.Y("simulated:Q", title=title), color=colour)
    chart = alt.layer(lines, dots).properties(width=420, height=260, title="SIMULATED studies of two configurations")
    _save(chart, path)


def _save(chart: "object", path: Path) -> None:
    import vl_convert

    path.write_text(vl_convert.vegalite_to_svg(chart.to_dict()))  # type: ignore[attr-defined]


def table(corner: str, columns: list[str], rows: Mapping[str, list[float]], digits: int = 1) -> str:
    """A Markdown table of numbers."""
    lines = [f"| {corner} | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    lines += [f"| {name} | {' | '.join(f'{value:.{digits}f}' for value in values)} |" for name, values in rows.items()]
    return "\n".join(lines)


def main() -> None:
    """Simulate, print the tables, draw the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000, help="simulated in arrays, for each number")
    parser.add_argument("--stored", type=int, default=20_000, help="run through a store")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the plots")
    given = parser.parse_args()
    count = given.studies
    error = stored_error(World(), given.stored)
    print(f"False positives of {given.stored:,} studies through design, plan, store and report: {error:.2f}%\n")
    of_folds = sizes(OF_FOLDS, {str(c): World(c) for c in CORRELATIONS}, count)
    print(f"False positives, % of {count:,} studies, one seed:\n")
    print(table("test at 5% \\ correlation of folds", [f"{c:g}" for c in CORRELATIONS], of_folds), end="\n\n")
    worlds = {
        "subjects 2, seeds 1": World(seeds=5, sd=2.0, noise=1.0),
        "subjects 2, seeds 2": World(seeds=5, sd=2.0, noise=2.0),
        "subjects 1, seeds 3": World(seeds=5, sd=1.0, noise=3.0),
    }
    print(f"False positives, % of {count:,} studies, five seeds, fold means correlated by 0.1; standard deviations:\n")
    print(table("test at 5% \\ points of", [*worlds], sizes(OF_SEEDS, worlds, count)), end="\n\n")
    families = {f"{c:g}": family_errors(World(c), count) for c in CORRELATIONS}
    print(f"Any false positive among 11 comparisons of 7 configurations with two baselines, % of {count:,} studies:\n")
    by = {"Holm": [a for a, _ in families.values()], "each p on its own": [b for _, b in families.values()]}
    print(table("judged by \\ correlation of folds", [*families], by), end="\n\n")
    found = {seeds: powers(replace(World(sd=1.0, noise=2.0), seeds=seeds), count) for seeds in SEEDS}
    print(f"Studies that find a difference, % of {count:,} (by formula); standard deviations: subjects 1, seeds 2:\n")
    print("| seeds \\ points | " + " | ".join(f"{d:g}" for d in DIFFERENCES) + " |")
    print("| --- |" + " ---: |" * len(DIFFERENCES))
    for seeds, row in found.items():
        print(
            f"| {seeds} | "
            + " | ".join(f"{simulated_:.1f} ({formula:.1f})" for simulated_, formula in row.values())
            + " |"
        )
    print("\n95% intervals that hold the true difference, % of 2,000 studies, 18 frames a subject:\n")
    held = {str(n): coverage(n, 2_000) for n in (10, 30, 80)}
    by = {"over subjects (the report's)": [a for a, _ in held.values()], "over frames": [b for _, b in held.values()]}
    print(table("bootstrap \\ subjects", [*held], by))
    draw_sizes(of_folds, given.out / "false_positives.svg")
    draw_powers(found, given.out / "power.svg")


if __name__ == "__main__":
    main()
