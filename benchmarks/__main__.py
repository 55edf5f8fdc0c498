"""Our speed beside what else one could run, in one go: `make bench`.

    python -m benchmarks [--depth 40] [--members 60] [--rounds 1] [--epochs 1] [--json benchmarks/results.json]

Prints tables and writes the figures as JSON. Everything is measured here and now; nothing is remembered.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import steps, studies
from benchmarks.peers import Work

SIZES = (1, 4, 15)  # further packs, to see how the speed grows with the members


def step_table(depth: int, batch: int, members: int, rounds: int, peer_steps: int) -> dict[str, Any]:
    """Member-steps a second of every way of training, printed and returned."""
    work = Work.drawn(depth, batch)
    ways = steps.contenders(work, peer_steps, members)
    ways |= {f"{steps.OURS}, {size} members": (steps.in_packs, (work, size)) for size in SIZES if size != members}
    speeds = steps.take_turns(ways, rounds)
    ratios = steps.ratios(speeds, to=steps.RAY)
    print(f"member-steps a second, depth {depth}, batch {batch}, median of {rounds} rounds (least to most)")
    for name, values in speeds.items():
        spread = f"({min(values):.3f} to {max(values):.3f})"
        print(f"  {name:40} {statistics.median(values):8.3f} {spread:20} {ratios[name]:6.1f}x")
    return {name: {"steps_per_second": values, "ratio": ratios[name]} for name, values in speeds.items()}


def main() -> None:
    """Measure steps, then a study; print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 40), ("batch", 128), ("members", 60), ("rounds", 1), ("steps", 2), ("epochs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    given = parser.parse_args()
    speeds = step_table(given.depth, given.batch, given.members, given.rounds, given.steps)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        study = studies.compare(Path(folder), given.depth, given.batch, given.epochs)
    print("a study of {trials} trials of {steps_a_trial} steps, depth {depth}, end to end".format(**study))
    print("  idenctl  {idenctl_seconds:8.1f} s".format(**study))
    print("  Ray Tune {ray_tune_seconds:8.1f} s, from {ray_tune_measured}".format(**study))
    print("  {ratio:.1f}x".format(**study))
    cpu = {
        "members": given.members,
        "depth": given.depth,
        "step_ratio": speeds[f"{steps.OURS}, {given.members} members"]["ratio"],
        "study_ratio": study["ratio"],
        "steps": speeds,
        "study": study,
    }
    about = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }
    given.json.write_text(json.dumps(about | {"cpu": cpu}, indent=1) + "\n")
    print(f"written to {given.json}")


if __name__ == "__main__":
    main()
