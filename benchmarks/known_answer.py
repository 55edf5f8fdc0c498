"""Studies whose answer is known, run through the real bank, packs, store and analysis.

`python -m benchmarks.known_answer [--store DIR]` draws the faces, trains what the store lacks and prints the tables
of `docs/measured/known-answer.md`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from orchestrator import machine, record, runner, trunks
from orchestrator.progress import Event, PackFailed
from orchestrator.report.scores import FoldScores
from orchestrator.statistics.folds import Comparison
from orchestrator.store import Store

STUDY = Path(__file__).parents[1] / "studies" / "known_answer" / "planted.yaml"
PEOPLE = {"oulu-casia": 30, "ferplus": 300}  # to draw


@dataclass(frozen=True)
class Answer:
    """What the analysis says of one cell against another, on one seed's trials."""

    seed: int
    label: Mapping[str, Any]  # of the cell, as the study file has it
    accuracy: float  # percent, mean of the folds
    minus: Comparison


def main() -> None:
    """Run the planted study and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known_answer", description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("known-answer"), help="the store's folder")
    store = Store(parser.parse_args().store).open()
    draw_faces(store)
    plan = run(store)
    print(to_markdown(plan, store))


def draw_faces(store: Store) -> None:
    """Draw and prepare the faces of the planted world, with traits that say nothing about expressions."""
    for name, people in PEOPLE.items():
        root = store.root / "faces" / name
        _idenctl("data", "synth", name, "--out", root, "--subjects", people, "--identity-effect", 0)
        points = ["--landmarks", root / "landmarks.csv"] if name == "oulu-casia" else []
        _idenctl("data", "prepare", name, "--root", root, *points, "--store", store.root)


def run(store: Store, file: Path = STUDY) -> dict[str, Any]:
    """Train what the store lacks of a planted study; gives its `plan.json`. Raises RuntimeError where a pack fails."""
    planned = runner.plan(runner.load(file, None, {}, store), store, machine.this_machine())
    trunks.train(list(planned.trunks.values()), store, planned.capacity, lambda _: None)
    folder = record.freeze(planned, store, ["python", "-m", "benchmarks.known_answer"])

    def listen(event: Event) -> None:
        if isinstance(event, PackFailed):
            raise RuntimeError(f"pack {event.pack_id}: {event.reason}\n{event.traceback}")

    runner.run_packs(planned, store, listen, engine="inline")
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return plan


def answers(plan: Mapping[str, Any], trials: pl.DataFrame, wanted: str, baseline: Mapping[str, Any]) -> list[Answer]:
    """The cells of the variant `wanted` against the cell `baseline`, seed by seed; differences in percent."""
    base = _configuration_id(plan, baseline)
    percent = trials.with_columns(pl.col("accuracy") * 100)
    found = []
    for seed in plan["seeds"]:
        scores = FoldScores(percent.filter(seed=seed), "accuracy")
        cells = [cell for cell in plan["cells"] if cell["settings"]["variant"] == wanted]
        cells = [cell for cell in cells if cell["configuration_id"] != base]
        ids = [cell["configuration_id"] for cell in cells]
        pairs = zip(cells, scores.estimates(ids), scores.minus(ids, [base] * len(ids), ""), strict=True)
        for cell, estimate, minus in pairs:
            assert estimate.mean is not None
            found.append(Answer(seed, cell["label"], estimate.mean, minus))
    return found


def corrected(answer: Answer, among: Sequence[Answer]) -> float:
    """The answer's p times the number of comparisons (Bonferroni), at most 1."""
    return min(1.0, len(among) * p_of(answer))


def p_of(answer: Answer) -> float:
    """The answer's two-sided p; folds that are all equal differ by nothing, and have 1."""
    return 1.0 if answer.minus.p is None else answer.minus.p


def equal_to_the_bit(plan: Mapping[str, Any], store: Store, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two cells gave the same probabilities for every test frame of every fold and seed."""
    trials, predictions = store.trials(), store.predictions()
    keys = ["fold", "seed", "sequence", "frame"]

    def of(label: Mapping[str, Any]) -> pl.DataFrame:
        own = trials.filter(configuration_id=_configuration_id(plan, label)).select("trial_id", "fold", "seed")
        return predictions.join(own, on="trial_id").select(*keys, "probabilities").sort(keys)

    return not of(one).is_empty() and of(one).equals(of(other))


def to_markdown(plan: Mapping[str, Any], store: Store) -> str:
    """The tables of the planted study."""
    trials = store.trials()
    original, f = plan["report"]["baselines"]
    planted_ = answers(plan, trials, "f", original)
    lines = [
        "| seed | strength | SYNTHETIC accuracy % | minus Original | p | p corrected | called at 0.01 |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for a in planted_:
        p = corrected(a, planted_)
        cells_ = [a.seed, a.label["strength"], f"{a.accuracy:.2f}", _difference(a), _p(p_of(a)), _p(p)]
        lines.append(_row([*cells_, "yes" if p < 0.01 else "no"]))
    lines += [
        "",
        f"| seed | IF at strength {f['strength']} | SYNTHETIC accuracy % | minus F | p |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for a in answers(plan, trials, "if", f):
        what = ", ".join(f"{name} {value}" for name, value in a.label.items() if name not in ("variant", "strength"))
        lines.append(_row([a.seed, what, f"{a.accuracy:.2f}", _difference(a), _p(p_of(a))]))
    (zero,) = [cell["label"] for cell in plan["cells"] if cell["label"].get("alpha") == 0]
    same = "equal" if equal_to_the_bit(plan, store, f, zero) else "NOT equal"
    lines += ["", f"Probabilities of alpha 0 and of F, all test frames: {same} to the bit."]
    return "\n".join(lines)


def _configuration_id(plan: Mapping[str, Any], label: Mapping[str, Any]) -> str:
    (found,) = [cell["configuration_id"] for cell in plan["cells"] if cell["label"] == label]
    return str(found)


def _difference(answer: Answer) -> str:
    half_width = answer.minus.difference.half_width
    return f"{answer.minus.difference.mean:+.2f}" + ("" if half_width is None else f" ± {half_width:.2f}")


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _row(values: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def _idenctl(*arguments: object) -> None:
    command = [sys.executable, "-m", "orchestrator.cli.app", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
