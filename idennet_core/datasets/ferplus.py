"""FER+: the 48x48 face crops of FER2013 with the votes of ten people on eight expressions.

Pixels come from `fer2013.csv`, votes from `fer2013new.csv`; they are joined by row: some names occur twice.
"""

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import Scan, check_root, first_names, is_drawn

NAME = "ferplus"
CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTED = (*CLASSES, "unknown", "NF")  # NF: not a face
SPLITS = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
PIXELS, VOTES = "fer2013.csv", "fer2013new.csv"
SIDE = 48  # pixels


def scan(root: Path) -> Scan:
    """Find `fer2013.csv` and `fer2013new.csv` in `root` or directly below and label each row by majority.

    Raises ValueError for other columns or tables that do not go together, FileNotFoundError for a missing
    file or root, NotADirectoryError for a root that is a file.
    """
    check_root(root)
    pixels, votes = _find(root, PIXELS), _find(root, VOTES)
    ballots = read_votes(votes)
    usages, offsets = _rows(pixels)
    if usages != [usage for usage, _, _ in ballots]:
        raise ValueError(
            f"{pixels} ({len(usages)} rows) and {votes} ({len(ballots)} rows) do not go together: "
            "their rows must be the same pictures in the same order, with the same Usage"
        )
    pictures: list[Face] = []
    skipped: list[Skipped] = []
    sources = [f"{pixels.relative_to(root).as_posix()}:{row + 2}" for row in range(len(ballots))]  # file:line
    for source, (usage, name, counts) in zip(sources, ballots, strict=True):
        label, reason = majority(counts)
        if not name:
            skipped.append(Skipped(source, "the picture has no name"))
        elif reason:
            skipped.append(Skipped(source, reason))
        else:
            pictures.append(Face("", label, "", Path(name).stem, SPLITS[usage], source))
    return Scan(
        name=NAME,
        classes=CLASSES,
        pictures=pictures,
        skipped=skipped,
        files=[pixels, votes],
        read=partial(_read_row, pixels, dict(zip(sources, offsets, strict=True))),
        synthetic=is_drawn(pixels.parent),
        cropped=True,
        protocol={"votes": VOTES, "rule": "majority"},
    )


def majority(counts: Sequence[int]) -> tuple[str, str]:
    """The class that ten voters chose, or '' and the reason why there is none: (label, reason).

    The rule of the data set's authors: single votes do not count, and the highest must hold more than half
    of the votes left over all ten columns (`VOTED`).
    """
    kept = [count if count > 1 else 0 for count in counts]
    highest = max(kept)
    if highest <= sum(kept) / 2:
        return "", "no majority among the votes"
    winner = VOTED[kept.index(highest)]
    if winner == "unknown":
        return "", "voted unknown"
    if winner == "NF":
        return "", "voted not a face"
    return winner, ""


def read_votes(path: Path) -> list[tuple[str, str, list[int]]]:
    """The rows of `fer2013new.csv`: usage, picture name and ten votes in the order of `VOTED`.

    Raises ValueError for other columns or a row that is not a ballot.
    """
    columns = ["Usage", "Image name", *VOTED]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header != columns:
            raise ValueError(f"{path} must have the columns {','.join(columns)}, but has {','.join(header)}")
        ballots = []
        for row in reader:
            try:
                usage, name, *counts = row
                if usage not in SPLITS or len(counts) != len(VOTED):
                    raise ValueError
                ballots.append((usage, name, [int(count) for count in counts]))
            except ValueError as error:
                raise ValueError(
                    f"{path}:{reader.line_num} must be a Usage ({', '.join(SPLITS)}), a name and "
                    f"{len(VOTED)} votes, but is {','.join(row)}"
                ) from error
    return ballots


def _find(root: Path, name: str) -> Path:
    found = sorted([*root.glob(name), *root.glob(f"*/{name}")])
    if not found:
        raise FileNotFoundError(
            f"--root {root} is not {NAME}: looked for {name} in it and directly below, found {first_names(root)}"
        )
    if len(found) > 1:
        raise ValueError(f"--root {root} holds {name} {len(found)} times ({found[0]}, {found[1]}): give one")
    return found[0]


def _rows(path: Path) -> tuple[list[str], list[int]]:
    """The Usage of every row of `fer2013.csv`, and where its line starts, in bytes; pixels are not read."""
    usages, offsets = [], []
    with path.open("rb") as file:
        header = file.readline()
        columns = header[:80].decode(errors="replace").strip()
        if columns != "emotion,pixels,Usage":
            raise ValueError(f"{path} must have the columns emotion,pixels,Usage, but has {columns}")
        position = len(header)
        for line in file:
            usages.append(line.rpartition(b",")[2].strip().decode(errors="replace"))
            offsets.append(position)
            position += len(line)
    return usages, offsets


def _read_row(path: Path, offsets: dict[str, int], picture: Face) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        file.seek(offsets[picture.source])
        _, values, _ = file.readline().split(b",")
    pixels = np.array(values.strip(b'"').split(), dtype=np.uint8)
    if pixels.size != SIDE * SIDE:
        raise ValueError(f"not a picture of {SIDE}x{SIDE} pixels")
    return pixels.reshape(SIDE, SIDE)
