"""How long IDEnNet's work takes: pictures, times the seconds a picture that this machine was measured at.

What was measured is kept in the store, a file for each kind of network and machine.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from idennet_core import config, cost
from idennet_core.datasets import prepared
from idennet_core.ids import content_id
from orchestrator import stacks
from orchestrator.planning import Estimate
from orchestrator.store import Store, this_host, write_json
from orchestrator.trial import Pack, Setting

FLOPS = {  # operations a second, a guess: of a thread, of a GPU
    "cpu": {"pretraining": 9e9, "trunk": 27e9, "fusion": 40e9, "block": 18e9},
    "gpu": {"pretraining": 5e12, "trunk": 5e12, "fusion": 1e12, "block": 1e12},
}
Pace = Mapping[str, float]  # seconds a picture, of each part of the work


def pack_seconds(pack: Pack, store: Store, device: str, threads: int) -> tuple[dict[str, float], bool]:
    """The seconds that each part of a pack will take, and whether its pace was measured or is a guess."""
    pace = _stored(store, _of_pack(pack, store, device, threads))
    work = _pack_work(pack, store, _together(pack, store, device, threads))
    return _seconds(work, pace or _pack_guess(pack, device, threads)), pace is not None


def measure_packs(packs: Sequence[Pack], store: Store, device: str, threads: int) -> None:
    """Measure the pace of such packs, in a few seconds for each kind of network, and keep it."""
    from idennet_core import pace

    kinds = {_path(store, _of_pack(pack, store, device, threads)): pack for pack in packs}
    for pack in kinds.values():
        together, settings = _together(pack, store, device, threads), _settings(pack)
        workers, stack = (threads, stacks.on_cpu(settings)) if device == "cpu" else (1, together)
        found = pace.measure(settings, together, place_of(device), workers, stack)
        _keep(store, _of_pack(pack, store, device, threads), asdict(found), "calibration")


def learn_pack(pack: Pack, store: Store, device: str, threads: int, spent: Mapping[str, float]) -> None:
    """Keep the pace at which a pack ran; `spent` are its seconds on trunks and on heads."""
    work = _pack_work(pack, store, _together(pack, store, device, threads))
    pace = {part: spent[part] / amount for part, amount in work.items()}
    _keep(store, _of_pack(pack, store, device, threads), pace, f"pack {pack.pack_id}")


def trunk_estimate(recipe: Mapping[str, Setting], store: Store, device: str, together: int) -> Estimate:
    """What the pre-training of a trunk will take, one of `together` side by side; bytes, of its pictures."""
    pace = _stored(store, _of_trunk(recipe, device, together))
    settings: dict[str, Any] = dict(recipe)
    training, held_out = _parts(store, settings["dataset"], "valid")
    work = {"step": settings["epochs"] * cost.head_pictures(training, held_out, settings["batch_size"])}
    guess = {"step": 3 * cost.trunk_flops(settings) / FLOPS[device]["pretraining"]}  # backward is twice forward
    memory = (training + held_out) * config.STORED_SIZE**2
    return Estimate(sum(_seconds(work, pace or guess).values()), memory, pace is not None)


def measure_trunks(recipes: Sequence[Mapping[str, Setting]], store: Store, device: str, together: int) -> None:
    """Measure the pace of the pre-training of such trunks, and keep it."""
    from idennet_core import pace

    kinds = {_path(store, _of_trunk(recipe, device, together)): recipe for recipe in recipes}
    for recipe in kinds.values():
        found = pace.measure_pretraining(recipe, together, place_of(device))
        _keep(store, _of_trunk(recipe, device, together), {"step": found}, "calibration")


def place_of(device: str) -> Any:
    """The torch device, with this process set up for work on it."""
    import torch

    from idennet_core.training import keep_freed_memory

    keep_freed_memory()
    torch.cuda.empty_cache()  # of packs before, which other processes may want; without a GPU it does nothing
    return torch.device("cuda" if device == "gpu" else "cpu")


def _settings(pack: Pack) -> dict[str, Any]:
    return dict(pack.trials[0].configuration.settings)


def _together(pack: Pack, store: Store, device: str, threads: int) -> int:
    """How many heads train side by side, or as one."""
    return min(len(pack.trials), threads if device == "cpu" else stacks.size(store, _settings(pack)))


def _of_pack(pack: Pack, store: Store, device: str, threads: int) -> dict[str, Any]:
    """All that a pack's pace depends on."""
    settings = _settings(pack)
    return {
        "device": device,
        "host": this_host(),
        "threads": threads,
        **{name: settings[name] for name in (*config.ARCHITECTURE, "batch_size")},
        "streams": len(config.tasks(settings["variant"])),
        **({"precision": settings["precision"]} if "precision" in settings else {}),
        "together": _together(pack, store, device, threads),
    }


