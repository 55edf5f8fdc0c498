"""What all drawn data sets share: their arguments, files, views, and the work spread over processes."""

import csv
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from idennet_core.faces.alignment import TEMPLATE_112, similarity
from idennet_core.faces.people import Person, performed_actions, person_of, resting_actions
from idennet_core.faces.sketching import Floats, Picture, View
from idennet_core.streams import generator

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


def arching(num_frames: int) -> Floats:
    """The strength of each frame of a sequence that returns to rest: above 0.9 in the middle three frames alone."""
    up = rising(num_frames // 2 + 2)
    strengths: Floats = np.concatenate([up, up[: num_frames - len(up)][::-1]])
    return strengths


@dataclass(frozen=True)
class Studio:
    """How the people of a set of sequences are filmed; lengths in pixels of the picture."""

    size: tuple[int, int]  # width, height
    unit: tuple[float, float]  # from the smallest to the largest face
    centre: tuple[float, float]  # of the point midway between the eyes
    frames: tuple[int, int]  # fewest, and one more than most
    grain: float
    course: Callable[[int], Floats] = rising  # the strength of each of so many frames


def performance(
    arguments: Arguments, subject: int, expression: str, studio: Studio, take: int = 0
) -> Iterator[tuple[Person, Floats, View]]:
    """One sequence, frame by frame, as `draw` takes it: the person, the facial actions and the view."""
    names = ("synth", arguments.seed, arguments.name)
    person = person_of(arguments.name, arguments.seed, subject)
    looks = generator(*names, "looks", subject)
    style = generator(*names, "style", subject, expression)
    rng = generator(*names, "sequence", subject, expression, *([take] if take else []))
    rest = resting_actions(person, arguments.identity_effect)
    peak = performed_actions(expression, style, rng)
    shake = studio.size[0] / 320
    view = View(
        size=studio.size,
        unit=float(looks.uniform(*studio.unit)),
        centre=(
            float(studio.centre[0] + rng.normal(0, 6 * shake)),
            float(studio.centre[1] + rng.normal(0, 3 * shake)),
        ),
        roll=float(rng.normal(0, 2.5)),
        yaw=float(rng.normal(0, 4)),
        pitch=float(rng.normal(0, 3)),
        light=(float(rng.normal(-0.15, 0.10)), float(rng.normal(-0.30, 0.06))),
        gain=float(rng.normal(1, 0.04)),
        background=float(looks.uniform(95, 125)),
        clothes=float(looks.uniform(25, 190)),
        grain=studio.grain,
    )
    for level in studio.course(int(rng.integers(*studio.frames))):
        actions = rest + level * peak + rng.normal(0, 0.02, peak.shape)
        x, y = view.centre
        moved = replace(
            view,
            centre=(x + float(rng.normal(0, 0.5 * shake)), y + float(rng.normal(0, 0.5 * shake))),
            roll=view.roll + float(rng.normal(0, 0.3)),
            noise=int(rng.integers(1 << 30)),
        )
        yield person, actions, moved


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
