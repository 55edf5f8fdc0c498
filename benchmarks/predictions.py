"""Predicted beside actual: what `study plan --calibrate` says of packs and trunks, and what the real training takes.

`python -m benchmarks.predictions` prints the table of `docs/measured/planning.md`. It counts the processor's time
divided by the number of threads, which on an idle machine is wall time, so that others on the machine move the figures
little.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from idennet_core import config, pace, packed, pretraining
from idennet_core.datasets import prepared
from idennet_core.datasets.oulu_casia import CLASSES
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from idennet_core.training import Member, keep_freed_memory, single_threads
from orchestrator import calibration
from orchestrator.store import Store
from orchestrator.trial import Configuration, Pack, Trial

THREADS = 2
PICTURES, PEOPLE = 1440, 80  # of Oulu-CASIA: three frames of six expressions of eighty people
PACKS = [  # depth, batch size, variant, trials, epochs
    (10, 16, "original", 4, 2),
    (10, 128, "if", 2, 2),
    (16, 32, "original", 10, 2),
    (16, 32, "if", 6, 1),
    (16, 128, "f", 4, 1),
    (22, 64, "if", 4, 1),
    (40, 128, "original", 2, 1),
]
TRUNKS = [(10, 32), (16, 32), (16, 128)]  # depth, batch size


def main() -> None:
    """Print the table."""
    keep_freed_memory()
    clock = SimpleNamespace(monotonic=lambda: time.process_time() / THREADS)
    print("| what | predicted s | took s | took / predicted |\n| --- | ---: | ---: | ---: |")
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(pace, "time", clock),
        patch.object(packed, "time", clock),
    ):
        store = Store(Path(folder)).open()
        _save(store)
        for depth, size, variant, trials, epochs in PACKS:
            settings = {"depth": depth, "batch_size": size, "variant": variant, "epochs": epochs, "augment": False}
            what = f"depth {depth}, batch {size}, {variant}, {trials} trials, {epochs} epochs"
            _say(what, *_pack(config.canonical(settings), trials, store))
        for depth, size in TRUNKS:
            _say(f"two trunks side by side, depth {depth}, batch {size}", *_trunks(depth, size, store, clock.monotonic))


def _pack(settings: dict[str, Any], trials: int, store: Store) -> tuple[float, float]:
    whole = Configuration({"dataset": "noise", **settings}, {})
    pack = Pack(tuple(Trial(whole, place % 10, place // 10) for place in range(trials)))
    calibration.measure_packs([pack], store, "cpu", THREADS)
    parts, _ = calibration.pack_seconds(pack, store, "cpu", THREADS)
    faces, place = prepared.load(store.data / "noise"), calibration.place_of("cpu")
    recipe = {"task": "emotion", "seed": 0, "lr": 0.1, "precision": "fp32"} | settings
    network, _ = pretraining.start(recipe, len(faces.classes), place)
    examples = packed.examples(faces, False)
    weights, width = network.state_dict(), network.trunk.out_width
    members = [Member(settings, t.fold, t.seed, examples, width, weights, place) for t in pack.trials]
    _, seconds = packed.train(
        members,
        [network.trunk] * len(config.tasks(settings["variant"])),
        faces,
        first_epoch=0,
        device=place,
        threads=THREADS,
        on_progress=lambda progress: None,
        on_epoch=lambda epoch, records: None,
    )
    return sum(parts.values()), seconds.trunks + seconds.heads


def _trunks(depth: int, size: int, store: Store, now: Callable[[], float]) -> tuple[float, float]:
    shape = {"depth": depth, "bottleneck": 12, "compression": 1.0}
    faces, place = prepared.load(store.data / "noise"), calibration.place_of("cpu")
    wanted = [{"dataset": "noise", "epochs": 1, "batch_size": size, "seed": seed} for seed in range(THREADS)]
    recipes = [config.trunk_recipe("emotion", shape, settings, faces.data_id) for settings in wanted]
    calibration.measure_trunks(recipes[:1], store, "cpu", THREADS)
    predicted = calibration.trunk_estimate(recipes[0], store, "cpu", THREADS).seconds
    began = now()
    with single_threads(THREADS) as pool:
        for future in [
            pool.submit(
                pretraining.train_trunk, recipe, faces, store.trunks, store.checkpoints, place, lambda progress: None
            )
            for recipe in recipes
        ]:
            future.result()
    return predicted, now() - began


def _save(store: Store) -> None:
    """A prepared set of noise, of the size and the people of Oulu-CASIA."""
    rows = [
        Face(f"P{picture % PEOPLE:02}", CLASSES[picture // PEOPLE % 6], str(picture), "1", "", str(picture))
        for picture in range(PICTURES)
    ]
    pixels = generator("predictions").integers(0, 256, (PICTURES, 80, 80), dtype=np.uint8)
    prepared.save(store.data / "noise", "noise", CLASSES, True, pixels, rows, [], {})


def _say(what: str, predicted: float, took: float) -> None:
    print(f"| {what} | {predicted:.1f} | {took:.1f} | {took / predicted:.2f} |", flush=True)


if __name__ == "__main__":
    main()
