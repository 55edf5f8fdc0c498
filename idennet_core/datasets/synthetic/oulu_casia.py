"""Drawn Oulu-CASIA: visible light, strong illumination, six sequences a person from the resting face to the peak."""

from functools import partial
from itertools import chain
from pathlib import Path

from idennet_core.datasets.synthetic.world import (
    Arguments,
    Studio,
    in_processes,
    landmark_row,
    performance,
    write_jpeg,
    write_landmarks,
)
from idennet_core.faces.drawing import draw

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
STUDIO = Studio(size=(320, 240), unit=(21.5, 24.0), centre=(160, 106), frames=(7, 12), grain=2.5)


def draw_set(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` a folder a subject; gives the number of pictures."""
    rows = in_processes(partial(_draw_subject, arguments, root), arguments.subjects, processes)
    return write_landmarks(root, chain.from_iterable(rows))


def _draw_subject(arguments: Arguments, root: Path, subject: int) -> list[list[object]]:
    """One subject's six sequences; each rises from the resting face to the peak in its last three frames."""
    rows = []
    for expression in EXPRESSIONS:
        folder = Path("OriginalImg/VL/Strong") / f"P{subject + 1:03d}" / expression.capitalize()
        (root / folder).mkdir(parents=True)
        for frame, seen in enumerate(performance(arguments, subject, expression, STUDIO)):
            picture, points = draw(*seen)
            source = folder / f"{frame:03d}.jpeg"
            write_jpeg(root / source, picture)
            rows.append(landmark_row(source, points))
    return rows
