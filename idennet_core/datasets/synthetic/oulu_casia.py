"""Drawn Oulu-CASIA: visible light, strong illumination, six sequences a person from the resting face to the peak."""

from functools import partial
from itertools import chain
from pathlib import Path

from idennet_core.datasets.synthetic.world import (
    Arguments,
    Studio,
    cut_out,
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
        for frame, seen in enumerate(performance(arguments, subject, expression, STUDIO)):
            face = cut_out(*draw(*seen))
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
        for frame, seen in enumerate(performance(arguments, subject, expression, STUDIO)):
            picture, points = draw(*seen)
            source = folder / f"{frame:03d}.jpeg"
            write_jpeg(root / source, picture)
            rows.append(landmark_row(source, points))
    return rows
