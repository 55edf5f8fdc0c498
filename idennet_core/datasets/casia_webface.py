"""CASIA-WebFace: half a million pictures of 10,575 people from the web.

Either one folder of pictures a person, or a RecordIO file of faces that its makers aligned to 112x112 pixels.
Those lie on the template that all faces are aligned to, so the whole picture is the face.
"""

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from sys import intern

import numpy as np
from numpy.typing import NDArray

from idennet_core.datasets.pictures import decode
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.recordio import RecordFile, read_index
from idennet_core.datasets.scan import (
    FilesOf,
    Scan,
    check_root,
    first_names,
    is_drawn,
    is_file,
    is_picture_name,
    levels_below,
    natural,
    read_picture,
    subfolders,
)

NAME = "casia-webface"
RECORDS, INDEX = "train.rec", "train.idx"
ALIGNED = (112, 112)  # pixels of a face in RecordIO


def scan(root: Path) -> Scan:
    """Find `0000045/001.jpg`, or `train.rec` with `train.idx`, below `root`; there are no classes.

    A folder's number or a record's label is the subject; numbers are sparse and kept as they are. Raises
    ValueError for another layout or both, FileNotFoundError or NotADirectoryError for a root that is not a folder.
    """
    check_root(root)
    for level in levels_below(root):
        # The root itself is no person, whatever its name.
        people = [folder for folder in level if folder.name.isdecimal()] if level != [root] else []
        held = [folder for folder in level if is_file(folder / RECORDS)] if not people else []
        if len(held) > 1:
            raise ValueError(f"--root {root} holds {RECORDS} {len(held)} times ({held[0]}, {held[1]}): give one")
        if held:
            if any(child.name.isdecimal() for child in subfolders(held[0])):
                raise ValueError(f"{held[0]} holds {RECORDS} and folders of people: keep one of the two forms there")
            return _scan_records(root, held[0])
        if people:
            return _scan_folders(root, level)
    raise ValueError(
        f"--root {root} is not {NAME}: looked for folders such as 0000045 or {RECORDS} in and below it, "
        f"found {first_names(root)}"
    )


def _scan_folders(root: Path, folders: Sequence[Path]) -> Scan:
    pictures: list[Face] = []
    skipped: list[Skipped] = []
    for folder in sorted(folders, key=lambda folder: natural(folder.name)):
        place = folder.relative_to(root).as_posix()
        if not folder.name.isdecimal():
            skipped.append(Skipped(place, "not a person's folder (a number)"))
            continue
        # Half a million names: no file is looked at, and a short name comes first, 9.jpg before 010.jpg.
        try:
            names = sorted(os.listdir(folder), key=lambda name: (len(name), name))  # noqa: PTH208
        except OSError as error:
            skipped.append(Skipped(place, f"cannot be read: {error.strerror}"))
            continue
        for name in names:
            if is_picture_name(name):
                stem = intern(name[: name.rindex(".")])
                pictures.append(Face(folder.name, "", "", stem, "", f"{place}/{name}"))
            else:
                skipped.append(Skipped(f"{place}/{name}", "not a picture (.jpeg, .jpg or .png)"))
    return Scan(
        name=NAME,
        classes=(),
        pictures=pictures,
        skipped=skipped,
        files=FilesOf(root, pictures),
        read=partial(read_picture, root),
        synthetic=is_drawn(folders[0].parent),
        protocol={"form": "folders"},
    )


def _scan_records(root: Path, folder: Path) -> Scan:
    """Read the 36 bytes at the start of every record that the index names."""
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} holds {RECORDS} without {INDEX}: put the index file beside it")
    place = (folder / RECORDS).relative_to(root).as_posix()
    pictures: list[Face] = []
    skipped: list[Skipped] = []
    offsets: dict[int, int] = {}
    held = 0  # bytes of a picture in record 0
    with RecordFile(folder / RECORDS) as records:
        try:
            entries = (entry for entry in read_index(folder / INDEX) if not isinstance(entry, str))
            first = next((offset for key, offset in entries if key == 0), None)
            if first is None:
                raise ValueError("the index names no record 0")
            end, held = records.head(first)  # images have the keys before it, records from there on describe identities
            if held:  # as tools write it that know of no metadata: its label is an identity, and no number of records
                raise ValueError("record 0 holds a picture")
        except ValueError as error:
            end = math.inf
            skipped.append(Skipped(f"{place}:0", f"{error}, so every record that holds a picture is taken"))
        for line, entry in enumerate(read_index(folder / INDEX), start=1):
            if isinstance(entry, str):
                skipped.append(Skipped(f"{(folder / INDEX).relative_to(root).as_posix()}:{line}", entry))
                continue
            key, offset = entry
            if key >= end or (key == 0 and not held):
                continue
            try:
                if key in offsets:
                    raise ValueError("the index names the record twice: the first place is taken")
                label, length = records.head(offset)
                if not (label >= 0 and label.is_integer()):
                    raise ValueError("the record's label is not an identity's number")
                if length:
                    offsets[key] = offset
                    pictures.append(Face(intern(f"{int(label):07d}"), "", "", f"{key:07d}", "", f"{place}:{key}"))
                elif end < math.inf:
                    raise ValueError("the record holds no picture")
            except ValueError as error:
                skipped.append(Skipped(f"{place}:{key}", str(error)))
    return Scan(
        name=NAME,
        classes=(),
        pictures=pictures,
        skipped=skipped,
        files=[folder / RECORDS, folder / INDEX],
        read=partial(_read_record, folder / RECORDS, offsets),
        synthetic=is_drawn(folder),
        cropped=True,
        protocol={"form": "RecordIO"},
    )


def _read_record(path: Path, offsets: dict[int, int], picture: Face) -> NDArray[np.uint8]:
    with RecordFile(path) as records:
        encoded = records.picture(offsets[int(picture.source.rpartition(":")[2])])
    pixels = decode(encoded)
    if pixels.shape[:2] != ALIGNED:
        raise ValueError(f"an aligned face has 112x112 pixels, but this has {pixels.shape[1]}x{pixels.shape[0]}")
    return pixels
