"""Drawn Oulu-CASIA: visible light, strong illumination, six sequences a person from the resting face to the peak."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from idennet_core.datasets.synthetic.world import (
    Arguments,
    cut_out,
    in_processes,
    landmark_row,
    rising,
    write_jpeg,
    write_landmarks,
)
from idennet_core.faces.drawing import draw
from idennet_core.faces.people import performed_actions, person_of, resting_actions
from idennet_core.faces.sketching import Floats, Picture, View
from idennet_core.streams import generator

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")


def draw_set(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` a folder a subject; gives the number of pictures."""
    rows = in_processes(partial(_draw_subject, arguments, root), arguments.subjects, processes)
    return write_landmarks(root, chain.from_iterable(rows))


def draw_cropped(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` the same faces cut out, as in the cropped edition; gives the number of pictures.

    The first subject's are there in near-infrared light too, which nobody must take for visible light.
    """
    return sum(in_processes(partial(_crop_subject, arguments, root), arguments.subjects, processes))


def _crop_subject(arguments: Arguments, root: Path, subject: int) -> int:
    written = 0
    for expression in EXPRESSIONS:
        place = Path("Strong") / f"P{subject + 1:03d}" / expression.capitalize()
        folders = [root / "PreProcess_Img" / light / place for light in ("VL_Acropped", "NI_Acropped")]
        for folder in folders[: 1 + (subject == 0)]:
            folder.mkdir(parents=True)
        for frame, (picture, points) in enumerate(sequence(arguments, subject, expression)):
            face = cut_out(picture, points)
            write_jpeg(folders[0] / f"{frame:03d}.jpeg", face)
            if subject == 0:
                write_jpeg(folders[1] / f"{frame:03d}.jpeg", 255 - face)
            written += 1
    return written


def _draw_subject(arguments: Arguments, root: Path, subject: int) -> list[list[object]]:
    """One subject's six sequences; each rises from the resting face to the peak in its last three frames."""
    rows = []
    for expression in EXPRESSIONS:
        folder = Path("OriginalImg/VL/Strong") / f"P{subject + 1:03d}" / expression.capitalize()
        (root / folder).mkdir(parents=True)
        for frame, (picture, points) in enumerate(sequence(arguments, subject, expression)):
            source = folder / f"{frame:03d}.jpeg"
            write_jpeg(root / source, picture)
            rows.append(landmark_row(source, points))
    return rows


def sequence(arguments: Arguments, subject: int, expression: str) -> Iterator[tuple[Picture, Floats]]:
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
