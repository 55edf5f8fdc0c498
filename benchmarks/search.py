"""What a search costs beside its sampler, and how optimistic selection is, on simulated accuracies.

    python -m benchmarks.search [--trials 1000 5000] [--draws 60]

Prints both. Time is of this process's own work, so that others on the machine do not count.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from benchmarks.simulated import Simulated
from orchestrator import runner
from orchestrator.design import Cell
from orchestrator.planning import Capacity
from orchestrator.search.procedure import Procedure, Result
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.trial import Configuration, Setting

BATCH = 10
SPACE = "{x: {low: -3.0, high: 3.0}, y: {low: 0.1, high: 3.0, log: true}}"
COSTS = """
name: costs
question: What does a search cost?
workload: benchmarks.simulated:Simulated
dataset: simulated
search: {{space: {space}, sampler: {sampler}, configurations: 1000000, batch: {batch}}}
report: {{by: x}}
"""
NOISE = """
name: noise
question: Which of {arms} arms that are all the same is the best?
workload: benchmarks.simulated:Simulated
dataset: simulated
base: {{rho: 0.0, fold_sd: 0.0, draw: {draw}}}
search:
  space: {{arm: {{choices: [{names}]}}}}
  sampler: random
  configurations: {arms}
  select: {select}
  nested: true
report: {{by: arm}}
"""


def load(folder: Path, text: str) -> tuple[Study, Store]:
    """The study in a text, and a store beside it."""
    store = Store(folder / "store").open()
    (folder / "study.yaml").write_text(text)
    return runner.load(folder / "study.yaml", None, {}, store), store


def overhead(sampler: str, marks: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Seconds of asking and telling so many configurations, by their number: of Optuna alone, and of a search.

    Both begin with nothing, are told the same function and take turns by batch.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        study, store = load(Path(folder), COSTS.format(space=SPACE, sampler=sampler, batch=BATCH))
        assert study.search is not None
        workload = Simulated(store)

        def configure(point: Mapping[str, Setting]) -> Configuration:
            return workload.configure(study, [Cell(point, point)]).configurations[0]

        space = study.search.typed(Simulated.rules.settings)
        procedure = Procedure(study, None, space, configure, {}, store.root, True)
        results: dict[str, Result] = {}
        alone = optuna.create_study(direction="maximize", sampler=_sampler(sampler))
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            "x": optuna.distributions.FloatDistribution(-3, 3),
            "y": optuna.distributions.FloatDistribution(0.1, 3, log=True),
        }
        spent, found = [0.0, 0.0], {}
        for done in range(BATCH, max(marks) + 1, BATCH):
            began = time.process_time()
            for asked in [alone.ask(distributions) for _ in range(BATCH)]:
                alone.tell(asked, _value(asked.params))
            middle = time.process_time()
            procedure.advance(results, True)
            ended = time.process_time()
            spent = [spent[0] + middle - began, spent[1] + ended - middle]
            for point in procedure.waiting:
                for trial in procedure.asked[procedure.configurations[point.number].configuration_id]:
                    results[trial.trial_id] = Result("complete", _value(point.settings), [])
            if done in marks:
                found[done] = (spent[0], spent[1])
        return found


def _value(point: Mapping[str, Any]) -> float:
    return 1 - float(point["x"]) ** 2 / 20 - float(point["y"]) / 10


def bias(draws: int, arms: int = 12, select: str = "test") -> tuple[list[float], list[float], float]:
    """Percent a draw: of the best arm on the folds that selected it, and nested; and what every arm's mean is."""
    chosen, nested = [], []
    for draw in range(draws):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            names = ", ".join(f"a{arm}" for arm in range(arms))
            study, store = load(Path(folder), NOISE.format(arms=arms, names=names, draw=draw, select=select))
            planned = runner.plan(study, store, Capacity("cpu", 1, 1))
            runner.run_packs(planned, store, lambda event: None, "inline")
            done = runner.plan(study, store, Capacity("cpu", 1, 1)).search
            assert done is not None
            whole, *outer = done.record()["procedures"]
            chosen.append(100 * whole["points"][whole["chosen"][0]]["values"][0])
            nested.append(100 * statistics.fmean(one["refit"][0]["accuracy"] for one in outer))
    return chosen, nested, float(Simulated.rules.settings["mean"])


def _sampler(name: str) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=0) if name == "random" else optuna.samplers.TPESampler(seed=0)


def _with_error(values: list[float]) -> str:
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f} (standard error)"


def main() -> None:
    """Print what asking and telling costs, then the bias."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--draws", type=int, default=60)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"asking and telling by TPE, {BATCH} at a time, processor time")
    for trials, (alone, search) in overhead("tpe", given.trials).items():
        print(f"  {trials:,}: Optuna alone {alone:.1f} s, a search {search:.1f} s: {search / alone - 1:+.1%}")
    chosen, nested, truth = bias(given.draws)
    print(f"the best of 12 arms that are all the same, {given.draws} draws, SYNTHETIC; true accuracy {truth:.2f}%")
    print(f"  on the folds that selected it: {_with_error(chosen)}")
    print(f"  nested:                        {_with_error(nested)}")


if __name__ == "__main__":
    main()
