"""Tensors with a few words of metadata, in one safetensors file that is whole or not there."""

import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, UntypedStorage


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write beside `path`, then move there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    save_file(on_host(tensors), beside, dict(metadata))
    beside.replace(path)


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


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The tensors and the metadata; None where there is no file, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
