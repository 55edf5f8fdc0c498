"""How long IDEnNet's packs take: their work, times the pace that this machine was measured at; kept in the store."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

from idennet_core import config, cost
from idennet_core.datasets import prepared
from orchestrator.store import Store, this_host, write_text
from orchestrator.trial import Pack

FLOPS = {"cpu": {"trunk": 9e9, "head": 11e9}, "gpu": {"trunk": 5e12, "head": 1e12}}  # a guess; a thread's, a GPU's


def pack_seconds(pack: Pack, store: Store, device: str, threads: int) -> tuple[float, bool]:
    """The seconds that a pack will take, and whether they come from a measured pace or from a guess."""
    pace = _stored(store, _conditions(pack, device, threads))
    work = _work(pack, store, _together(pack, device, threads))
    spent = {part: amount * (pace or _guess(pack, device, threads))[part] for part, amount in work.items()}
    return sum(spent.values()), pace is not None


def is_measured(pack: Pack, store: Store, device: str, threads: int) -> bool:
    """Whether the pace of such packs is known."""
    return _stored(store, _conditions(pack, device, threads)) is not None


def measure(pack: Pack, store: Store, device: str, threads: int) -> None:
    """Measure the pace of such packs and keep it; takes a few seconds."""
    import torch

    from idennet_core import pace
    from idennet_core.training import keep_freed_memory

    keep_freed_memory()
    place = torch.device("cuda" if device == "gpu" else "cpu")
    together = _together(pack, device, threads)
    found = pace.measure(_settings(pack), together, place, threads if device == "cpu" else 1)
    _keep(store, _conditions(pack, device, threads), asdict(found), "calibration")


def learn(pack: Pack, store: Store, device: str, threads: int, spent: Mapping[str, float]) -> None:
    """Keep the pace at which a pack ran; `spent` are its seconds on trunks and on heads."""
    work = _work(pack, store, _together(pack, device, threads))
    pace = {part: spent[part] / amount for part, amount in work.items()}
    _keep(store, _conditions(pack, device, threads), pace, f"pack {pack.pack_id}")


def _settings(pack: Pack) -> dict[str, Any]:
    return dict(pack.trials[0].configuration.settings)


def _together(pack: Pack, device: str, threads: int) -> int:
    """How many heads train side by side."""
    return min(len(pack.trials), threads) if device == "cpu" else 1


def _conditions(pack: Pack, device: str, threads: int) -> dict[str, Any]:
    """All that a pace depends on."""
    settings = _settings(pack)
    return {
        "device": device,
        "host": this_host(),
        "threads": threads,
        **{name: settings[name] for name in (*config.ARCHITECTURE, "batch_size")},
        "streams": len(config.tasks(settings["variant"])),
        "together": _together(pack, device, threads),
    }


def _work(pack: Pack, store: Store, together: int) -> dict[str, float]:
    """Pictures to go through the trunks, and through the steps of heads that train `together` at a time."""
    settings = _settings(pack)
    directory = store.data / str(settings["dataset"])
    pictures: int = prepared.read_metadata(directory)["num_faces"]
    training, tested = pictures - pictures // 10, pictures // 10
    if pack.trials[0].fold is None:
        splits = prepared.load(directory).split.tolist()
        training, tested = splits.count("train"), splits.count("test")
    epochs, views = settings["epochs"] - pack.first_epoch, 14 if settings["augment"] else 1
    epoch = cost.head_pictures(views * training, tested, settings["batch_size"])
    rounds = ceil(len(pack.trials) / together)
    return {"trunk": float(pictures * (views * epochs + 1)), "head": rounds * epochs * epoch}


def _guess(pack: Pack, device: str, threads: int) -> dict[str, float]:
    """Seconds for a picture, from the arithmetic alone."""
    settings = _settings(pack)
    streams, workers = len(config.tasks(settings["variant"])), threads if device == "cpu" else 1
    return {
        "trunk": cost.trunk_flops(settings) * streams / FLOPS[device]["trunk"] / workers,
        "head": cost.head_flops(settings, streams) / FLOPS[device]["head"],
    }


def _path(store: Store, conditions: Mapping[str, Any]) -> Path:
    return store.calibration / f"{config.content_id(dict(conditions))}.json"


def _stored(store: Store, conditions: Mapping[str, Any]) -> dict[str, float] | None:
    try:
        found: dict[str, dict[str, float]] = json.loads(_path(store, conditions).read_text())
    except (OSError, ValueError):
        return None
    return found["pace"]


def _keep(store: Store, conditions: Mapping[str, Any], pace: Mapping[str, float], source: str) -> None:
    content = {**conditions, "pace": dict(pace), "measured_by": source}
    write_text(_path(store, conditions), json.dumps(content, indent=1) + "\n")
