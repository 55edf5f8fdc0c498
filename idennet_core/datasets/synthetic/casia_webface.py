"""Drawn CASIA-WebFace: a folder of pictures as from the open web for each identity, or one RecordIO file."""

import struct
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from idennet_core.datasets.synthetic.world import (
    Arguments,
    cut_out,
    in_processes,
    jpeg,
    landmark_row,
    wild_view,
    write_jpeg,
    write_landmarks,
)
from idennet_core.faces.drawing import draw
from idennet_core.faces.people import EXPRESSIONS, performed_actions, person_of, resting_actions
from idennet_core.faces.sketching import Floats, Picture
from idennet_core.streams import generator

PICTURES = 25  # a person


def draw_set(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` a folder an identity, named by sparse numbers; gives the number of pictures."""
    gaps = generator("synth", arguments.seed, arguments.name, "ids").integers(1, 90, arguments.subjects)
    identities = 45 + np.cumsum(gaps) - gaps[0]  # the real ids start at 45 and have gaps
    work = partial(_draw_identity, arguments, root, identities.tolist())
    return write_landmarks(root, chain.from_iterable(in_processes(work, arguments.subjects, processes)))


def draw_records(arguments: Arguments, root: Path, processes: int) -> int:
    """Draw into `root` the same faces cut out, as `train.rec`, `train.idx` and `property`; gives their number.

    Record 0 and those behind the pictures describe: how many pictures there are, and which ones each identity has.
    """
    people = in_processes(partial(_encode_identity, arguments), arguments.subjects, processes)
    end = 1 + sum(map(len, people))
    payloads = [_payload(0, (end, end + len(people)))]
    ranges = []
    for identity, faces in enumerate(people):
        ranges.append((len(payloads), len(payloads) + len(faces)))
        payloads += [_payload(len(payloads) + i, (identity,), face) for i, face in enumerate(faces)]
    payloads += [_payload(end + i, ends) for i, ends in enumerate(ranges)]
    with (root / "train.rec").open("wb") as records, (root / "train.idx").open("w") as index:
        for key, payload in enumerate(payloads):
            index.write(f"{key}\t{records.tell()}\n")
            records.write(struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4))
    (root / "property").write_text(f"{len(people)},112,112")
    return end - 1


def _payload(key: int, labels: Sequence[int], picture: bytes = b"") -> bytes:
    """A header, with one label in it or several behind it, and a picture."""
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], key, 0) + picture
    return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0, key, 0, *labels) + picture


def _encode_identity(arguments: Arguments, subject: int) -> list[bytes]:
    return [jpeg(cut_out(picture, points)) for picture, points in _pictures(arguments, subject)]


def _draw_identity(arguments: Arguments, root: Path, identities: Sequence[int], subject: int) -> list[list[object]]:
    folder = Path(f"{identities[subject]:07d}")
    (root / folder).mkdir()
    rows = []
    for number, (picture, points) in enumerate(_pictures(arguments, subject), start=1):
        source = folder / f"{number:03d}.jpg"
        write_jpeg(root / source, picture)
        rows.append(landmark_row(source, points))
    return rows


def _pictures(arguments: Arguments, subject: int) -> Iterator[tuple[Picture, Floats]]:
    """An identity's pictures (uint8 [250, 250]) and their true points."""
    names = ("synth", arguments.seed, arguments.name)
    person = person_of(arguments.name, arguments.seed, subject)
    rest = resting_actions(person, arguments.identity_effect)
    for number in range(1, PICTURES + 1):
        rng = generator(*names, "picture", subject, number)
        expression = str(rng.choice(list(EXPRESSIONS)))
        actions = rest + float(rng.uniform(0, 1)) * performed_actions(expression, rng, rng)
        yield draw(person, actions, wild_view(rng, 250, 22.5, (125.0, 110.0), turn=9))
