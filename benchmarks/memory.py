"""The memory model beside what processes take: `python -m benchmarks.memory`.

Each case trains a pack for two epochs in a process of its own, on noise, with checkpoints, and tells its peak resident
set; the model is `cost.host_bytes`, which planning uses. With a GPU the same packs run there, beside `device_bytes`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers, steps
from benchmarks.peers import Work
from idennet_core import checkpoint, cost, packed
from idennet_core.config import canonical
from idennet_core.training import keep_freed_memory

CASES = [  # depth, members, batch, pictures, whether they are augmented
    (16, 1, 128, 1440, False),
    (16, 60, 128, 1440, False),
    (40, 1, 128, 1440, False),
    (40, 2, 128, 720, False),
    (40, 4, 32, 2880, False),
    (40, 8, 256, 720, False),
    (22, 2, 128, 480, True),
]


def predicted(depth: int, members: int, batch: int, pictures: int, augment: bool, stack: int | None) -> int:
    """Bytes that the model says."""
    settings = canonical({"depth": depth, "batch_size": batch, "epochs": 2, "augment": augment})
    outputs = peers.CLASSES + peers.PEOPLE
    if stack is None:
        threads = len(os.sched_getaffinity(0))
        return sum(cost.host_bytes(settings, 2, outputs, pictures, members, threads).values())
    return sum(cost.device_bytes(settings, 2, outputs, pictures, members, stack).values())


def trained(depth: int, members: int, batch: int, pictures: int, augment: bool, stack: int | None) -> int:
    """Bytes at the peak of this process, or of the GPU, of a pack that trains in it for two epochs."""
    keep_freed_memory()
    device = torch.device("cpu" if stack is None else "cuda")
    pack, frozen, faces = steps.pack_of(Work.drawn(depth, batch, pictures), members, 2, augment, device)
    for member in pack:  # a short epoch has the peak of a long one
        member.steps_per_epoch = min(member.steps_per_epoch, 2)
    with tempfile.TemporaryDirectory() as folder:

        def on_epoch(epoch: int, records: Any) -> None:
            state = {f"{place}/{name}": value for place, m in enumerate(pack) for name, value in m.state().items()}
            checkpoint.save(Path(folder) / "pack.safetensors", state, {})

        packed.train(
            pack, frozen, faces, first_epoch=0, device=device, stack=stack,
            threads=len(os.sched_getaffinity(0)), on_progress=lambda _: None, on_epoch=on_epoch,
        )  # fmt: skip
    if stack is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def measured(case: tuple[int, int, int, int, bool], stack: int | None) -> int:
    """`trained` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", "--case", json.dumps([*case, stack])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(cases: list[tuple[int, int, int, int, bool]], stack: int | None) -> list[dict[str, Any]]:
    """Model and measurement of each case, printed and returned."""
    print("depth members batch pictures augmented     model  measured  error")
    rows = []
    for case in cases:
        model, found = predicted(*case, stack), measured(case, stack)
        error = model / found - 1
        print("{:5} {:7} {:5} {:8} {!s:9}".format(*case), f"{model / 2**20:9.0f} {found / 2**20:9.0f} {error:+6.1%}")
        rows.append({"case": case, "predicted": model, "measured": found, "error": error})
    return rows


def main() -> None:
    """Measure every case, on the CPU and, where there is one, on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=json.loads, help="one case in this process, as a JSON list")
    given = parser.parse_args()
    if given.case:
        print(trained(*given.case))
        return
    table(CASES, None)
    if torch.cuda.is_available():
        table(CASES, 16)


if __name__ == "__main__":
    main()
