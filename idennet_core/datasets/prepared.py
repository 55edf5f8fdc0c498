"""Prepared sets: aligned faces and their index in a folder that is either whole or not there.

A set is `faces.npy` (uint8 [N, 80, 80], memory-mapped), `faces.csv` (a row a face, in the same order) and
`metadata.json`. It is identified by its content, so that results name the very faces they were measured on.
Half a million faces are written, read and hashed piece by piece.
"""

import csv
import hashlib
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count
from operator import attrgetter
from pathlib import Path
from sys import intern
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idennet_core.config import STORED_SIZE
from idennet_core.datasets import twins
from idennet_core.datasets.unfinished import FACES, Unfinished

FORMAT = 1
METADATA = "metadata.json"
INDEX = "faces.csv"


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _is_skipped(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("reason"), str) and _texts(entry.get("sources"))


# What an entry of `metadata.json` must be.
FACTS: Mapping[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is int,
    "name": lambda value: isinstance(value, str),
    "data_id": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None,
    "synthetic": lambda value: isinstance(value, bool),
    "classes": _texts,
    "num_faces": lambda value: type(value) is int and value > 0,
    "subjects": _texts,
    "settings": lambda value: isinstance(value, dict),
    "fingerprint": lambda value: isinstance(value, str),
    "point_error": lambda value: value is None or (isinstance(value, dict) and {"mean", "p95", "faces"} <= set(value)),
    "skipped": lambda value: isinstance(value, list) and all(map(_is_skipped, value)),
}


@dataclass(frozen=True, slots=True)
class Face:
    """A picture of a face: a row of a scan and of a prepared set's index; '' where there is no such thing."""

    subject: str
    label: str  # a class name
    sequence: str  # unique over all subjects
    frame: str
    split: str  # train, valid or test where the data set's publisher says so
    source: str  # where the picture lies below the root it was scanned from


