"""Drawn CK+: as many people, labels and sequences a fold as in the real set, each rising from rest to the peak."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import cv2

from idennet_core.datasets.synthetic.world import (
    Arguments,
    Studio,
    in_processes,
    landmark_row,
    performance,
    write_landmarks,
)
from idennet_core.faces.drawing import draw
from idennet_core.faces.sketching import Picture
from idennet_core.streams import generator

CODES = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
PEOPLE, LABELLED_PEOPLE, UNLABELLED = 123, 118, 266  # the last: sequences
LABELLED = {"fear": 25, "anger": 45, "contempt": 18, "disgust": 59, "happiness": 69, "sadness": 28, "surprise": 83}
FOLDS = (33, 39, 40, 35, 30, 37, 29, 29, 33, 22)  # labelled sequences; the last fold has no fear
IMAGES, LABELS = Path("extended-cohn-kanade-images/cohn-kanade-images"), Path("Emotion_labels/Emotion")
LAST_NUMBER = 999  # of a subject


def draw_set(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` the folders of pictures and of labels; gives the number of pictures."""
    names = subject_names(arguments)
    rows = in_processes(partial(_draw_subject, arguments, root, names), arguments.subjects, processes)
    return write_landmarks(root, chain.from_iterable(rows))


def subject_names(arguments: Arguments) -> list[str]:
    """The sparse, rising names of the subjects. Raises ValueError for more people than there are names."""
    room = LAST_NUMBER - 4  # the real numbers start at 5
    if arguments.subjects > room:
        raise ValueError(f"{arguments.name} has names for {room} people, but got {arguments.subjects}: ask for fewer")
    rng = generator("synth", arguments.seed, arguments.name, "ids")
    return [f"S{5 + number:03d}" for number in sorted(rng.choice(room, arguments.subjects, replace=False).tolist())]


def labels_of(subject: int) -> list[str]:
    """The expressions of a person's labelled sequences, none for five of the 123; more people begin again."""
    place = subject % PEOPLE
    before = (place + 3) // 24  # people without a label among those before: 20, 44, 68, 92, 116
    return [] if place % 24 == 20 else list(_labels()[place - before])


def _labels() -> list[list[str]]:
    """What each of the 118 labelled people shows, nothing twice; person i is tested in fold i % 10."""
    folds: list[list[str]] = [[] for _ in FOLDS]
    for number in range(LABELLED["fear"]):
        folds[number % (len(FOLDS) - 1)].append("fear")
    # Every other expression is spread over the folds as evenly as their sizes allow.
    free = [(fold, size - len(folds[fold])) for fold, size in enumerate(FOLDS)]
    slots = sorted(((place + 0.5) / room, fold) for fold, room in free for place in range(room))
    others = [label for label, number in LABELLED.items() if label != "fear" for _ in range(number)]
    for (_, fold), label in zip(slots, others, strict=True):
        folds[fold].append(label)
    people: list[list[str]] = [[] for _ in range(LABELLED_PEOPLE)]
    for fold, labels in enumerate(folds):
        members = people[fold :: len(FOLDS)]
        for place, label in enumerate(labels):  # a fold has fewer of a label than people: nobody gets it twice
            members[place % len(members)].append(label)
    return people


def _draw_subject(arguments: Arguments, root: Path, names: Sequence[str], subject: int) -> list[list[object]]:
    """One subject's sequences, labelled and not, in mixed order."""
    rng = generator("synth", arguments.seed, arguments.name, "subject files", subject)
    labelled = labels_of(subject)
    unlabelled = (subject + 1) * UNLABELLED // PEOPLE - subject * UNLABELLED // PEOPLE
    shown = labelled + [label for label in CODES[1:] if label not in labelled][:unlabelled]
    colour, height = bool(rng.random() < 0.3), int(rng.choice([490, 480]))
    rows = []
    for number, place in enumerate(rng.permutation(len(shown)), start=1):
        expression, has_label = shown[place], place < len(labelled)
        studio = Studio((640, height), (46, 51), (320, 205), frames=(5, 9) if has_label else (4, 6), grain=0)
        sequence = f"{names[subject]}/{number:03d}"
        (root / IMAGES / sequence).mkdir(parents=True)
        (root / LABELS / sequence).mkdir(parents=True)
        frame, clock = 0, int(rng.integers(30 * 3600)) if rng.random() < 0.5 else None
        for seen in performance(arguments, subject, expression, studio):
            frame += 1 + int(rng.random() < 0.1)  # numbers have gaps
            picture, points = draw(*seen)
            if clock is not None:
                _stamp(picture, clock + frame)
            source = IMAGES / sequence / f"{sequence.replace('/', '_')}_{frame:08d}.png"
            _write_png(root / source, picture, colour)
            rows.append(landmark_row(source, points))
        if has_label:
            label = root / LABELS / sequence / f"{sequence.replace('/', '_')}_{frame:08d}_emotion.txt"
            label.write_text(f"   {CODES.index(expression):.7e}\n")
        elif rng.random() < 0.25:
            (root / LABELS / sequence / ".DS_Store").write_bytes(b"")
    return rows


def _stamp(picture: Picture, ticks: int) -> None:
    """Burn a time stamp (hours, minutes, seconds, frames) into a corner, in place."""
    seconds = ticks // 30
    time = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{ticks % 30:02d}"
    cv2.putText(picture, time, (440, picture.shape[0] - 14), cv2.FONT_HERSHEY_PLAIN, 1.6, 255, 2, cv2.LINE_AA)


def _write_png(path: Path, picture: Picture, colour: bool) -> None:
    """Write a grey picture as it is, or warmly tinted with three channels."""
    pixels: cv2.typing.MatLike = picture
    if colour:
        pixels = cv2.merge([cv2.convertScaleAbs(picture, alpha=0.9), picture, cv2.convertScaleAbs(picture, alpha=1.05)])
    written, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])  # packed loosely, but fast
    assert written
    path.write_bytes(encoded.tobytes())
