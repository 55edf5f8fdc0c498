"""A GPU in one go of a few minutes: does it compute the same, how fast is it, what would the rest take.

    python -m benchmarks.gpu [--json benchmarks/results.json]

Holds stacked members against plain modules on the device, measures member-steps a second of every way of training the
same trials, finds the knee, fills a bank, and works out the floor of a step and the time of the paper's trials. Needs
torch, NumPy, OpenCV, pyarrow and safetensors alone. `--device cpu` with small sizes runs the same script for a test.
"""

import argparse
import copy
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.peers import Work
from idennet_core import batched, cost, stacked
from idennet_core.config import GROWTH, canonical, layers_per_block
from idennet_core.losses import emotion_loss, identity_loss
from idennet_core.resident import MAPS, Bank
from idennet_core.training import Examples, Member

PRECISIONS = ("fp32", "bf16")
FLOOR = {
    "flops": {"fp32": 60e12, "bf16": 900e12},
    "bytes": 4.0e12,
}  # a second, taken for an H200: its maker's, less a part
PAPER = {"trials": 550, "steps": 14_100, "pictures": 1440, "epochs": 100, "banks": 10}
TOLERANCE = {"fp64": 1e-9, "fp32": 5e-3}  # of weights after the checked steps, against plain modules in fp64
CHECKED = 20  # steps


def member(work: Work, precision: str, fold: int, seed: int, device: torch.device) -> Member:
    """A trial of variant `if` on the device."""
    people = np.array([f"{value:02}" for value in work.people])
    examples = Examples(work.labels, people, peers.CLASSES, 1, np.full(len(people), ""))
    settings = canonical({"depth": work.depth, "batch_size": work.batch, "epochs": 2, "precision": precision})
    start = peers.emotion_network(work.depth)
    return Member(settings, fold, seed, examples, start.trunk.out_width, start.state_dict(), device)


def same(work: Work, device: torch.device) -> dict[str, float]:
    """How far weights of stacked members are from those of plain modules trained alone, in fp64, after some steps."""
    found = {}
    for name, dtype in (("fp64", torch.float64), ("fp32", torch.float32)):
        members = [member(work, "fp32", fold, fold, device) for fold in range(3)]
        torch.manual_seed(0)
        features = torch.randn(len(work.labels), members[0].head.fusion.in_channels, 12, 12, device=device).double()
        plain = [_plain(trial, features) for trial in members]
        for trial in members:
            trial.head.to(dtype)
            trial.steps_per_epoch = min(trial.steps_per_epoch, CHECKED)
        pixels = features.to(dtype).flatten(2).transpose(1, 2).contiguous()
        stack = stacked.Stack(members)
        list(stack.train_epoch(pixels, pixels, 0, Event()))
        found[name] = max(
            float((trial.head.state_dict()[key] - value).abs().max() / value.abs().max().clamp_min(1.0))
            for trial, head in zip(members, plain, strict=True)
            for key, value in head.items()
        )
    return found


def _plain(trial: Member, features: Tensor) -> dict[str, Tensor]:
    """The state dict of the trial's own module in fp64 after `CHECKED` steps with autograd and torch's SGD."""
    settings, dropout = trial.settings, copy.copy(trial.dropout)
    head = copy.deepcopy(trial.head).double().train()
    optimiser = torch.optim.SGD(
        head.parameters(), settings["lr"], settings["momentum"], weight_decay=settings["weight_decay"]
    )
    order, size = trial.order(0), settings["batch_size"]
    for step in range(min(trial.steps_per_epoch, CHECKED)):  # before the rate falls
        rows = torch.from_numpy(order[step * size : (step + 1) * size]).to(features.device)
        dropout.step = step
        emotion, identity = head(features[rows], dropout)
        loss = emotion_loss(emotion, trial.labels[rows])
        chosen = trial.identities[rows], trial.supervised, settings["alpha"], settings["gamma"]
        optimiser.zero_grad()
        (loss + identity_loss(identity, *chosen)).backward()
        optimiser.step()
    return head.state_dict()


