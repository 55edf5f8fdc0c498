"""Drawn stand-ins for the licensed data sets, in their real directory layouts.

A person's traits come from one named stream and stay for all of his or her pictures; streams are keyed by the data
set, so no person is in two of them. `identity_effect` is the dial of the drawn world: at 0 a person's traits say
nothing about the facial actions; at R a resting face, a linear function of visible traits times R, is added to
every performance.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from idennet_core.datasets.synthetic import casia_webface, ck_plus, ferplus, mmi, oulu_casia
from idennet_core.datasets.synthetic.world import Arguments, performance
from idennet_core.faces.drawing import draw

DRAWING = 2  # raised when the same arguments draw other bytes
MARK = "SYNTHETIC.json"
STRONGEST = 100  # identity effect; a face has long ceased to be one there


Draw = Callable[[Arguments, Path, int], int]


@dataclass(frozen=True)
class Drawn:
    """A data set that can be drawn: `draw(arguments, root, processes)` gives the number of pictures."""

    subjects: int  # as many as suit the set
    draw: Draw
    forms: Mapping[str, Draw] = field(default_factory=dict)  # others in which it is published, with the same faces


DRAWN = {
    "oulu-casia": Drawn(80, oulu_casia.draw_set, {"cropped": oulu_casia.draw_cropped}),
    "ck+": Drawn(ck_plus.PEOPLE, ck_plus.draw_set),
    "mmi": Drawn(mmi.PEOPLE, mmi.draw_set),
    "ferplus": Drawn(1250, ferplus.draw_set, {"png": ferplus.draw_folders}),
    "casia-webface": Drawn(100, casia_webface.draw_set, {"recordio": casia_webface.draw_records}),
}


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
    form: str = "",
) -> Summary:
    """Draw a data set in its real layout: equal arguments give equal bytes, whatever the number of processes.

    `subjects` is the number of people (for casia-webface, of identities); None takes as many as suit the set. `form`
    is one of the other forms of the set in `DRAWN`, '' the usual one. The folder is made beside `out` and put in its
    place when complete; one that was drawn before is replaced, and left as it is when the arguments are the same.
    Raises ValueError for an unknown name or form, subjects < 1, a negative or infinite identity effect, a negative
    seed, or an `out` that holds something else; NotADirectoryError when `out` is a file.
    """
    if name not in DRAWN:
        raise ValueError(f"the data set must be one of {', '.join(DRAWN)}, but got {name!r}: choose one of them")
    draw = {"": DRAWN[name].draw, **DRAWN[name].forms}.get(form)
    if draw is None:
        others = ", ".join(DRAWN[name].forms) or "none but the usual"
        raise ValueError(f"the form of {name} must be one of {others}, but got {form!r}: leave it out for the usual")
    people = DRAWN[name].subjects if subjects is None else subjects
    arguments = Arguments(name, people, float(identity_effect), seed, form)
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
        pictures = draw(arguments, fresh, processes or os.cpu_count() or 1)
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
    if not 0 <= arguments.identity_effect <= STRONGEST:
        raise ValueError(
            f"identity effect must be a number from 0 to {STRONGEST}, but got {arguments.identity_effect:g}: "
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


def contact_sheet(name: str, file: Path, subjects: int = 6, identity_effect: float = 1.0, seed: int = 0) -> None:
    """Write a picture of a data set's first people, each at rest and at the peak of the six expressions.

    The picture says that the faces are synthetic. Raises ValueError as `synthesise` does, OSError where it cannot be
    written.
    """
    arguments = Arguments(name, subjects, float(identity_effect), seed)
    _check(arguments, None)
    rows = []
    for subject in range(subjects):
        sequences = [
            list(performance(arguments, subject, expression, oulu_casia.STUDIO))
            for expression in oulu_casia.EXPRESSIONS
        ]
        seen = [sequences[0][0], *(sequence[-1] for sequence in sequences)]
        pictures = [draw(*frame)[0] for frame in seen]
        rows.append(np.hstack([picture[:, 60:260] for picture in pictures]))
    sheet = np.vstack([np.full((56, rows[0].shape[1]), 255, np.uint8), *rows])
    title = f"synthetic faces, drawn by idenctl: {name}, seed {seed}, identity effect {identity_effect:g}"
    cv2.putText(sheet, title, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1, cv2.LINE_AA)
    for column, label in enumerate(("at rest", *oulu_casia.EXPRESSIONS)):
        cv2.putText(sheet, label, (200 * column + 8, 48), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0, 1, cv2.LINE_AA)
    _, encoded = cv2.imencode(".png", sheet)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(encoded.tobytes())
    beside.replace(file)
