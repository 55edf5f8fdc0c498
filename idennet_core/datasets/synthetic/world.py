"""What all drawn data sets share: their arguments, files, views, and the work spread over processes."""

import csv
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from idennet_core.faces.alignment import TEMPLATE_112, similarity
from idennet_core.faces.sketching import Floats, Picture, View

_Result = TypeVar("_Result")

LANDMARKS = "landmarks.csv"
LANDMARK_COLUMNS = ("source", "rex", "rey", "lex", "ley", "nx", "ny", "rmx", "rmy", "lmx", "lmy")


@dataclass(frozen=True)
class Arguments:
    """All that decides a drawn data set's bytes."""

    name: str
    subjects: int
    identity_effect: float
    seed: int
    form: str = ""  # '' for the usual one


def in_processes(work: Callable[[int], _Result], subjects: int, processes: int) -> list[_Result]:
    """`work(subject)` for every subject, in order."""
    if processes == 1 or subjects < 2 * processes:
        return [work(subject) for subject in range(subjects)]
    context = multiprocessing.get_context("spawn")  # a fork would copy the caller's threads and locks
    with ProcessPoolExecutor(processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(pool.map(work, range(subjects), chunksize=max(1, subjects // (8 * processes))))


def write_jpeg(path: Path, picture: Picture) -> None:
    """Write a picture as JPEG, whatever the suffix."""
    path.write_bytes(jpeg(picture))  # cv2.imwrite knows no .jpeg of its own and hides a full disk


def jpeg(picture: Picture) -> bytes:
    """A picture as JPEG."""
    written, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 93])
    assert written
    return encoded.tobytes()


def cut_out(picture: Picture, points: Floats) -> Picture:
    """The face [112, 112] as publishers align it, its true points on the template."""
    matrix = similarity(points, TEMPLATE_112)
    return np.asarray(cv2.warpAffine(picture, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def write_landmarks(root: Path, rows: Iterable[Sequence[object]]) -> int:
    """Write the true points of a set's pictures; gives the number of rows."""
    with (root / LANDMARKS).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LANDMARK_COLUMNS)
        written = 0
        for row in rows:
            writer.writerow(row)
            written += 1
    return written


def landmark_row(source: Path, points: Floats) -> list[object]:
    """A picture's row of `landmarks.csv`: its path below the root and its five points [5, 2] in pixels."""
    return [source.as_posix(), *(f"{value:.3f}" for value in points.ravel())]


def rising(num_frames: int) -> Floats:
    """The strength of each frame of a sequence, 0 to 1: a smooth onset, then at least 0.9 in the last three frames."""
    onset = np.minimum(np.arange(num_frames) / (num_frames - 3), 1.0)
    strengths: Floats = 0.9 * onset**2 * (3 - 2 * onset) + 0.1 * np.linspace(0, 1, num_frames)
    return strengths


def wild_view(rng: np.random.Generator, size: int, unit: float, centre: tuple[float, float], turn: float) -> View:
    """A view as from the open web: any light and background, turned by about `turn` degrees."""
    spread = 0.03 * size
    return View(
        size=(size, size),
        unit=unit * float(rng.uniform(0.9, 1.1)),
        centre=(centre[0] + float(rng.normal(0, spread)), centre[1] + float(rng.normal(0, spread))),
        roll=float(rng.normal(0, 4)),
        yaw=float(np.clip(rng.normal(0, turn), -25, 25)),
        pitch=float(np.clip(rng.normal(0, turn / 2), -12, 12)),
        light=(float(rng.normal(0, 0.22)), float(rng.normal(-0.28, 0.10))),
        gain=float(rng.uniform(0.8, 1.15)),
        background=float(rng.uniform(30, 225)),
        clothes=float(rng.uniform(20, 200)),
        grain=float(rng.uniform(1.5, 5)),
        noise=int(rng.integers(1 << 30)),
    )