def _of_trunk(recipe: Mapping[str, Setting], device: str, together: int) -> dict[str, Any]:
    names = (*config.ARCHITECTURE, "batch_size", "precision")
    return {"device": device, "host": this_host(), **{name: recipe[name] for name in names}, "trunks": together}


def _pack_work(pack: Pack, store: Store, together: int) -> dict[str, float]:
    """Pictures to go through the trunks, and through the steps of heads that train `together` at a time."""
    settings = _settings(pack)
    pictures: int = prepared.read_metadata(store.data / settings["dataset"])["num_faces"]
    training, tested = pictures - pictures // 10, pictures // 10
    if pack.trials[0].fold is None:
        training, tested = _parts(store, settings["dataset"], "test")
    epochs, views = settings["epochs"] - pack.first_epoch, 14 if settings["augment"] else 1
    epoch = cost.head_pictures(views * training, tested, settings["batch_size"])
    rounds = ceil(len(pack.trials) / together)
    return {"trunk": float(pictures * (views * epochs + 1)), "head": rounds * epochs * epoch}


def _parts(store: Store, dataset: str, other: str) -> tuple[int, int]:
    """How many pictures are trained on, and how many are in the split `other`; nine to one in a set without splits."""
    splits = _splits(store, dataset, prepared.read_metadata(store.data / dataset)["data_id"])
    if "train" not in splits:
        return splits.total() - splits.total() // 10, splits.total() // 10
    return splits["train"], splits[other]


@cache
def _splits(store: Store, dataset: str, data_id: str) -> Counter[str]:
    """How many pictures are in each split; read once, as a plan asks for every trunk and pack."""
    return Counter(prepared.splits(store.fetch("data", dataset, prepared.INDEX).parent))


def _pack_guess(pack: Pack, device: str, threads: int) -> Pace:
    """From the arithmetic alone."""
    settings = _settings(pack)
    streams, workers = len(config.tasks(settings["variant"])), threads if device == "cpu" else 1
    fusion, block = cost.head_flops(settings, streams)
    return {
        "trunk": cost.trunk_flops(settings) * streams / FLOPS[device]["trunk"] / workers,
        "head": fusion / FLOPS[device]["fusion"] + block / FLOPS[device]["block"],
    }


def _seconds(work: Mapping[str, float], pace: Pace) -> dict[str, float]:
    return {part: amount * pace[part] for part, amount in work.items()}


def _path(store: Store, conditions: Mapping[str, Any]) -> Path:
    return store.calibration / f"{content_id(dict(conditions))}.json"


def _stored(store: Store, conditions: Mapping[str, Any]) -> Pace | None:
    """What was measured under these conditions; nothing where the file is missing or damaged."""
    try:
        found = json.loads(_path(store, conditions).read_text())["pace"]
        return {part: float(seconds) for part, seconds in found.items()} or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keep(store: Store, conditions: Mapping[str, Any], pace: Pace, source: str) -> None:
    content = {**conditions, "pace": dict(pace), "measured_by": source}
    write_json(_path(store, conditions), content)
    store.keep(_path(store, conditions))
