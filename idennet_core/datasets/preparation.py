"""From pictures to a prepared set: decode, find the five points, align, crop, store."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from idennet_core.config import STORED_SIZE
from idennet_core.datasets import casia_webface, ck_plus, ferplus, mmi, oulu_casia, prepared
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import Scan
from idennet_core.faces.alignment import align, pad_cropped

RECIPE = 1  # raised whenever the same pictures and settings would give other faces
BLOCK = 512  # pictures in flight

SCANS: dict[str, Callable[[Path], Scan]] = {
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
    files = [(path.name, stat.st_size, stat.st_mtime_ns) for path in scan.files for stat in (path.stat(),)]
    content = [
        RECIPE,
        settings,
        scan.synthetic,
        list(map(repr, scan.pictures)),
        list(map(repr, scan.skipped)),
        files,
    ]
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


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
    listed as skipped. Raises ValueError when no picture can.
    """
    settings = {**scan.protocol, **settings}
    mark = fingerprint(scan, settings)
    if directory.exists():
        existing = prepared.read_metadata(directory)
        if existing["fingerprint"] == mark:
            return Preparation(existing, fresh=False)
    directory.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(directory.parent, os.W_OK):  # found now rather than after all the work
        raise PermissionError(f"the store must be writable, but {directory.parent} is not: give another --store")

    faces = np.empty((len(scan.pictures), STORED_SIZE, STORED_SIZE), np.uint8)
    rows: list[Face] = []
    skipped = list(scan.skipped)
    distances: list[NDArray[np.float64]] = []  # [5] a face, in pixels of the picture
    for done, (picture, result) in enumerate(_faces(scan, locate), start=1):
        if isinstance(result, str):
            skipped.append(Skipped(picture.source, result))
        else:
            face, points = result
            faces[len(rows)] = face
            rows.append(picture)
            if points is not None and truth and picture.source in truth:
                distances.append(np.linalg.norm(points - truth[picture.source], axis=1))
        if progress:
            progress(done, len(scan.pictures))
    if not rows:
        first = skipped[0] if skipped else Skipped("the data set", "holds no picture")
        raise ValueError(
            f"none of the {len(scan.pictures)} pictures of {scan.name} could be prepared, none is stored; "
            f"the first, {first.source}: {first.reason}"
        )
    prepared.save(
        directory, scan.name, scan.classes, scan.synthetic, faces[: len(rows)], rows, skipped, settings, mark,
        point_error(distances),
    )  # fmt: skip
    return Preparation(prepared.read_metadata(directory), fresh=True)


def point_error(distances: list[NDArray[np.float64]]) -> dict[str, float] | None:
    """Mean and 95th percentile of the distances from found to true points, in pixels; None without any."""
    if not distances:
        return None
    pixels = np.concatenate(distances)
    return {"mean": float(pixels.mean()), "p95": float(np.percentile(pixels, 95)), "faces": len(distances)}


Result = tuple[NDArray[np.uint8], NDArray[np.float64] | None] | str


def _faces(scan: Scan, locate: Locate | None) -> Iterator[tuple[Face, Result]]:
    def work(picture: Face) -> Result:
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

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one picture a core beats all cores on one picture
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(scan.pictures), BLOCK):
                block = scan.pictures[start : start + BLOCK]
                yield from zip(block, pool.map(work, block), strict=True)
    finally:
        cv2.setNumThreads(threads)
