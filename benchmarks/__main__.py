"""Our speed beside what else one could run, in one go: `make bench`.

    python -m benchmarks [--depth 40] [--members 60] [--rounds 3] [--epochs 1] [--json benchmarks/results.json]

Prints tables of training steps, of a study end to end and of pre-training, and writes the figures as JSON.
Everything is measured here and now; nothing is remembered.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import pretraining, steps, studies, turns
from benchmarks.peers import Work

SIZES = (1, 2, 4, 8, 15, 30)  # packs, to see how the speed grows with the members


def step_table(depth: int, batch: int, members: int, rounds: int, peer_steps: int) -> dict[str, Any]:
    """Member-steps a second of every way of training, printed and returned."""
    ways = steps.contenders(Work.drawn(depth, batch), peer_steps, members, SIZES)
    speeds = turns.take_turns(ways, rounds)
    print(f"member-steps a second, depth {depth}, batch {batch}, median of {rounds} rounds (least to most)")
    return turns.table(speeds, steps.RAY, "steps_per_second", digits=3)


def main() -> None:
    """Measure steps, then a study, then pre-training; print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 40), ("batch", 128), ("members", 60), ("rounds", 3), ("steps", 2), ("epochs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    given = parser.parse_args()
    speeds = step_table(given.depth, given.batch, given.members, given.rounds, given.steps)
    study = studies.table(given.depth, given.batch, given.epochs)
    cpu = {
        "members": given.members,
        "depth": given.depth,
        "step_ratio": speeds[steps.ours(given.members)]["ratio"],
        "study_ratio": study["ratio"],
        "steps": speeds,
        "curve": {size: speeds[steps.ours(size)] for size in sorted({*SIZES, given.members})},
        "study": study,
        "pretraining": pretraining.table(given.depth, given.batch, given.rounds, 1),
    }
    kept = json.loads(given.json.read_text()) if given.json.is_file() else {}  # a GPU's
    given.json.write_text(json.dumps(kept | studies.about_this_machine() | {"cpu": cpu}, indent=1) + "\n")
    print(f"written to {given.json}")


if __name__ == "__main__":
    main()
