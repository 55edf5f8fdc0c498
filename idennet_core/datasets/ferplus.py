"""FER+: the 48x48 face crops of FER2013 with the votes of ten people on eight expressions.

Pictures are rows of `fer2013.csv`, joined with `fer2013new.csv` by row since some names occur twice, or files in a
folder a split, joined with either source of votes by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idennet_core.datasets.ferplus_votes import CLASSES, LABELS, SPLITS, TABLE, Ballot, read_labels, read_table, tally
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import FilesOf, Scan, check_root, first_names, is_drawn, read_picture

NAME = "ferplus"
PIXELS = "fer2013.csv"
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}
SIDE = 48  # pixels
MAX_LINE = 2**16  # bytes; 48 x 48 numbers of three digits are 9 thousand


@dataclass(frozen=True)
class _Form:
    """The pictures of a root in the form in which they lie there."""

    name: str
    pictures: list[Face]
    skipped: list[Skipped]
    files: Iterable[Path] = ()
    read: Callable[[Face], NDArray[np.uint8]] | None = None  # none where the pictures are missing


def scan(root: Path, votes: str | None = None) -> Scan:
    """Find pictures and votes in `root` or directly below and label each picture by majority.

    `votes` names the file that they are taken from: `fer2013new.csv`, the default where it lies there, or
    `label.csv`. Without pictures the scan tells what the labels say. Raises ValueError for other columns, tables
    that do not go together or votes that are not there, FileNotFoundError for a missing file or root,
    NotADirectoryError for a root that is a file.
    """
    check_root(root)
    pixels, table = _find(root, PIXELS), _find(root, TABLE)
    folders = {split: folder for split, name in FOLDERS.items() if (folder := _find(root, name))}
    labels = [folder / LABELS for folder in folders.values() if (folder / LABELS).is_file()]
    held = {TABLE: [table] if table else [], LABELS: labels}
    sources = [source for source, files in held.items() if files]
    if not sources:
        raise FileNotFoundError(
            f"--root {root} is not {NAME}: looked for {PIXELS} with {TABLE}, and FER2013Train with {LABELS}, "
            f"in it and directly below, found {first_names(root)}"
        )
    if votes is not None and votes not in sources:
        raise ValueError(f"--votes must be what --root {root} holds, {' or '.join(sources)}, but got {votes!r}")
    chosen = votes or sources[0]
    ballots: dict[str, list[Ballot]] = {}
    unread: list[Skipped] = []
    for source in sources:
        try:
            ballots[source] = read_table(table, root) if table and source == TABLE else read_labels(folders, root)
        except ValueError as error:
            if source == chosen:
                raise
            unread.append(Skipped(source, str(error)))
    names = _names(folders)
    missing = ""
    if chosen == TABLE and pixels:
        form = _rows_of(root, pixels, ballots[TABLE])
    elif any(names.values()):
        form = _files_of(root, folders, names, ballots[chosen])
    else:
        form = _labels_alone(ballots[chosen])
        missing = f"--root {root} holds labels without pictures: put {PIXELS}, or PNG files in FER2013Train, there"
        if pixels:
            missing = f"{LABELS} is about PNG files, but --root {root} holds none: give --votes {TABLE}"
    return Scan(
        name=NAME,
        classes=CLASSES,
        pictures=form.pictures,
        skipped=form.skipped + unread,
        files=[*held[chosen], *form.files],
        read=form.read or partial(read_picture, root),
        synthetic=is_drawn(held[chosen][0].parent),
        cropped=True,
        protocol={"votes": chosen, "rule": "majority", "pictures": form.name},
        missing=missing,
        label_sources={source: tally(rows) for source, rows in ballots.items()},
    )


def _rows_of(root: Path, pixels: Path, ballots: Sequence[Ballot]) -> _Form:
    """Pictures by row: a name may occur twice, and the numbers in names do not count."""
    usages, offsets = _usages(pixels)
    if len(usages) != len(ballots) or any(
        ballot.split and SPLITS.get(usage, ballot.split) != ballot.split
        for usage, ballot in zip(usages, ballots, strict=True)
    ):
        raise ValueError(
            f"{pixels} ({len(usages)} rows) and {TABLE} ({len(ballots)} rows) do not go together: "
            "their rows must be the same pictures in the same order, with the same Usage"
        )
    place = pixels.relative_to(root).as_posix()
    sources = [f"{place}:{row}" for row in range(2, len(ballots) + 2)]  # file:line
    pictures: list[Face] = []
    skipped: list[Skipped] = []
    for source, usage, ballot in zip(sources, usages, ballots, strict=True):
        reason = ballot.reason
        if not reason and usage not in SPLITS:
            reason = f"a row of {PIXELS} must end with a Usage: {', '.join(SPLITS)}"
        if reason:
            skipped.append(Skipped(source, reason))
        else:
            pictures.append(_face(ballot, source))
    read = partial(_read_row, pixels, dict(zip(sources, offsets, strict=True)))
    return _Form("rows of fer2013.csv", pictures, skipped, [pixels], read)


def _files_of(
    root: Path, folders: Mapping[str, Path], names: Mapping[str, set[str]], ballots: Sequence[Ballot]
) -> _Form:
    """Pictures by name: a folder holds one file of a name, and the name's first row counts."""
    places = {split: folder.relative_to(root).as_posix() for split, folder in folders.items()}
    pictures: list[Face] = []
    skipped = [Skipped(name, "the folder is missing") for split, name in FOLDERS.items() if split not in folders]
    seen: set[tuple[str, str]] = set()
    for ballot in ballots:
        key = ballot.split, ballot.name
        reason = ballot.reason
        if key in seen:
            reason = "the name stands in an earlier row, which counts"
        elif not reason and ballot.name not in names.get(ballot.split, ()):
            reason = "the picture's file is missing"
        if ballot.name:
            seen.add(key)
        if reason:
            skipped.append(Skipped(ballot.row, reason))
        else:
            pictures.append(_face(ballot, f"{places[ballot.split]}/{ballot.name}"))
    for split, held in names.items():
        skipped += [
            Skipped(f"{places[split]}/{name}", "no row of votes names the file")
            for name in sorted(held)
            if (split, name) not in seen
        ]
    return _Form("PNG files", pictures, skipped, FilesOf(root, pictures))


