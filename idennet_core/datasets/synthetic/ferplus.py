"""Drawn FER+: FER2013's 48x48 pictures, as a table or as files, and ten people's votes on them.

As in the real set, one name occurs twice and pictures that show no face have none; as files, a later picture of a
name replaces the earlier one, and the second source of votes, which has one row a file, differs on some pictures.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from idennet_core.datasets.synthetic.world import Arguments, in_processes, wild_view
from idennet_core.faces.drawing import draw
from idennet_core.faces.people import CONFUSED_WITH, performed_actions, person_of, resting_actions
from idennet_core.faces.sketching import Picture
from idennet_core.streams import generator

VOTES = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)
FER_CODES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
# Flatter than the real shares, under which small sets would hold next to no disgust, fear or contempt.
SHARES = (0.18, 0.16, 0.14, 0.14, 0.13, 0.10, 0.11, 0.04)
PICTURES = 2  # a person
NO_FACE_SHARE, AMBIGUOUS_SHARE = 0.005, 0.04
NAMESAKES = 1, 3  # of the pictures with a name, the first of these bears the second's
OTHER_VOTES_SHARE = 0.04  # of the pictures on which the two sources of votes differ
FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}


@dataclass(frozen=True)
class _RatedFace:
    """A 48x48 picture, its FER2013 code and its ten FER+ votes."""

    picture: Picture
    code: int
    votes: tuple[int, ...]


def draw_set(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` the two tables; gives the number of pictures."""
    rows = _rows(arguments, processes)
    _write_votes(root, rows)
    with (root / "fer2013.csv").open("w", newline="") as file:
        pixels = csv.writer(file, lineterminator="\n")
        pixels.writerow(("emotion", "pixels", "Usage"))
        for usage, _, face in rows:
            pixels.writerow((face.code, " ".join(map(str, face.picture.ravel().tolist())), usage))
    return len(rows)


def draw_folders(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` the same pictures as files, and both sources of votes; gives the number of rows."""
    rows = _rows(arguments, processes)
    _write_votes(root, rows)
    for usage, folder in FOLDERS.items():
        (root / folder).mkdir()
        labels: dict[str, tuple[int, ...]] = {}
        for row, (row_usage, name, face) in enumerate(rows):
            if row_usage == usage and name:
                (root / folder / name).write_bytes(cv2.imencode(".png", face.picture)[1].tobytes())
                labels.setdefault(name, _other_votes(arguments, row, face.votes))
        with (root / folder / "label.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows((name, "(0, 0, 48, 48)", *votes) for name, votes in labels.items())
    return len(rows)


def _rows(arguments: Arguments, processes: int) -> list[tuple[str, str, _RatedFace]]:
    """Usage, name and face of every picture, in the order of the tables."""
    people = in_processes(partial(_draw_person, arguments), arguments.subjects, processes)
    num_test = arguments.subjects // 10  # whole people, as many as in PublicTest and in PrivateTest
    num_train = arguments.subjects - 2 * num_test
    rows: list[tuple[str, str, _RatedFace]] = []
    named = 0
    for subject, faces in enumerate(people):
        usage = "Training" if subject < num_train else "PublicTest"
        usage = "PrivateTest" if subject >= num_train + num_test else usage
        for face in faces:
            number = NAMESAKES[1] if named == NAMESAKES[0] else named
            is_face = face.votes[-1] < 10
            rows.append((usage, f"fer{number:07d}.png" if is_face else "", face))
            named += is_face
    return rows


def _write_votes(root: Path, rows: Sequence[tuple[str, str, _RatedFace]]) -> None:
    with (root / "fer2013new.csv").open("w", newline="") as file:
        votes = csv.writer(file, lineterminator="\n")
        votes.writerow(("Usage", "Image name", *VOTES))
        votes.writerows((usage, name, *face.votes) for usage, name, face in rows)


def _other_votes(arguments: Arguments, row: int, votes: tuple[int, ...]) -> tuple[int, ...]:
    """The votes in `label.csv`: on some pictures one voter, who chose what most did, chose unknown there."""
    rng = generator("synth", arguments.seed, arguments.name, "label.csv", row)
    moved = list(votes)
    if rng.random() < OTHER_VOTES_SHARE:
        moved[int(np.argmax(votes[:8]))] -= 1
        moved[VOTES.index("unknown")] += 1
    return tuple(moved)


def _draw_person(arguments: Arguments, subject: int) -> list[_RatedFace]:
    names = ("synth", arguments.seed, arguments.name)
    person = person_of(arguments.name, arguments.seed, subject)
    rest = resting_actions(person, arguments.identity_effect)
    faces = []
    for number in range(PICTURES):
        rng = generator(*names, "picture", subject, number)
        expression = str(rng.choice(VOTES[:8], p=SHARES))
        actions = rest + performed_actions(expression, rng, rng)
        # A little looser than an aligned face, which has about 8.1 pixels a unit at this size.
        view = wild_view(rng, 48, 7.8, (24.0, 21.5), turn=7)
        picture, _ = draw(person, actions, view)
        votes = _votes(expression, rng)
        if rng.random() < NO_FACE_SHARE:
            picture, votes = np.full_like(picture, int(rng.integers(256))), (0,) * 9 + (10,)
        voted = VOTES[int(rng.choice(10, p=np.array(votes) / sum(votes)))]
        code = FER_CODES.index(voted) if voted in FER_CODES else FER_CODES.index("neutral")
        faces.append(_RatedFace(picture, code, votes))
    return faces


def _votes(expression: str, rng: np.random.Generator) -> tuple[int, ...]:
    """Ten people's votes over `VOTES` for a picture of `expression`: mostly right, sometimes undecided."""
    shares = np.full(10, 0.02)
    shares[VOTES.index(CONFUSED_WITH[expression])] += 0.40
    shares[VOTES.index("neutral")] += 0.30
    shares[VOTES.index("unknown")] += 0.12
    shares[VOTES.index("NF")] = 0.0
    doubt = rng.uniform(0.7, 0.9) if rng.random() < AMBIGUOUS_SHARE else rng.beta(1.3, 6)
    shares *= doubt / shares.sum()
    shares[VOTES.index(expression)] += 1 - doubt
    return tuple(rng.multinomial(10, shares).tolist())
