"""Tensors with a few words of metadata, in one sealed safetensors file that is whole or not there.

A checkpoint is kept two deep, as `<name>.<number>.safetensors`, the number growing: the one before the last is there
for the case that the last is damaged.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save_file
from torch import Tensor, UntypedStorage

from idennet_core import sealing


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write beside `path`, to the disk, then move there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        save_file(on_host(tensors), beside, {**metadata, sealing.SEAL: sealing.EMPTY})
        sealing.seal(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in this machine's memory; those that share a storage of a device come in one copy of it."""
    copies: dict[int, UntypedStorage] = {}
    found = {}
    for name, value in tensors.items():
        if not value.is_cpu:
            storage: UntypedStorage = value.untyped_storage()
            if storage.data_ptr() not in copies:
                copies[storage.data_ptr()] = storage.cpu()  # type: ignore[no-untyped-call]
            view = torch.empty(0, dtype=value.dtype)
            value = view.set_(copies[storage.data_ptr()], value.storage_offset(), value.shape, value.stride())
        found[name] = value.detach().contiguous()
    return found


def load(path: Path, unsealed: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata; see `sealing.read`.

    Raises FileNotFoundError, or `sealing.Damaged` where a byte is not as written.
    """
    content, metadata = sealing.read(path, unsealed)
    try:
        return tensors_of(content), metadata
    except SafetensorError as error:
        raise sealing.Damaged(f"{path} is damaged: {error}") from None


def kept(folder: Path, name: str) -> list[Path]:
    """The checkpoints of this name, the furthest first."""
    found = [path for path in folder.glob(f"{name}.*.safetensors") if path.name.split(".")[1].isdecimal()]
    return sorted(found, key=_number, reverse=True)


def outdated(last: Path) -> list[Path]:
    """The checkpoints of the name of the one just saved that have no use any more: those before the one before it.

    One that is further is another process's, which trains the same.
    """
    earlier = [path for path in kept(last.parent, last.name.split(".")[0]) if _number(path) < _number(last)]
    return earlier[1:]


def _number(path: Path) -> int:
    return int(path.name.split(".")[1])
