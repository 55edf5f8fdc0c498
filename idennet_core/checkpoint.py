"""Tensors with a few words of metadata, in one safetensors file that is whole or not there."""

import uuid
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write beside `path`, then move there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, beside, dict(metadata))
    beside.replace(path)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The tensors and the metadata; None where there is no file, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
