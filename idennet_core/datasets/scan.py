"""What a look at a data set's folders finds, before any picture is decoded."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idennet_core.datasets.folds import NUM_FOLDS, fold_of
from idennet_core.datasets.pictures import decode, read_file
from idennet_core.datasets.prepared import Face, Skipped, by_reason
from idennet_core.faces.detection import WHOLE, Look

DRAWN_MARK = "SYNTHETIC.json"  # lies in the root of a data set that idenctl drew
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png")
SEARCH_DEPTH = 6  # how far below the root a layout is looked for
log = logging.getLogger("idenctl")

Skip = Callable[[Path, str], None]  # tells of a place that is not used, and why


def upright(picture: Face, image: NDArray[np.uint8]) -> Sequence[Look]:
    """The looks of a picture that is simply upright."""
    return WHOLE


@dataclass(frozen=True)
class Scan:
    """The pictures of a data set, and what was skipped."""

    name: str
    classes: tuple[str, ...]
    pictures: list[Face]
    skipped: list[Skipped]
    files: Iterable[Path]  # what the pictures are read from: a change to one of them is a change of the data
    read: Callable[[Face], NDArray[np.uint8]]  # decodes to BGR [height, width, 3] or grey [height, width]
    synthetic: bool
    cropped: bool = False  # the pictures are faces cut out by the publisher
    protocol: Mapping[str, str] = field(default_factory=dict)  # which part of the data set this is
    looks: Callable[[Face, NDArray[np.uint8]], Sequence[Look]] = upright  # how the face may lie in a decoded picture
    warnings: Sequence[str] = ()  # what is unusual about the set as a whole
    missing: str = ""  # why no picture can be read where there are labels alone
    label_sources: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # usable pictures by source and split


def require_pictures(scan: Scan, root: Path) -> Scan:
    """The scan itself. Raises ValueError when nothing in it is usable, with the first reason."""
    if not scan.pictures:
        first = scan.skipped[0] if scan.skipped else Skipped(str(root), "no sequence in it")
        raise ValueError(
            f"--root {root} holds nothing usable of {scan.name}: {len(scan.skipped)} skipped, "
            f"the first, {first.source}: {first.reason}"
        )
    return scan


@dataclass(frozen=True)
class FilesOf:
    """The files of pictures that each are one: made as they are asked for, since half a million take room."""

    root: Path
    pictures: list[Face]

    def __iter__(self) -> Iterator[Path]:
        """The files, in the order of the pictures."""
        return (self.root / picture.source for picture in self.pictures)


def read_picture(root: Path, picture: Face) -> NDArray[np.uint8]:
    """Decode a file to BGR [height, width, 3]. Raises OSError or ValueError for one that cannot be read."""
    return decode(read_file(root / picture.source))


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of a picture: a known suffix, not hidden."""
    return is_picture_name(path.name)


def is_picture_name(name: str) -> bool:
    """Whether a name is that of a picture: a known suffix, not hidden."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def listing(folder: Path, skip: Skip) -> list[Path] | None:
    """What lies in a folder, in natural order; None where it cannot be read, which is told."""
    try:
        return sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError as error:
        skip(folder, f"cannot be read: {error.strerror}")
        return None


def is_folder(path: Path) -> bool:
    """Whether there is a folder; no where nobody may look, of which `Path.is_dir` makes an error."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether there is a file; no where nobody may look, of which `Path.is_file` makes an error."""
    return os.path.isfile(path)  # noqa: PTH113


def last_frames(folder: Path, count: int, skip: Skip) -> list[Path]:
    """The last `count` pictures of a sequence's folder, in natural order; none where there are fewer, which is told."""
    held = listing(folder, skip)
    if held is None:
        return []
    frames: dict[str, Path] = {}
    for path in held:
        if not is_picture(path):
            skip(path, "not a picture (.jpeg, .jpg or .png)")
        elif path.stem.lower() in frames:
            skip(path, f"the same frame as {frames[path.stem.lower()].name}, which counts")
        else:
            frames[path.stem.lower()] = path
    if len(frames) < count:
        skip(folder, f"{len(frames)} frames, the last {count} are needed")
        return []
    return list(frames.values())[-count:]