def _labels_alone(ballots: Sequence[Ballot]) -> _Form:
    """What the labels say where there are no pictures."""
    return _Form(
        "missing",
        [_face(ballot, ballot.row) for ballot in ballots if not ballot.reason],
        [Skipped(ballot.row, ballot.reason) for ballot in ballots if ballot.reason],
    )


def _face(ballot: Ballot, source: str) -> Face:
    return Face("", ballot.label, "", Path(ballot.name).stem, ballot.split, source)


def _find(root: Path, name: str) -> Path | None:
    places = sorted(chain(root.glob(name), root.glob(f"*/{name}")))
    found = [place for place in places if place.is_file() or place.is_dir()]  # a pipe could keep us waiting
    if len(found) > 1:
        raise ValueError(f"--root {root} holds {name} {len(found)} times ({found[0]}, {found[1]}): give one")
    return found[0] if found else None


def _names(folders: Mapping[str, Path]) -> dict[str, set[str]]:
    """The names of the files in the folder of each split, but for the labels and hidden ones."""
    return {
        split: {path.name for path in folder.iterdir() if path.name != LABELS and not path.name.startswith(".")}
        for split, folder in folders.items()
    }


def _usages(path: Path) -> tuple[list[str], list[int]]:
    """The Usage of every row of `fer2013.csv`, and where its line starts, in bytes; pixels are not read."""
    usages: list[str] = []
    offsets: list[int] = []
    with path.open("rb") as file:
        header = file.readline(MAX_LINE)
        columns = header[:80].decode("utf-8-sig", errors="replace").strip()
        if columns != "emotion,pixels,Usage":
            raise ValueError(
                f"{path} must have the columns emotion,pixels,Usage, but has {columns}: give the publisher's file"
            )
        position = len(header)
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise ValueError(f"{path}:{len(usages) + 2} must be shorter than {MAX_LINE} bytes, but is not: mend it")
            usages.append(line.rpartition(b",")[2].strip().decode(errors="replace"))
            offsets.append(position)
            position += len(line)
    return usages, offsets


def _read_row(path: Path, offsets: Mapping[str, int], picture: Face) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        file.seek(offsets[picture.source])
        columns = file.readline(MAX_LINE).split(b",")
    try:
        _, values, _ = columns
        pixels = np.frombuffer(bytes(map(int, values.strip(b'"').split())), np.uint8)
    except ValueError as error:
        raise ValueError("a row must have a code, pixels from 0 to 255 and a Usage") from error
    if pixels.size != SIDE * SIDE:
        raise ValueError(f"not a picture of {SIDE}x{SIDE} pixels")
    return pixels.reshape(SIDE, SIDE)
