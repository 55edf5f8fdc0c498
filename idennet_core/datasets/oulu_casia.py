"""Oulu-CASIA NIR&VIS: six expressions of 80 people, from neutral to the peak.

As the paper uses it: visible light (VL), strong illumination, the last three frames of each sequence. The
publisher's cropped edition is read where the original is not there.
"""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import (
    Scan,
    check_root,
    first_names,
    is_drawn,
    last_frames,
    levels_below,
    listing,
    read_picture,
    subfolders,
)

NAME = "oulu-casia"
CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
NUM_SUBJECTS = 80
NUM_FRAMES = 3  # the tail of a sequence, where the expression is at its peak
# The folder that holds Strong, by letter case: of the original edition and of the one that was cut out.
EDITIONS = {"vl": "original", "vl_acropped": "cropped"}
NO_SUBJECT, NO_EXPRESSION = "not a subject's folder (P001, P002, …)", "not a folder of one of the six expressions"
SUBJECT = re.compile(r"P\d{3}", re.IGNORECASE)


def scan(root: Path) -> Scan:
    """Find `VL/Strong/P001/Anger/*.jpeg` below `root` and take each sequence's last three frames.

    Without it, `VL_Acropped/Strong/P001/Anger/*.jpeg` is read as faces already cropped. The root may also be the
    `VL` or `Strong` folder itself, and letter case does not matter. Raises ValueError for another layout,
    FileNotFoundError or NotADirectoryError for a root that is not a folder.
    """
    check_root(root)
    strong, other = _find_strong(root)
    synthetic = is_drawn(strong)
    edition = _edition(strong)
    pictures: list[Face] = []
    skipped: list[Skipped] = []

    def skip(path: Path, reason: str) -> None:
        skipped.append(Skipped(path.relative_to(root).as_posix(), reason))

    if other:
        skip(other, "the cropped edition, beside the original, which is used: give it as --root to use it instead")
    subjects = _by_name(path for path in subfolders(strong) if SUBJECT.fullmatch(path.name))
    for path in listing(strong, skip) or []:
        if path not in subjects.values():
            twin = subjects.get(path.name.upper())
            skip(path, f"another spelling of {twin.name}, which counts" if twin else NO_SUBJECT)
    last = max(int(subject[1:]) for subject in subjects)
    expected = (f"P{i:03d}" for i in range(1, (last if synthetic else max(last, NUM_SUBJECTS)) + 1))
    for subject in expected:
        if subject not in subjects:
            skip(strong / subject, "the subject's folder is missing")
    for subject, folder in sorted(subjects.items()):
        held = listing(folder, skip)
        if held is None:
            continue
        expressions = _by_name(path for path in subfolders(folder) if path.name.lower() in CLASSES)
        for path in held:
            if path not in expressions.values():
                twin = expressions.get(path.name.upper())
                skip(path, f"another spelling of {twin.name}, which counts" if twin else NO_EXPRESSION)
        for label in CLASSES:
            if label.upper() not in expressions:
                skip(folder / label.capitalize(), "the expression's folder is missing")
                continue
            sequence = expressions[label.upper()]
            tail = last_frames(sequence, NUM_FRAMES, skip)
            if not tail:
                continue
            if _numbers_jump(tail):
                skip(sequence, f"a frame is missing among the last {NUM_FRAMES}: the ones left are used")
            pictures += [
                Face(subject, label, f"{subject}/{label}", path.stem, "", path.relative_to(root).as_posix())
                for path in tail
            ]
    return Scan(
        name=NAME,
        classes=CLASSES,
        pictures=pictures,
        skipped=skipped,
        files=[root / picture.source for picture in pictures],
        read=partial(read_picture, root),
        synthetic=synthetic,
        cropped=edition == "cropped",
        protocol={"light": "VL", "illumination": "Strong", "frames": f"last {NUM_FRAMES}", "edition": edition},
    )


def _by_name(folders: Iterable[Path]) -> dict[str, Path]:
    """The folders by their names in capitals; of two spellings of one name the first."""
    found: dict[str, Path] = {}
    for folder in folders:
        found.setdefault(folder.name.upper(), folder)
    return found


def _find_strong(root: Path) -> tuple[Path, Path | None]:
    """The folder of the original edition, else of the cropped one, and the cropped one where it lies beside."""
    cropped: list[Path] = []
    for level in levels_below(root):
        strong = [folder for folder in level if _edition(folder)]
        original = [folder for folder in strong if _edition(folder) == "original"]
        cropped += [folder for folder in strong if folder not in original]
        if original:
            return _the_one(root, original), cropped[0] if cropped else None
    if cropped:
        return _the_one(root, cropped), None
    raise ValueError(
        f"--root {root} is not {NAME}: looked for VL/Strong/P001 and VL_Acropped/Strong/P001 in and below it, "
        f"found {first_names(root)}"
    )


def _the_one(root: Path, found: list[Path]) -> Path:
    if len(found) > 1:
        raise ValueError(
            f"--root {root} holds {found[0].parent.name}/Strong {len(found)} times ({found[0]}, {found[1]}): "
            "give one of them"
        )
    return found[0]


def _edition(folder: Path) -> str:
    """Of which edition a folder holds the subjects; '' for another folder."""
    place = folder.resolve()  # a root of "." has no name of its own
    edition = EDITIONS.get(place.parent.name.lower(), "") if place.name.lower() == "strong" else ""
    return edition if edition and any(SUBJECT.fullmatch(child.name) for child in subfolders(folder)) else ""


def _numbers_jump(frames: list[Path]) -> bool:
    if not all(frame.stem.isdecimal() for frame in frames):
        return False
    numbers = [int(frame.stem) for frame in frames]
    return numbers != list(range(numbers[0], numbers[0] + len(numbers)))