def is_drawn(place: Path) -> bool:
    """Whether a folder belongs to a data set that was drawn: the mark lies in it or above it."""
    return any((folder / DRAWN_MARK).is_file() for folder in (place.resolve(), *place.resolve().parents))


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts `9.png` before `10.png`."""
    parts = re.split(r"([0-9]+)", name)  # every second one is a number; a "²" beside it is none
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]


def check_root(root: Path) -> None:
    """Raise FileNotFoundError, NotADirectoryError or ValueError unless `root` holds something."""
    if not root.exists():
        raise FileNotFoundError(f"--root {root} does not exist: give the folder that holds the data set")
    if not root.is_dir():
        raise NotADirectoryError(f"--root {root} is a file: give the folder that holds the data set")
    if not any(root.iterdir()):
        raise ValueError(f"--root {root} is empty: give the folder that holds the data set")


def levels_below(root: Path, depth: int = SEARCH_DEPTH) -> Iterable[list[Path]]:
    """The root, then the folders directly in it, and so on down: sorted, hidden ones left out."""
    level = [root]
    for _ in range(depth + 1):
        yield level
        level = [child for folder in level for child in subfolders(folder)]


def nearest(root: Path, fits: Callable[[Path], bool], what: str) -> Path | None:
    """The folder nearest to the root that fits, None without one. Raises ValueError for several equally near."""
    for level in levels_below(root):
        found = [folder for folder in level if fits(folder)]
        if len(found) > 1:
            raise ValueError(
                f"--root {root} holds {what} {len(found)} times ({found[0]}, {found[1]}): give one of them"
            )
        if found:
            return found[0]
    return None


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted, hidden ones left out; none, with a warning, where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry) for entry in entries if not entry.name.startswith(".") and _leads_on(entry))
    except OSError as error:
        _warn_of(folder, str(error.strerror))
        return []


def _leads_on(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@cache  # once a folder, however often it is looked at
def _warn_of(folder: Path, reason: str) -> None:
    log.warning(f"{folder} cannot be read ({reason}): passed over")


def first_names(folder: Path, limit: int = 5) -> str:
    """What a folder holds, for a message: its first few names."""
    names = sorted(child.name for child in folder.iterdir())
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def describe(scan: Scan) -> dict[str, Any]:
    """Counts of a scan: subjects, sequences and frames, by class, split and fold too, and what was skipped.

    Folds are given where there are classes and enough subjects to cross-validate over.
    """
    subjects = sorted({picture.subject for picture in scan.pictures} - {""})
    folds = fold_of(subjects) if scan.classes and len(subjects) >= NUM_FOLDS else {}
    in_fold: dict[int, list[Face]] = defaultdict(list)
    for picture in scan.pictures:
        if picture.subject in folds:
            in_fold[folds[picture.subject]].append(picture)
    frames = Counter(picture.label for picture in scan.pictures)
    splits = Counter(picture.split for picture in scan.pictures)
    return {
        "dataset": scan.name,
        "synthetic": scan.synthetic,
        "protocol": dict(scan.protocol),
        "missing": scan.missing,
        "subjects": len(subjects),
        "sequences": _num_sequences(scan.pictures),
        "frames": len(scan.pictures),
        "classes": {label: frames[label] for label in scan.classes},
        "splits": {split: number for split, number in splits.items() if split},
        "label_sources": {source: dict(counts) for source, counts in scan.label_sources.items()},
        "folds": [
            {
                "fold": fold,
                "subjects": len({picture.subject for picture in pictures}),
                "sequences": _num_sequences(pictures),
                "frames": len(pictures),
            }
            for fold, pictures in sorted(in_fold.items())
        ],
        "skipped": by_reason(scan.skipped),
        "warnings": list(scan.warnings),
    }


def _num_sequences(pictures: list[Face]) -> int:
    return len({picture.sequence for picture in pictures} - {""})
