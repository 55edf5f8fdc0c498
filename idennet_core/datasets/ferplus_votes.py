"""The votes of ten people on the expression in each picture of FER2013, from either of the two tables.

`fer2013new.csv` has a row for every row of `fer2013.csv`; `label.csv`, without a header, one for every PNG file of
its folder. The two differ in the votes on some pictures, so it matters which of them was read.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from idennet_core.datasets.pictures import MAX_BYTES

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTED = (*CLASSES, "unknown", "NF")  # NF: not a face
SPLITS = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
COLUMNS = ("Usage", "Image name", *VOTED)
TABLE, LABELS = "fer2013new.csv", "label.csv"


@dataclass(frozen=True)
class Ballot:
    """A row of votes and the class that it elects, or the reason why it elects none."""

    row: str  # file:line
    split: str
    name: str  # of the picture's file
    label: str
    reason: str  # '' where there is a label


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


def read_table(path: Path, root: Path) -> list[Ballot]:
    """The rows of `fer2013new.csv`, one for every row of `fer2013.csv`; a faulty one elects nothing.

    Raises ValueError for other columns or what is no CSV.
    """
    lines = _lines(path)
    header = next(lines, [])
    if header != list(COLUMNS):
        raise ValueError(
            f"{path} must have the columns {','.join(COLUMNS)}, but has {','.join(header)[:200]}: "
            "give the publisher's file"
        )
    place = path.relative_to(root).as_posix()
    return [
        _ballot(f"{place}:{number}", SPLITS.get(row[0], ""), row[1], row[2:])
        if len(row) == len(COLUMNS)
        else Ballot(f"{place}:{number}", "", "", "", f"a row must have {len(COLUMNS)} columns")
        for number, row in enumerate(lines, start=2)
    ]


def read_labels(folders: Mapping[str, Path], root: Path) -> list[Ballot]:
    """The rows of the `label.csv` files of a split's folder each; a faulty one elects nothing.

    Raises ValueError for what is no CSV.
    """
    ballots = []
    for split, folder in folders.items():
        path = folder / LABELS
        place = path.relative_to(root).as_posix()
        if not path.is_file():
            ballots.append(Ballot(place, split, "", "", "the file is missing"))
            continue
        for number, row in enumerate(_lines(path), start=1):
            name, _, *votes = row if len(row) == len(COLUMNS) else ("", "")  # _: the face's box, the whole picture
            ballots.append(
                _ballot(f"{place}:{number}", split, name, votes)
                if votes
                else Ballot(f"{place}:{number}", split, "", "", f"a row must have {len(COLUMNS)} columns")
            )
    return ballots


def tally(ballots: Iterable[Ballot]) -> dict[str, int]:
    """How many rows elect a class, by split."""
    counts = dict.fromkeys(SPLITS.values(), 0)
    for ballot in ballots:
        if ballot.label:
            counts[ballot.split] += 1
    return counts


def _ballot(row: str, split: str, name: str, votes: Sequence[str]) -> Ballot:
    if not split:
        return Ballot(row, "", name, "", f"Usage must be one of {', '.join(SPLITS)}")
    if not name:
        return Ballot(row, split, "", "", "the picture has no name")
    if not all(vote.isdecimal() and len(vote) < 4 for vote in votes):
        return Ballot(row, split, name, "", "a vote must be a whole number")
    return Ballot(row, split, name, *majority([int(vote) for vote in votes]))


def _lines(path: Path) -> Iterator[list[str]]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} must have at most {MAX_BYTES >> 20} MiB, but has more: it is no table of votes")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            yield from csv.reader(file)
        except csv.Error as error:
            raise ValueError(f"{path} must be CSV, but cannot be read: {error}") from error
