"""Drawn stand-ins for the licensed data sets, in their real directory layouts.

A person's traits come from one named stream and stay for all of his or her pictures; streams are keyed by the data
set, so no person is in two of them. `identity_effect` is the dial of the drawn world: at 0 a person's traits say
nothing about the facial actions; at R a resting face, a linear function of visible traits times R, is added to
every performance.
"""

import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from idennet_core.faces.drawing import draw
from idennet_core.faces.people import CONFUSED_WITH, EXPRESSIONS, performed_actions, person_of, resting_actions
from idennet_core.faces.sketching import Floats, Picture, View
from idennet_core.streams import generator

_Result = TypeVar("_Result")

DEFAULT_SUBJECTS = {"oulu-casia": 80, "ferplus": 1250, "casia-webface": 100}
DRAWING = 1  # raised when the same arguments draw other bytes
MARK = "SYNTHETIC.json"
LANDMARKS = "landmarks.csv"
LANDMARK_COLUMNS = ("source", "rex", "rey", "lex", "ley", "nx", "ny", "rmx", "rmy", "lmx", "lmy")
OULU_EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
FERPLUS_VOTES = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)
FER_CODES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
# Flatter than the real shares, under which small sets would hold next to no disgust, fear or contempt.
FERPLUS_SHARES = (0.18, 0.16, 0.14, 0.14, 0.13, 0.10, 0.11, 0.04)
FERPLUS_PICTURES, CASIA_PICTURES = 2, 25  # a person
NO_FACE_SHARE, AMBIGUOUS_SHARE = 0.005, 0.04


@dataclass(frozen=True)
class Arguments:
    """All that decides a drawn data set's bytes."""

    name: str
    subjects: int
    identity_effect: float
    seed: int


@dataclass(frozen=True)
class Summary:
    """What `synthesise` left in a folder; `reused` when the same arguments had been drawn there before."""

    name: str
    root: Path
    subjects: int
    pictures: int
    reused: bool


