"""What killed writers left: files and folders beside the place that they were to be moved to."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ABANDONED = 24 * 3600.0  # seconds since its last change after which what is half-written is nobody's; one takes seconds


def half_written(root: Path, age: float = ABANDONED) -> Iterator[Path]:
    """What was begun below this folder, and for so many seconds nobody went on with."""
    for path in sorted(root.rglob(".*.tmp")):
        if path.parent.suffix != ".tmp" and time.time() - changed(path) > age:
            yield path


def sweep(root: Path) -> None:
    """Remove it, as far as this process may."""
    for path in half_written(root):
        with suppress(OSError):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def changed(path: Path) -> float:
    """When the file, or the last of those in a folder, was changed, in seconds since 1970; now where it is gone."""
    try:
        times = [path.lstat().st_mtime, *(changed(inner) for inner in path.iterdir())] if path.is_dir() else []
        return max(times, default=path.lstat().st_mtime)
    except FileNotFoundError:
        return time.time()
