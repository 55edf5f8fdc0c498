"""The state of IDEnNet's packs in the store, written after an epoch and read to go on from there."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idennet_core import sealing
from orchestrator.store import Store
from orchestrator.trial import Pack
from orchestrator.workload import SetBack

if TYPE_CHECKING:
    from torch import Tensor

    from idennet_core.training import Member


def resume(store: Store, pack: Pack, members: "Sequence[Member]") -> list[list[dict[str, Any]]]:
    """Bring each member to the pack's first epoch; gives the curves so far. Raises `SetBack` where it cannot."""
    curves: list[list[dict[str, Any]]] = [[] for _ in members]
    if pack.first_epoch == 0:
        return curves
    where = store.checkpointed(pack.rungs)
    if any(where.get(trial.trial_id, (0,))[0] != pack.first_epoch for trial in pack.trials):
        raise SetBack("another process has gone on with its trials")
    loaded = {path: _load(store, path) for path in {where[trial.trial_id][1] for trial in pack.trials}}
    for place, (trial, member) in enumerate(zip(pack.trials, members, strict=True)):
        tensors, metadata = loaded[where[trial.trial_id][1]]
        prefix = f"{trial.trial_id}/"
        curves[place] = json.loads(metadata["curves"])[trial.trial_id]
        member.failure = json.loads(metadata["failures"]).get(trial.trial_id)
        if member.failure is not None:
            member.release()
        elif trial.trial_id not in json.loads(metadata.get("left", "[]")):  # it leaves again, at the same rung
            member.load_state({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return curves


def _load(store: Store, path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """The checkpoint in a file. Raises `SetBack` where it is gone or damaged; a damaged one is removed."""
    from idennet_core import checkpoint

    try:
        return checkpoint.load(store.fetch("checkpoints", path.name))
    except FileNotFoundError:
        raise SetBack(f"{path} is gone") from None
    except sealing.Damaged as damage:
        store.drop(path)
        raise SetBack(f"{damage}, removed") from None


def write(
    store: Store, pack: Pack, members: "Sequence[Member]", curves: Sequence[list[dict[str, Any]]], epoch: int
) -> None:
    """Store all that later epochs depend on; `epoch` is the one to go on with."""
    from idennet_core import checkpoint

    ids = [trial.trial_id for trial in pack.trials]
    tensors = {
        f"{name}/{key}": value
        for name, member in zip(ids, members, strict=True)
        if member.active
        for key, value in member.state().items()
    }
    metadata = {
        "epoch": str(epoch),
        "written": f"{time.time():.3f}",
        "trials": json.dumps(ids),
        "curves": json.dumps(dict(zip(ids, curves, strict=True))),
        "failures": json.dumps({n: m.failure for n, m in zip(ids, members, strict=True) if m.failure}),
        "left": json.dumps([n for n, m in zip(ids, members, strict=True) if m.left]),
        "rungs": pack.rungs.rungs_id if pack.rungs else "",
    }
    path = store.checkpoints / f"pack-{pack.pack_id}.{epoch}.safetensors"
    checkpoint.save(path, tensors, metadata)
    store.keep(path, later=True)
    for old in checkpoint.outdated(path):
        store.drop(old, later=True)
