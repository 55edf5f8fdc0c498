"""From pictures to a prepared set: decode, find the five points, align, crop, store.

A block of pictures at a time is worked on, over all cores, and stored; a preparation that was killed goes on
from there, and gives the same bytes as one that was not.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from idennet_core.datasets import casia_webface, ck_plus, ferplus, mmi, oulu_casia, prepared
from idennet_core.datasets.clips import file_of
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import Scan
from idennet_core.datasets.unfinished import Outcome, Unfinished
from idennet_core.datasets.workers import Workers
from idennet_core.faces.alignment import align, pad_cropped

RECIPE = 1  # raised whenever the same pictures and settings would give other faces
BLOCK = 512  # pictures in flight, and the most that a killed preparation does again
TOGETHER = 16  # pictures that a process is given at a time

SCANS: dict[str, Callable[..., Scan]] = {
    oulu_casia.NAME: oulu_casia.scan,
    ck_plus.NAME: ck_plus.scan,
    mmi.NAME: mmi.scan,
    ferplus.NAME: ferplus.scan,
    casia_webface.NAME: casia_webface.scan,
}

# Five points [5, 2] of a picture, or the reason why there are none.
Locate = Callable[[Face, NDArray[np.uint8]], NDArray[np.float64] | str]


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did: the set's metadata, and whether it was made now or already there."""

    metadata: dict[str, Any]
    fresh: bool


def from_landmarks(landmarks: Mapping[str, NDArray[np.float64]]) -> Locate:
    """Take the five points of a picture from a table keyed by the picture's source."""
    return lambda picture, image: landmarks.get(picture.source, "no row in the landmarks file")


def fingerprint(scan: Scan, settings: Mapping[str, Any]) -> str:
    """A hash of all that decides a prepared set; files' sizes and times stand for their pixels."""
    digest = hashlib.blake2b(json.dumps([RECIPE, settings, scan.synthetic], sort_keys=True).encode(), digest_size=16)
    for entry in chain(map(repr, scan.pictures), map(repr, scan.skipped), map(_stamp, scan.files)):
        digest.update(f"{entry}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:  # its picture will be skipped with a reason
        return f"{path.name} {error.strerror}"
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def prepare(
    scan: Scan,
    directory: Path,
    locate: Locate | None,
    settings: Mapping[str, Any],
    truth: Mapping[str, NDArray[np.float64]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Preparation:
    """Prepare the scanned pictures into `directory`, unless the set there has the same files and settings.

    `locate` finds the five points; None takes the pictures as already cropped faces. `settings` says how, for
    the record: it must change whenever `locate` does. `truth` holds true points by source, to measure
    `locate` against. `progress(done, total)` is called from this thread. Each picture that cannot be used is
    listed as skipped. Raises ValueError when no picture can, and where the pictures are missing.
    """
    if scan.missing:
        raise ValueError(scan.missing)
    settings = {**scan.protocol, **settings}
    mark = fingerprint(scan, settings)
    if directory.exists():
        existing = prepared.read_metadata(directory)
        if existing["fingerprint"] == mark:
            return Preparation(existing, fresh=False)
    directory.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(directory.parent, os.W_OK):  # found now rather than after all the work
        raise PermissionError(f"the store must be writable, but {directory.parent} is not: give another --store")

    pictures = sorted(scan.pictures, key=prepared.place_in_order)
    with _explained(directory), Unfinished(directory, mark) as unfinished:
        with Workers(lambda number: _face(scan, locate, pictures[number])) as workers:
            for start in range(unfinished.done, len(pictures), BLOCK):
                block = pictures[start : start + BLOCK]
                faces: list[NDArray[np.uint8]] = []
                outcomes: list[Outcome] = []
                results = workers.map(_groups(pictures, range(start, start + len(block))))
                for done, (picture, result) in enumerate(zip(block, results, strict=True), start=start + 1):
                    if isinstance(result, str):
                        outcomes.append(result)
                    else:
                        face, points = result
                        faces.append(face)
                        outcomes.append(_distances(points, truth.get(picture.source) if truth else None))
                    if progress:
                        progress(done, len(pictures))
                unfinished.append(faces, outcomes)
        return _finish(unfinished, scan, directory, pictures, settings, mark)


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Say of a write that failed, as on a full disk, where that was and what to do; the system says neither."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        kept = f"{error.strerror}; what is done is kept: make room there and prepare again, it goes on"
        raise OSError(error.errno, kept, str(directory)) from error


def _finish(
    unfinished: Unfinished, scan: Scan, directory: Path, pictures: list[Face], settings: Mapping[str, Any], mark: str
) -> Preparation:
    rows: list[Face] = []
    skipped = list(scan.skipped)
    distances: list[list[float]] = []  # [5] a face, in pixels of the picture
    for picture, outcome in zip(pictures, unfinished.outcomes(), strict=True):
        if isinstance(outcome, str):
            skipped.append(Skipped(picture.source, outcome))
            continue
        rows.append(picture)
        if outcome:
            distances.append(outcome)
    if not rows:
        unfinished.discard()
        first = skipped[0] if skipped else Skipped("the data set", "holds no picture")
        raise ValueError(
            f"none of the {len(pictures)} pictures of {scan.name} could be prepared, none is stored; "
            f"the first, {first.source}: {first.reason}"
        )
    prepared.finish(
        unfinished, directory, scan.name, scan.classes, scan.synthetic, rows, skipped, settings, mark,
        point_error(distances),
    )  # fmt: skip
    return Preparation(prepared.read_metadata(directory), fresh=True)


def point_error(distances: list[list[float]]) -> dict[str, float] | None:
    """Mean and 95th percentile of the distances from found to true points, in pixels; None without any."""
    if not distances:
        return None
    pixels = np.array(distances)
    return {"mean": float(pixels.mean()), "p95": float(np.percentile(pixels, 95)), "faces": len(distances)}


def _groups(pictures: Sequence[Face], numbers: range) -> list[list[int]]:
    """Pictures to be read by one process: some at a time, and those of one video together, since it is decoded once."""
    found: list[list[int]] = []
    for _, of_file in groupby(numbers, lambda number: file_of(pictures[number].source)[0]):
        together = list(of_file)
        if found and len(found[-1]) + len(together) <= TOGETHER:
            found[-1] += together
        else:
            found.append(together)
    return found


def _distances(found: NDArray[np.float64] | None, true: NDArray[np.float64] | None) -> list[float] | None:
    if found is None or true is None:
        return None
    distances: list[float] = np.linalg.norm(found - true, axis=1).tolist()
    return distances


def _face(
    scan: Scan, locate: Locate | None, picture: Face
) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None] | str:
    """The stored face of a picture and its five points, or the reason why there is none."""
    if not _is_text(picture.source):
        return "its name is not UTF-8, as tables of results must be: rename it"
    try:
        image = scan.read(picture)
        if locate is None:
            return pad_cropped(image), None
        points = locate(picture, image)
        return points if isinstance(points, str) else (align(image, points), points)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    except cv2.error as error:
        return f"OpenCV cannot process it: {error.err}"


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8, which the bytes of a file's name need not be."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