def synthesise(
    name: str,
    out: Path,
    subjects: int | None = None,
    identity_effect: float = 1.0,
    seed: int = 0,
    processes: int | None = None,
) -> Summary:
    """Draw a data set in its real layout: equal arguments give equal bytes, whatever the number of processes.

    `subjects` is the number of people (for casia-webface, of identities); None takes `DEFAULT_SUBJECTS`. The folder
    is made beside `out` and put in its place when complete; one that was drawn before is replaced, and left as it is
    when the arguments are the same. Raises ValueError for an unknown name, subjects < 1, a negative or infinite
    identity effect, a negative seed, or an `out` that holds something else; NotADirectoryError when `out` is a file.
    """
    if name not in DEFAULT_SUBJECTS:
        raise ValueError(
            f"the data set must be one of {', '.join(DEFAULT_SUBJECTS)}, but got {name!r}: choose one of them"
        )
    arguments = Arguments(name, DEFAULT_SUBJECTS[name] if subjects is None else subjects, float(identity_effect), seed)
    _check(arguments, processes)
    out = Path(out)
    found = _drawn_before(out)
    if found is not None and found["drawing"] == DRAWING and found["arguments"] == asdict(arguments):
        return Summary(name, out, arguments.subjects, found["pictures"], reused=True)

    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.drawing-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        pictures = _POPULATIONS[name](arguments, fresh, processes or os.cpu_count() or 1)
        mark = {
            "synthetic": True,
            "drawn_by": "idenctl",
            "note": "Every face here is drawn; none is a photograph of a person.",
            "drawing": DRAWING,
            "arguments": asdict(arguments),
            "pictures": pictures,
        }
        (fresh / MARK).write_text(json.dumps(mark, indent=2) + "\n")
        if found is not None:
            old = out.with_name(f".{out.name}.replaced-{os.getpid()}")
            out.replace(old)
            fresh.replace(out)
            shutil.rmtree(old)
        else:
            fresh.replace(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Summary(name, out, arguments.subjects, pictures, reused=False)


def _check(arguments: Arguments, processes: int | None) -> None:
    if arguments.subjects < 1:
        raise ValueError(f"subjects must be at least 1, but got {arguments.subjects}: ask for one person or more")
    if not 0 <= arguments.identity_effect < np.inf:
        raise ValueError(
            f"identity effect must be a finite number of at least 0, but got {arguments.identity_effect:g}: "
            "0 leaves the facial actions untouched, 1 is the usual effect"
        )
    if arguments.seed < 0:
        raise ValueError(f"seed must be at least 0, but got {arguments.seed}: choose a whole number from 0")
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1, but got {processes}: leave it out to use all cores")


def _drawn_before(out: Path) -> dict[str, Any] | None:
    """The mark of a folder drawn by idenctl, None when there is nothing there yet."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise NotADirectoryError(f"the output must be a directory, but {out} is a file: choose another directory")
    held = sorted(path.name for path in out.iterdir())
    if not held:
        return None
    try:
        mark: dict[str, Any] = json.loads((out / MARK).read_text())
        if mark["drawn_by"] == "idenctl" and {"drawing", "arguments", "pictures"} <= mark.keys():
            return mark
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(
        f"the output must be new, empty or drawn by idenctl, but {out} holds {held[0]!r} and no valid {MARK}: "
        "choose another directory"
    )


def _in_processes(work: Callable[[int], _Result], subjects: int, processes: int) -> list[_Result]:
    """`work(subject)` for every subject, in order."""
    if processes == 1 or subjects < 2 * processes:
        return [work(subject) for subject in range(subjects)]
    context = multiprocessing.get_context("spawn")  # a fork would copy the caller's threads and locks
    with ProcessPoolExecutor(processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(pool.map(work, range(subjects), chunksize=max(1, subjects // (8 * processes))))


def _write_jpeg(path: Path, picture: Picture) -> None:
    written, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 93])
    assert written
    path.write_bytes(encoded.tobytes())  # cv2.imwrite knows no .jpeg of its own and hides a full disk


def _write_landmarks(root: Path, rows: Iterable[Sequence[object]]) -> int:
    with (root / LANDMARKS).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LANDMARK_COLUMNS)
        written = 0
        for row in rows:
            writer.writerow(row)
            written += 1
    return written


def _landmark_row(source: Path, points: Floats) -> list[object]:
    return [source.as_posix(), *(f"{value:.3f}" for value in points.ravel())]


def _draw_oulu(arguments: Arguments, root: Path, processes: int) -> int:
    rows = _in_processes(partial(_draw_oulu_subject, arguments, root), arguments.subjects, processes)
    return _write_landmarks(root, chain.from_iterable(rows))


def _draw_oulu_subject(arguments: Arguments, root: Path, subject: int) -> list[list[object]]:
    """One subject's six sequences; each rises from the resting face to the peak in its last three frames."""
    rows = []
    for expression in OULU_EXPRESSIONS:
        folder = Path("OriginalImg/VL/Strong") / f"P{subject + 1:03d}" / expression.capitalize()
        (root / folder).mkdir(parents=True)
        for frame, (picture, points) in enumerate(oulu_sequence(arguments, subject, expression)):
            source = folder / f"{frame:03d}.jpeg"
            _write_jpeg(root / source, picture)
            rows.append(_landmark_row(source, points))
    return rows


def oulu_sequence(arguments: Arguments, subject: int, expression: str) -> Iterator[tuple[Picture, Floats]]:
    """The pictures (uint8 [240, 320]) and true points of one sequence, first to last."""
    names = ("synth", arguments.seed, arguments.name)
    person = person_of(arguments.name, arguments.seed, subject)
    looks = generator(*names, "looks", subject)
    style = generator(*names, "style", subject, expression)
    rng = generator(*names, "sequence", subject, expression)
    rest = resting_actions(person, arguments.identity_effect)
    peak = performed_actions(expression, style, rng)
    view = View(
        size=(320, 240),
        unit=float(looks.uniform(21.5, 24.0)),
        centre=(float(160 + rng.normal(0, 6)), float(106 + rng.normal(0, 3))),
        roll=float(rng.normal(0, 2.5)),
        yaw=float(rng.normal(0, 4)),
        pitch=float(rng.normal(0, 3)),
        light=(float(rng.normal(-0.15, 0.10)), float(rng.normal(-0.30, 0.06))),
        gain=float(rng.normal(1, 0.04)),
        background=float(looks.uniform(95, 125)),
        clothes=float(looks.uniform(25, 190)),
        grain=2.5,
    )
    for level in rising(int(rng.integers(7, 12))):
        actions = rest + level * peak + rng.normal(0, 0.02, peak.shape)
        moved = replace(
            view,
            centre=(view.centre[0] + float(rng.normal(0, 0.5)), view.centre[1] + float(rng.normal(0, 0.5))),
            roll=view.roll + float(rng.normal(0, 0.3)),
            noise=int(rng.integers(1 << 30)),
        )
        yield draw(person, actions, moved)


def rising(num_frames: int) -> Floats:
    """The strength of each frame of a sequence, 0 to 1: a smooth onset, then at least 0.9 in the last three frames."""
    onset = np.minimum(np.arange(num_frames) / (num_frames - 3), 1.0)
    strengths: Floats = 0.9 * onset**2 * (3 - 2 * onset) + 0.1 * np.linspace(0, 1, num_frames)
    return strengths


def _wild_view(rng: np.random.Generator, size: int, unit: float, centre: tuple[float, float], turn: float) -> View:
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


def _draw_casia(arguments: Arguments, root: Path, processes: int) -> int:
    gaps = generator("synth", arguments.seed, arguments.name, "ids").integers(1, 90, arguments.subjects)
    identities = 45 + np.cumsum(gaps) - gaps[0]  # the real ids start at 45 and have gaps
    work = partial(_draw_casia_identity, arguments, root, identities.tolist())
    return _write_landmarks(root, chain.from_iterable(_in_processes(work, arguments.subjects, processes)))


def _draw_casia_identity(
    arguments: Arguments, root: Path, identities: Sequence[int], subject: int
) -> list[list[object]]:
    names = ("synth", arguments.seed, arguments.name)
    person = person_of(arguments.name, arguments.seed, subject)
    rest = resting_actions(person, arguments.identity_effect)
    folder = Path(f"{identities[subject]:07d}")
    (root / folder).mkdir()
    rows = []
    for number in range(1, CASIA_PICTURES + 1):
        rng = generator(*names, "picture", subject, number)
        expression = str(rng.choice(list(EXPRESSIONS)))
        actions = rest + float(rng.uniform(0, 1)) * performed_actions(expression, rng, rng)
        view = _wild_view(rng, 250, 22.5, (125.0, 110.0), turn=9)
        picture, points = draw(person, actions, view)
        source = folder / f"{number:03d}.jpg"
        _write_jpeg(root / source, picture)
        rows.append(_landmark_row(source, points))
    return rows


@dataclass(frozen=True)
class _RatedFace:
    """A 48x48 picture, its FER2013 code and its ten FER+ votes."""

    picture: Picture
    code: int
    votes: tuple[int, ...]


def _draw_ferplus(arguments: Arguments, root: Path, processes: int) -> int:
    people = _in_processes(partial(_draw_ferplus_person, arguments), arguments.subjects, processes)
    num_test = arguments.subjects // 10  # whole people, as many as in PublicTest and in PrivateTest
    num_train = arguments.subjects - 2 * num_test
    named = 0
    with (
        (root / "fer2013.csv").open("w", newline="") as pixels_file,
        (root / "fer2013new.csv").open("w", newline="") as votes_file,
    ):
        pixels, votes = (
            csv.writer(pixels_file, lineterminator="\n"),
            csv.writer(votes_file, lineterminator="\n"),
        )
        pixels.writerow(("emotion", "pixels", "Usage"))
        votes.writerow(("Usage", "Image name", *FERPLUS_VOTES))
        for subject, faces in enumerate(people):
            usage = "Training" if subject < num_train else "PublicTest"
            usage = "PrivateTest" if subject >= num_train + num_test else usage
            for face in faces:
                pixels.writerow((face.code, " ".join(map(str, face.picture.ravel().tolist())), usage))
                is_face = face.votes[-1] < 10
                votes.writerow((usage, f"fer{named:07d}.png" if is_face else "", *face.votes))
                named += is_face
    return sum(map(len, people))


def _draw_ferplus_person(arguments: Arguments, subject: int) -> list[_RatedFace]:
    names = ("synth", arguments.seed, arguments.name)
    person = person_of(arguments.name, arguments.seed, subject)
    rest = resting_actions(person, arguments.identity_effect)
    faces = []
    for number in range(FERPLUS_PICTURES):
        rng = generator(*names, "picture", subject, number)
        expression = str(rng.choice(FERPLUS_VOTES[:8], p=FERPLUS_SHARES))
        actions = rest + performed_actions(expression, rng, rng)
        # A little looser than an aligned face, which has about 8.1 pixels a unit at this size.
        view = _wild_view(rng, 48, 7.8, (24.0, 21.5), turn=7)
        picture, _ = draw(person, actions, view)
        votes = _votes(expression, rng)
        if rng.random() < NO_FACE_SHARE:
            picture, votes = np.full_like(picture, int(rng.integers(256))), (0,) * 9 + (10,)
        voted = FERPLUS_VOTES[int(rng.choice(10, p=np.array(votes) / sum(votes)))]
        code = FER_CODES.index(voted) if voted in FER_CODES else FER_CODES.index("neutral")
        faces.append(_RatedFace(picture, code, votes))
    return faces


def _votes(expression: str, rng: np.random.Generator) -> tuple[int, ...]:
    """Ten people's votes over `FERPLUS_VOTES` for a picture of `expression`: mostly right, sometimes undecided."""
    shares = np.full(10, 0.02)
    shares[FERPLUS_VOTES.index(CONFUSED_WITH[expression])] += 0.40
    shares[FERPLUS_VOTES.index("neutral")] += 0.30
    shares[FERPLUS_VOTES.index("unknown")] += 0.12
    shares[FERPLUS_VOTES.index("NF")] = 0.0
    doubt = rng.uniform(0.7, 0.9) if rng.random() < AMBIGUOUS_SHARE else rng.beta(1.3, 6)
    shares *= doubt / shares.sum()
    shares[FERPLUS_VOTES.index(expression)] += 1 - doubt
    return tuple(rng.multinomial(10, shares).tolist())


_POPULATIONS: dict[str, Callable[[Arguments, Path, int], int]] = {
    "oulu-casia": _draw_oulu,
    "ferplus": _draw_ferplus,
    "casia-webface": _draw_casia,
}


def contact_sheet(name: str, file: Path, subjects: int = 6, identity_effect: float = 1.0, seed: int = 0) -> None:
    """Write a picture of a data set's first people, each at rest and at the peak of the six expressions.

    The picture says that the faces are synthetic. Raises ValueError as `synthesise` does, OSError where it cannot be
    written.
    """
    arguments = Arguments(name, subjects, float(identity_effect), seed)
    _check(arguments, None)
    rows = []
    for subject in range(subjects):
        sequences = [list(oulu_sequence(arguments, subject, expression)) for expression in OULU_EXPRESSIONS]
        pictures = [sequences[0][0][0], *(sequence[-1][0] for sequence in sequences)]
        rows.append(np.hstack([picture[:, 60:260] for picture in pictures]))
    sheet = np.vstack([np.full((56, rows[0].shape[1]), 255, np.uint8), *rows])
    title = f"synthetic faces, drawn by idenctl: {name}, seed {seed}, identity effect {identity_effect:g}"
    cv2.putText(sheet, title, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1, cv2.LINE_AA)
    for column, label in enumerate(("at rest", *OULU_EXPRESSIONS)):
        cv2.putText(sheet, label, (200 * column + 8, 48), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0, 1, cv2.LINE_AA)
    _, encoded = cv2.imencode(".png", sheet)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(encoded.tobytes())
    beside.replace(file)
