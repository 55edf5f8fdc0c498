"""JSON that the store keeps, read as what somebody may have damaged or written to mislead."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.names import visible

MAX_BYTES = 256 * 2**20  # of a file; the plan of a study of a hundred thousand cells is a fifth of it


def read(path: Path, kinds: Mapping[str, type | tuple[type, ...]], step: str) -> dict[str, Any]:
    """The mapping in a JSON file, which has these keys with values of these types; control characters written out.

    Raises ValueError, naming the file and the next step, for what is damaged or missing.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {step}") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not JSON: {reason}; {step}") from None
    require(isinstance(found, dict), path, "the whole", step)
    for key, kind in kinds.items():
        require(key in found and isinstance(found[key], kind), path, key, step)
    return {visible(key): _visible(value) for key, value in found.items()}


def require(holds: bool, path: Path, what: str, step: str) -> None:
    """Raise ValueError, naming the file and the next step, unless `what` in it is as it must be."""
    if not holds:
        raise ValueError(f"{path} is damaged: {what} is missing or of another type; {step}")


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_visible(item) for item in value]
    return {visible(key): _visible(item) for key, item in value.items()} if isinstance(value, dict) else value