def timed(step: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds a call, the median of calls over so many seconds after two that are not counted."""
    for _ in range(2):
        step()
    stacked.finish(device)
    took: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(took) < 3:
        began = time.perf_counter()
        step()
        stacked.finish(device)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def peer_speeds(work: Work, device: torch.device, seconds: float, processes: int) -> dict[str, float]:
    """Member-steps a second of what one could run instead, batches already on the device for all of them."""
    ways: dict[str, tuple[Callable[[], Callable[[], None]], int]] = {
        "PyTorch, one process": (lambda: peers.plain_steps(work, device=device), 1),
        "PyTorch, channels-last": (lambda: peers.plain_steps(work, "channels-last", device=device), 1),
        "PyTorch, channels-last, bf16": (lambda: peers.plain_steps(work, "channels-last", "bf16", device=device), 1),
        "vmap over 8 heads": (lambda: peers.vmap_steps(work, 8, device), 8),
        "8 heads fused in the channels": (lambda: peers.fused_steps(work, 8, device), 8),
    }
    if device.type == "cuda":
        ways["PyTorch, channels-last, bf16, CUDA graph"] = (lambda: captured(work, device), 1)
    found = {}
    for name, (make, members) in ways.items():
        found[name] = _told(name, lambda make=make, members=members: members / timed(make(), device, seconds))  # type: ignore[misc]
        if device.type == "cuda":
            torch.cuda.empty_cache()
    name = f"PyTorch, channels-last, bf16, {processes} processes"
    found[name] = _told(name, lambda: _shared(work, device, seconds, processes))
    return {name: speed for name, speed in found.items() if speed}


def captured(work: Work, device: torch.device) -> Callable[[], None]:
    """A plain trial's step as a CUDA graph, on one batch that stays where it is."""
    step = peers.plain_steps(work, "channels-last", "bf16", device=device, fixed=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _told(name: str, measure: Callable[[], float]) -> float:
    """The measurement, printed; 0 where this way does not run here, and why."""
    try:
        speed = measure()
    except Exception as error:  # a peer that does not run must not end what runs on a scarce device
        print(f"  {name:45} does not run here: {type(error).__name__}: {str(error).splitlines()[0][:90]}", flush=True)
        return 0.0
    print(f"  {name:45} {speed:10.2f} member-steps a second", flush=True)
    return speed


def _shared(work: Work, device: torch.device, seconds: float, processes: int) -> float:
    context = multiprocessing.get_context("spawn")
    queue, start = context.Queue(), context.Barrier(processes)
    running = [context.Process(target=_one_of, args=(work, device, seconds, start, queue)) for _ in range(processes)]
    for process in running:
        process.start()
    speeds = [queue.get(timeout=120 + 10 * seconds) for _ in running]
    for process in running:
        process.join()
    return float(sum(speeds))


def _one_of(work: Work, device: torch.device, seconds: float, start: Any, queue: Any) -> None:
    step = peers.plain_steps(work, "channels-last", "bf16", device=device)
    step()
    start.wait()
    queue.put(1 / timed(step, device, seconds))


def our_speeds(work: Work, device: torch.device, most: int) -> dict[str, dict[int, float]]:
    """Member-steps a second of stacks, by precision and size."""
    found = {}
    for precision in PRECISIONS:
        members = [member(work, precision, place % 10, place // 10, device) for place in range(most)]
        found[precision] = stacked.speeds(members)
        for size, speed in found[precision].items():
            print(f"  idenctl, {precision}, stack of {size:3} {speed:30.2f} member-steps a second", flush=True)
    return found


def bank_seconds(work: Work, device: torch.device, seconds: float) -> dict[str, float]:
    """Seconds that the features of one picture take, both trunks, by precision."""
    trunks, _ = peers.trunks_and_head(work.depth)
    trunks.to(device)
    offsets = np.random.default_rng(0).integers(0, 13, (len(work.faces), 2))
    found = {}
    for precision in PRECISIONS:
        bank = Bank(work.faces, list(trunks), device, MAPS[precision])  # type: ignore[arg-type]
        found[precision] = timed(lambda bank=bank: bank.fill(offsets), device, seconds) / len(work.faces)  # type: ignore[misc]
        print(f"  a bank's picture, both trunks, {precision} {found[precision] * 1e6:10.2f} µs", flush=True)
    return found


def floor(depth: int, batch: int) -> dict[str, Any]:
    """The least that a member-step can take: its arithmetic, and its maps written and read as seldom as can be."""
    architecture = {"depth": depth, "bottleneck": 12, "compression": 1.0}
    flops = sum(cost.head_flops(architecture, 2)) * batch
    width, count = cost.trunk_width(architecture), layers_per_block(depth)
    out = width + count * GROWTH
    # bank's rows twice; each layer reads what is before it, forward and twice backward, and writes its gradient once
    layers = sum(width + index * GROWTH for index in range(count))
    values = batch * batched.PIXELS * (2 * 2 * width + 2 * width + 4 * out + 4 * layers)
    seconds = {
        name: max(flops / FLOOR["flops"][name], values * size / FLOOR["bytes"])  # type: ignore[index,operator]
        for name, size in (("fp32", 4), ("bf16", 2))
    }
    return {"flops": flops, "bytes_bf16": 2 * values, "seconds": seconds}


def paper(speeds: dict[str, dict[int, float]], bank: dict[str, float]) -> dict[str, Any]:
    """What the paper's trials would take on this device at the speeds just measured; computed, not run."""
    steps, pictures = PAPER["trials"] * PAPER["steps"], PAPER["pictures"] * 14 * PAPER["epochs"] * PAPER["banks"]
    return {
        name: {
            "heads_minutes": steps / max(speeds[name].values()) / 60,
            "banks_minutes": pictures * bank[name] / 60,
        }
        for name in PRECISIONS
    }


def main() -> None:
    """Check, measure, write; exit status 2 where there is no GPU, 1 where the results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    for name, default in (("depth", 40), ("batch", 128), ("members", 64), ("pictures", 4096), ("processes", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print(
            "the GPU benchmark needs a CUDA device, torch sees none; run it on one, or with --device cpu",
            file=sys.stderr,
        )
        raise SystemExit(2)
    device, began = torch.device(given.device), time.perf_counter()
    work = Work.drawn(given.depth, given.batch, given.pictures)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(f"{name}, torch {torch.__version__}, depth {given.depth}, batch {given.batch}", flush=True)
    differences = same(Work.drawn(min(given.depth, 16), 16, 480), device)
    right = all(differences[kind] <= limit for kind, limit in TOLERANCE.items())
    print(f"  against plain modules alone in fp64: {differences}: {'the same' if right else 'DIFFERENT'}", flush=True)
    peers_found = peer_speeds(work, device, given.seconds, given.processes)
    ours, bank = our_speeds(work, device, given.members), bank_seconds(work, device, given.seconds)
    least, whole = floor(given.depth, given.batch), paper(ours, bank)
    for precision in PRECISIONS:
        best = max(ours[precision].values())
        print(
            f"  {precision}: knee {cost.knee(ours[precision])}, {1e6 / best:.0f} µs a member-step, "
            f"{1 / best / least['seconds'][precision]:.1f} times the floor; the paper's trials, computed: "
            f"{whole[precision]['heads_minutes']:.0f} min of heads, {whole[precision]['banks_minutes']:.0f} of banks"
        )
    about = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "torch": torch.__version__,
        "depth": given.depth,
        "batch": given.batch,
        "differences": differences,
        "same": right,
        "peers": peers_found,
        "idenctl": ours,
        "knee": {precision: cost.knee(ours[precision]) for precision in PRECISIONS},
        "bank_seconds_a_picture": bank,
        "floor": least,
        "paper": whole,
        "seconds": time.perf_counter() - began,
    }
    kept = json.loads(given.json.read_text()) if given.json.is_file() else {}
    given.json.write_text(json.dumps(kept | {"gpu": about}, indent=1) + "\n")
    print(f"written to {given.json} after {about['seconds']:.0f} s")
    raise SystemExit(0 if right else 1)


if __name__ == "__main__":
    main()
