"""Drawn MMI: sessions filmed lying on their side, upright or from two sides at once, and sessions of stills."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from idennet_core.datasets.synthetic.world import (
    Arguments,
    Studio,
    arching,
    in_processes,
    landmark_row,
    performance,
    write_jpeg,
    write_landmarks,
)
from idennet_core.faces.detection import Look
from idennet_core.faces.drawing import draw
from idennet_core.faces.sketching import Floats, Picture
from idennet_core.streams import generator

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
PEOPLE = 30
SECOND_TAKES = 25  # people with one expression twice: 30 x 6 + 25 = 205 clips, as many as the paper uses
TRAPS = ("emotion 7", "no emotion", "profile", "one picture")  # a clip a person that cannot be used
PROFILE = 45.0  # degrees; a face drawn further round falls apart


def _studio(size: tuple[int, int], unit: tuple[float, float], centre: tuple[float, float]) -> Studio:
    return Studio(size, unit, centre, frames=(6, 10), grain=1.5, course=arching)


STUDIOS = {
    "sideways": _studio((576, 720), (54, 60), (288, 310)),
    "side by side": _studio((360, 576), (37, 41), (180, 240)),
    "upright": _studio((640, 480), (45, 50), (320, 205)),
    "stills": _studio((640, 480), (45, 50), (320, 205)),
}
KINDS = tuple(STUDIOS)


@dataclass(frozen=True)
class Clip:
    """What a session holds: one of `KINDS`, and one of `TRAPS` or ''."""

    name: str  # S001-002
    expression: str
    take: int
    kind: str
    trap: str


def draw_set(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` a folder a session; gives the number of pictures with true points, three a usable clip."""
    num_clips = sum(len(clips_of(subject)) for subject in range(arguments.subjects))
    rng = generator("synth", arguments.seed, arguments.name, "ids")
    sessions = (1 + rng.permutation(2 * num_clips)[:num_clips]).tolist()  # sparse, and in no order of subjects
    (root / "Sessions").mkdir()
    rows = in_processes(partial(_draw_subject, arguments, root, sessions), arguments.subjects, processes)
    return write_landmarks(root, chain.from_iterable(rows))


def clips_of(subject: int) -> list[Clip]:
    """A person's clips; their kinds and traps go round, so that a few people have all of them."""
    plan = [(expression, 0, "") for expression in EXPRESSIONS]
    if subject % PEOPLE < SECOND_TAKES:
        plan.append((EXPRESSIONS[subject % 6], 1, ""))
    plan.append((EXPRESSIONS[subject % 6], 2, TRAPS[subject % len(TRAPS)]))
    clips = []
    for number, (expression, take, trap) in enumerate(plan, start=1):
        kind = {"profile": "upright", "one picture": "stills"}.get(trap, KINDS[(subject + number) % len(KINDS)])
        clips.append(Clip(f"S{subject + 1:03d}-{number:03d}", expression, take, kind, trap))
    return clips


def _draw_subject(arguments: Arguments, root: Path, sessions: Sequence[int], subject: int) -> list[list[object]]:
    first = sum(len(clips_of(other)) for other in range(subject))
    rows = []
    for place, clip in enumerate(clips_of(subject), start=first):
        rng = generator("synth", arguments.seed, arguments.name, "clip files", subject, clip.name)
        folder = Path("Sessions") / str(sessions[place])
        (root / folder).mkdir()
        _annotate(root / folder, clip, sessions[place], rng)
        frames = list(_frames(arguments, subject, clip, rng))
        if clip.trap == "one picture":
            frames = frames[:1]
        if clip.kind == "stills":
            sources = [folder / f"{clip.name}-{number:02d}.jpg" for number in range(1, len(frames) + 1)]
            for source, (picture, _) in zip(sources, frames, strict=True):
                write_jpeg(root / source, picture)
        else:
            _write_video(root / folder / f"{clip.name}.avi", [picture for picture, _ in frames])
        if not clip.trap:
            middle = range(len(frames) // 2 - 1, len(frames) // 2 + 2)
            for number, frame in enumerate(middle, start=1):
                film = folder / f"{clip.name}.avi#middle{number}"
                rows.append(landmark_row(sources[frame] if clip.kind == "stills" else film, frames[frame][1]))
    return rows


def _frames(
    arguments: Arguments, subject: int, clip: Clip, rng: np.random.Generator
) -> Iterator[tuple[Picture, Floats]]:
    """The pictures of a clip as the camera left them, and the true points in them."""
    studio = STUDIOS[clip.kind]
    width, height = studio.size
    turned, frontal_first = Look(turns=int(rng.choice([1, 3]))), bool(rng.random() < 0.5)
    for person, actions, view in performance(arguments, subject, clip.expression, studio, clip.take):
        # The head turns about its rim: the face goes to one side.
        aside = replace(view, yaw=PROFILE, centre=(view.centre[0] - view.unit, view.centre[1]))
        picture, points = draw(person, actions, aside if clip.trap == "profile" else view)
        if clip.kind == "sideways":
            yield np.rot90(picture, -turned.turns), turned.back(points, (width, height))
        elif clip.kind == "side by side":
            other, _ = draw(person, actions, aside)
            both = np.hstack([picture, other] if frontal_first else [other, picture])
            yield both, points if frontal_first else points + np.array([width, 0])
        else:
            yield picture, points


def _annotate(folder: Path, clip: Clip, session: int, rng: np.random.Generator) -> None:
    """Write what goes with a clip: the session's tracks and views, and the clip's emotion somewhere among its tags."""
    view = {"side by side": 2}.get(clip.kind, 0) if clip.trap != "profile" else 1
    media = "image" if clip.kind == "stills" else "video"
    (folder / "session.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<session sessionId="{session}">\n'
        f'  <track trackNumber="0" type="{media}" view="{view}"/>\n'
        '  <track trackNumber="1" type="audio" view="9"/>\n</session>\n'
    )
    emotion = 7 if clip.trap == "emotion 7" else EXPRESSIONS.index(clip.expression) + 1
    tags = [("Glasses", "0"), ("Duration", str(int(rng.integers(60, 200)))), ("Posed", "1")]
    if clip.trap != "no emotion":
        tags.insert(int(rng.integers(len(tags) + 1)), ("Emotion", str(emotion)))
    lines = "".join(f'  <Metatag Name="{name}" Value="{value}"/>\n' for name, value in tags)
    (folder / f"{clip.name}.xml").write_text(f'<?xml version="1.0"?>\n<annotation>\n{lines}</annotation>\n')
    if rng.random() < 0.3:
        (folder / f"{clip.name}-oao_aucs.xml").write_text('<?xml version="1.0"?>\n<ActionUnits/>\n')


def _write_video(path: Path, pictures: Sequence[Picture]) -> None:
    height, width = pictures[0].shape
    codec = cv2.VideoWriter.fourcc(*"MJPG")  # OpenCV's wheels write and read it everywhere
    video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25, (width, height))
    assert video.isOpened()
    for picture in pictures:
        video.write(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
    video.release()
