"""Drawn CASIA-WebFace: a folder of pictures as from the open web for each identity."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from idennet_core.datasets.synthetic.world import (
    Arguments,
    in_processes,
    landmark_row,
    wild_view,
    write_jpeg,
    write_landmarks,
)
from idennet_core.faces.drawing import draw
from idennet_core.faces.people import EXPRESSIONS, performed_actions, person_of, resting_actions
from idennet_core.streams import generator

PICTURES = 25  # a person


def draw_set(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` a folder an identity, named by sparse numbers; gives the number of pictures."""
    gaps = generator("synth", arguments.seed, arguments.name, "ids").integers(1, 90, arguments.subjects)
    identities = 45 + np.cumsum(gaps) - gaps[0]  # the real ids start at 45 and have gaps
    work = partial(_draw_identity, arguments, root, identities.tolist())
    return write_landmarks(root, chain.from_iterable(in_processes(work, arguments.subjects, processes)))


def _draw_identity(arguments: Arguments, root: Path, identities: Sequence[int], subject: int) -> list[list[object]]:
    names = ("synth", arguments.seed, arguments.name)
    person = person_of(arguments.name, arguments.seed, subject)
    rest = resting_actions(person, arguments.identity_effect)
    folder = Path(f"{identities[subject]:07d}")
    (root / folder).mkdir()
    rows = []
    for number in range(1, PICTURES + 1):
        rng = generator(*names, "picture", subject, number)
        expression = str(rng.choice(list(EXPRESSIONS)))
        actions = rest + float(rng.uniform(0, 1)) * performed_actions(expression, rng, rng)
        view = wild_view(rng, 250, 22.5, (125.0, 110.0), turn=9)
        picture, points = draw(person, actions, view)
        source = folder / f"{number:03d}.jpg"
        write_jpeg(root / source, picture)
        rows.append(landmark_row(source, points))
    return rows