@dataclass(frozen=True)
class Skipped:
    """A picture, or a place where pictures should be, that is not used, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class FaceSet:
    """A prepared set: N faces in the order of (subject, sequence, frame)."""

    name: str
    data_id: str  # 32 hexadecimal digits
    synthetic: bool
    classes: tuple[str, ...]
    faces: NDArray[np.uint8]  # [N, 80, 80], grey, memory-mapped
    subject: NDArray[np.str_]  # [N], like the other columns
    label: NDArray[np.str_]
    sequence: NDArray[np.str_]
    frame: NDArray[np.str_]
    split: NDArray[np.str_]
    source: NDArray[np.str_]
    metadata: Mapping[str, Any]


COLUMNS = tuple(field.name for field in fields(Face))
values_of = attrgetter(*COLUMNS)


def place_in_order(row: Face) -> tuple[str, str, str]:
    """Sort key: faces lie in the order of subject, sequence and frame."""
    return row.subject, row.sequence, row.frame


def data_id(classes: Sequence[str], rows: Sequence[Face], pixels: Iterable[bytes]) -> str:
    """128-bit BLAKE2b of the classes, the index and the pixels, as 32 hexadecimal digits.

    Sources do not count: the same faces in another folder are the same data.
    """
    digest = hashlib.blake2b(digest_size=16)
    shape = (len(rows), STORED_SIZE, STORED_SIZE)
    digest.update(json.dumps([list(classes), shape])[:-1].encode())  # one JSON list, the index being its third entry
    for i, row in enumerate(rows):
        digest.update((", " if i else ", [").encode() + json.dumps(values_of(row)[: COLUMNS.index("source")]).encode())
    digest.update(b"]]")
    for block in pixels:
        digest.update(block)
    return digest.hexdigest()


def by_reason(skipped: Sequence[Skipped]) -> list[dict[str, Any]]:
    """What was skipped, one entry a reason, commonest first: `reason`, `count` and all `sources`."""
    sources: dict[str, list[str]] = defaultdict(list)
    for entry in skipped:
        sources[entry.reason].append(entry.source)
    return [
        {"reason": reason, "count": len(held), "sources": held}
        for reason, held in sorted(sources.items(), key=lambda item: -len(item[1]))
    ]


def save(
    directory: Path,
    name: str,
    classes: Sequence[str],
    synthetic: bool,
    faces: NDArray[np.uint8],
    rows: Sequence[Face],
    skipped: Sequence[Skipped],
    settings: Mapping[str, Any],
) -> str:
    """Write faces that are in memory, uint8 [N, 80, 80] in the order of `rows`, as a prepared set; see `finish`.

    Raises ValueError for faces of another shape too.
    """
    if faces.shape != (len(rows), STORED_SIZE, STORED_SIZE) or faces.dtype != np.uint8:
        raise ValueError(
            f"{len(rows)} rows need uint8 faces of shape {(len(rows), STORED_SIZE, STORED_SIZE)}, "
            f"but got {faces.dtype} {faces.shape}"
        )
    order = sorted(range(len(rows)), key=lambda i: place_in_order(rows[i]))
    with Unfinished(directory, uuid.uuid4().hex) as unfinished:
        unfinished.append(faces[order], [None] * len(rows))
        return finish(
            unfinished, directory, name, classes, synthetic, [rows[i] for i in order], skipped, settings, "", None
        )


def finish(
    unfinished: Unfinished,
    directory: Path,
    name: str,
    classes: Sequence[str],
    synthetic: bool,
    rows: Sequence[Face],
    skipped: Sequence[Skipped],
    settings: Mapping[str, Any],
    fingerprint: str,
    point_error: Mapping[str, float] | None,
) -> str:
    """Make of the faces of `unfinished`, which are those of `rows`, the prepared set `directory`; gives its data id.

    A set with the same data id keeps its faces and gets the new metadata; a different one is kept beside, as
    `<directory>.<first 8 digits of its data id>`. Raises ValueError for no faces or a `directory` that holds
    something else.
    """
    if not rows:
        unfinished.discard()
        raise ValueError(f"a prepared set needs at least one face, but {name} has none: see what was skipped")
    old_id = read_metadata(directory)["data_id"] if directory.exists() else None
    digests = bytearray()
    metadata = {
        "format": FORMAT,
        "name": name,
        "data_id": data_id(classes, rows, twins.watched(unfinished.blocks(), digests)),
        "synthetic": synthetic,
        "classes": list(classes),
        "num_faces": len(rows),
        "subjects": sorted({row.subject for row in rows} - {""}),
        "settings": dict(settings),
        "fingerprint": fingerprint,
        "point_error": point_error,
        "skipped": by_reason(skipped),
        "twins": _twins(rows, digests),
    }
    if old_id == metadata["data_id"]:
        beside = directory / f".{METADATA}.{uuid.uuid4().hex[:8]}"
        try:
            _write_json(beside, metadata)
            beside.replace(directory / METADATA)
        finally:
            beside.unlink(missing_ok=True)
        unfinished.discard()
        return str(old_id)
    unfinished.seal()
    with (unfinished.place / INDEX).open("w", newline="", encoding="utf-8") as file:
        # all in quotes: a name may hold a carriage return, which csv leaves bare before Python 3.13
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        writer.writerows(map(values_of, rows))
    _write_json(unfinished.place / METADATA, metadata)
    if old_id is not None:
        directory.rename(_place_beside(directory, old_id))
    unfinished.move_to(directory)
    return str(metadata["data_id"])


def read_metadata(directory: Path) -> dict[str, Any]:
    """The metadata of a prepared set, without reading a face.

    Keys: format, name, data_id, synthetic, classes, num_faces, subjects, settings, fingerprint, point_error,
    skipped (entries of reason, count, sources) and, in newer sets, twins. Raises FileNotFoundError where
    there is no prepared set, ValueError for a damaged one or one of another format.
    """
    path = directory / METADATA
    if not directory.is_dir():
        raise FileNotFoundError(f"no prepared set in {directory}: run `idenctl data prepare` first")
    if not path.is_file():
        raise ValueError(f"{directory} is not a prepared set (no {METADATA}): move it away and prepare again")
    try:
        metadata: Any = json.loads(path.read_text(encoding="utf-8"))
        written = metadata["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        metadata, written = {}, FORMAT
    if type(written) is int and written != FORMAT:
        raise ValueError(f"{directory} has format {written}, this version reads {FORMAT}: upgrade idenctl")
    if wrong := [key for key, fits in FACTS.items() if key not in metadata or not fits(metadata[key])]:
        raise ValueError(
            f"{path} is damaged or not idenctl's ({', '.join(wrong)} missing or wrong): "
            f"move {directory} away and prepare again"
        )
    return metadata  # type: ignore[no-any-return]


def load(directory: Path) -> FaceSet:
    """A prepared set with its faces memory-mapped, read-only.

    Raises FileNotFoundError where there is none, ValueError for a damaged one.
    """
    metadata = read_metadata(directory)
    try:
        faces: NDArray[np.uint8] = np.load(directory / FACES, mmap_mode="r")
        columns = _read_index(directory / INDEX)
        num_faces = metadata["num_faces"]
        if len(columns["source"]) != num_faces:
            raise ValueError(f"{INDEX} has {len(columns['source'])} rows, {METADATA} counts {num_faces} faces")
        wanted = num_faces, STORED_SIZE, STORED_SIZE
        if not isinstance(faces, np.ndarray) or faces.dtype != np.uint8 or faces.shape != wanted:
            raise ValueError(f"{FACES} holds no uint8 faces of shape {wanted}")
        if strange := set(columns["label"].tolist()) - set(metadata["classes"] or [""]):
            raise ValueError(f"{INDEX} has the label {min(strange)!r}, none of the set's classes")
    except (OSError, EOFError, ValueError, TokenError, csv.Error) as error:  # TokenError: a header that never ends
        raise ValueError(f"{directory} is damaged ({error}): move it away and prepare again") from error
    return FaceSet(
        name=metadata["name"],
        data_id=metadata["data_id"],
        synthetic=metadata["synthetic"],
        classes=tuple(metadata["classes"]),
        faces=faces,
        metadata=metadata,
        **columns,
    )


def splits(directory: Path) -> list[str]:
    """The split of each face of a prepared set, without reading a face. Raises ValueError for a damaged index."""
    try:
        found: list[str] = _read_index(directory / INDEX)["split"].tolist()
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{directory} is damaged ({error}): move it away and prepare again") from error
    return found


def _read_index(path: Path) -> dict[str, NDArray[np.str_]]:
    """The columns of an index: read row by row into lists, in which a value that repeats is held once."""
    values: list[list[str]] = [[] for _ in COLUMNS]
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != COLUMNS:
            raise ValueError(f"{path.name} must have the columns {','.join(COLUMNS)}")
        for row in reader:
            for column, value in zip(values, row, strict=True):
                column.append(intern(value))
    return {name: np.array(column, np.str_) for name, column in zip(COLUMNS, values, strict=True)}


def _twins(rows: Sequence[Face], digests: bytearray) -> dict[str, Any] | None:
    """Faces that are one of another person or another split: `count`, and the `sources` of the first two.

    What is learnt by heart from the one counts as recognised in the other.
    """
    pairs = [(rows[a], rows[b]) for a, b in twins.alike(digests)]
    apart = [(a.source, b.source) for a, b in pairs if (a.subject, a.split) != (b.subject, b.split)]
    return {"count": len(apart), "sources": list(apart[0])} if apart else None


def _place_beside(directory: Path, old_id: str) -> Path:
    names = (f"{directory.name}.{old_id[:8]}" + (f".{n}" if n else "") for n in count())
    return next(place for place in map(directory.with_name, names) if not place.exists())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
