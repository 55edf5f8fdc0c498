"""What the checksums of a checkpoint, and all of writing it, take of an epoch: processor seconds of one process.

The epoch is the shortest there is, of two steps a head, with its bank and its test.
"""

import argparse
import tempfile
import time
import zlib
from pathlib import Path
from statistics import median

import torch

from benchmarks import steps
from benchmarks.peers import Work
from idennet_core import checkpoint, packed

ROUNDS = 5


def main() -> None:
    """Print bytes, processor seconds and shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=40)
    parser.add_argument("--members", type=int, default=10)
    given = parser.parse_args()
    cpu = torch.device("cpu")
    torch.set_num_threads(1)
    pack, frozen, faces = steps.pack_of(Work.drawn(given.depth, 128, 1440), given.members, 1, False, cpu)
    for member in pack:
        member.steps_per_epoch = 2
    began = time.process_time()
    packed.train(
        pack, frozen, faces, first_epoch=0, device=cpu, stack=None, threads=2,
        on_progress=lambda _: None, on_epoch=lambda *_: None,
    )  # fmt: skip
    epoch = time.process_time() - began
    state = {f"{place}/{name}": value for place, m in enumerate(pack) for name, value in m.state().items()}
    written, summed = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack.safetensors"
        for _ in range(ROUNDS):
            began = time.process_time()
            checkpoint.save(path, state, {})
            written.append(time.process_time() - began)
            content = path.read_bytes()
            began = time.process_time()
            zlib.crc32(content)
            summed.append(time.process_time() - began)
    print(f"{len(pack)} heads of depth {given.depth}: {len(content) / 1e6:.1f} MB, an epoch of two steps {epoch:.1f} s")
    for name, seconds in (("checksums", median(summed)), ("writing it, with them", median(written))):
        print(f"{name}: {1e3 * seconds:.1f} ms, {seconds / epoch:.3%} of the epoch")


if __name__ == "__main__":
    main()
