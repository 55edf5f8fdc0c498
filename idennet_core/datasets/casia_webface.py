"""CASIA-WebFace: half a million pictures of 10,575 people from the web, one folder a person."""

from functools import partial
from pathlib import Path

from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import (
    Scan,
    check_root,
    first_names,
    is_drawn,
    is_picture,
    levels_below,
    natural,
    read_picture,
)

NAME = "casia-webface"


def scan(root: Path) -> Scan:
    """Find `0000045/001.jpg` below `root`: the folder's number is the subject, and there are no classes.

    Numbers are sparse and kept as they are. Raises ValueError for another layout, FileNotFoundError or
    NotADirectoryError for a root that is not a folder.
    """
    check_root(root)
    numbered = (level for level in levels_below(root) if any(folder.name.isdecimal() for folder in level))
    people = next(numbered, None)
    if people is None:
        raise ValueError(
            f"--root {root} is not {NAME}: looked for folders such as 0000045 in and below it, "
            f"found {first_names(root)}"
        )
    pictures: list[Face] = []
    skipped: list[Skipped] = []
    for folder in sorted(people, key=lambda folder: natural(folder.name)):
        if not folder.name.isdecimal():
            skipped.append(Skipped(folder.relative_to(root).as_posix(), "not a person's folder (a number)"))
            continue
        for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
            source = path.relative_to(root).as_posix()
            if is_picture(path):
                pictures.append(Face(folder.name, "", "", path.stem, "", source))
            else:
                skipped.append(Skipped(source, "not a picture (.jpeg, .jpg or .png)"))
    return Scan(
        name=NAME,
        classes=(),
        pictures=pictures,
        skipped=skipped,
        files=[root / picture.source for picture in pictures],
        read=partial(read_picture, root),
        synthetic=is_drawn(people[0].parent),
    )
