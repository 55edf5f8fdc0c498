"""CK+: seven expressions of 118 people, from neutral to the peak.

As the paper uses it: the labelled sequences, the last three frames of each. A sequence's only label lies in a
tree of its own, and most sequences without a label have an empty folder there.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from idennet_core.datasets.pictures import read_file
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import (
    Scan,
    Skip,
    check_root,
    first_names,
    is_drawn,
    is_folder,
    last_frames,
    listing,
    nearest,
    read_picture,
    subfolders,
)

NAME = "ck+"
CLASSES = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")  # codes 1 to 7; 0 is neutral
NUM_SEQUENCES, NUM_SUBJECTS = 327, 118
NUM_FRAMES = 3  # the tail of a sequence, where the expression is at its peak
MAX_LABEL = 2**10  # bytes; a number has sixteen
IMAGES, LABELS, LABEL_END = "cohn-kanade-images", "Emotion", "_emotion.txt"
SUBJECT, SEQUENCE = re.compile(r"S\d{3}", re.IGNORECASE), re.compile(r"\d{3}")


def scan(root: Path) -> Scan:
    """Find the labelled sequences `cohn-kanade-images/S005/001/*.png` below `root`, the last three frames of each.

    Labels are `Emotion/S005/001/S005_001_00000011_emotion.txt`, also somewhere below. Raises ValueError for
    another layout or when nothing is usable, FileNotFoundError or NotADirectoryError for a root that is not a
    folder.
    """
    check_root(root)
    images, labels = _find(root, IMAGES), _find(root, LABELS)
    synthetic = is_drawn(images)
    pictures: list[Face] = []
    skipped: list[Skipped] = []

    def skip(path: Path, reason: str) -> None:
        skipped.append(Skipped(path.relative_to(root).as_posix(), reason))

    label_folders = {sequence: folder for sequence, folder in _sequences(labels, skip)}
    for sequence, folder in _sequences(images, skip):
        label_files = []
        label_folder = label_folders.pop(sequence, None)
        for path in (label_folder and listing(label_folder, skip)) or []:
            if path.name.lower().endswith(LABEL_END) and not path.name.startswith("."):
                label_files.append(path)
            else:
                skip(path, f"not a label (…{LABEL_END})")
        if len(label_files) != 1:
            skip(folder, f"{len(label_files)} emotion labels, one is needed" if label_files else "no emotion label")
            continue
        label, reason = read_label(label_files[0])
        if reason:
            skip(label_files[0], reason)
            continue
        tail = last_frames(folder, NUM_FRAMES, skip)
        if not tail:
            continue
        if label_files[0].name[: -len(LABEL_END)].lower() != tail[-1].stem.lower():
            skip(label_files[0], f"not named after the last frame, {tail[-1].name}: the last {NUM_FRAMES} are used")
        subject = sequence.partition("/")[0]
        pictures += [
            Face(subject, label, sequence, path.stem.rpartition("_")[2], "", path.relative_to(root).as_posix())
            for path in tail
        ]
    for folder in label_folders.values():
        skip(folder, "no pictures of this sequence")
    sequences, subjects = (len({getattr(p, column) for p in pictures}) for column in ("sequence", "subject"))
    found = f"{sequences} labelled sequences of {subjects} people, {NUM_SEQUENCES} of {NUM_SUBJECTS} were published"
    whole = synthetic or (sequences, subjects) == (NUM_SEQUENCES, NUM_SUBJECTS)
    return Scan(
        name=NAME,
        classes=CLASSES,
        pictures=pictures,
        skipped=skipped,
        files=[root / picture.source for picture in pictures],
        read=partial(read_picture, root),
        synthetic=synthetic,
        protocol={"sequences": "labelled", "frames": f"last {NUM_FRAMES}"},
        warnings=() if whole else (f"{found}: see what is skipped, or complete the copy",),
    )


def read_label(path: Path) -> tuple[str, str]:
    """The expression in a label file such as `   3.0000000e+00`, or '' and the reason why there is none."""
    try:
        text = read_file(path, MAX_LABEL, "a label's file").decode("utf-8-sig", errors="replace").strip()
    except OSError as error:
        return "", f"cannot be read: {error.strerror}"
    except ValueError as error:
        return "", str(error)
    try:
        code = float(text)
    except ValueError:
        return "", f"the label must be a number, but is {text[:20]!r}" if text else "the label file is empty"
    if code == 0:
        return "", "labelled neutral (code 0), none of the seven expressions"
    if code not in range(1, len(CLASSES) + 1):
        return "", f"code {code:g} is none of the seven expressions (1 to {len(CLASSES)})"
    return CLASSES[int(code) - 1], ""


def _sequences(top: Path, skip: Skip) -> Iterator[tuple[str, Path]]:
    """The sequences `S005/001` in a tree of subjects, sorted, and their folders; what is neither is skipped.

    `S005` and `s005` are one person; of a sequence that lies in both, the first counts.
    """
    met: dict[str, Path] = {}
    for subject in listing(top, skip) or []:
        if not (SUBJECT.fullmatch(subject.name) and is_folder(subject)):
            skip(subject, "not a subject's folder (S005, S010, …)")
            continue
        for folder in listing(subject, skip) or []:
            sequence = f"{subject.name.upper()}/{folder.name}"
            if not (SEQUENCE.fullmatch(folder.name) and is_folder(folder)):
                skip(folder, "not a sequence's folder (001, 002, …)")
            elif sequence in met:
                skip(folder, f"the same sequence as in {met[sequence].parent.name}, which counts")
            else:
                met[sequence] = folder
                yield sequence, folder


def _find(root: Path, name: str) -> Path:
    """The folder with this name that holds subjects."""

    def fits(folder: Path) -> bool:
        named = folder.name.lower() == name.lower()
        return named and any(SUBJECT.fullmatch(child.name) for child in subfolders(folder))

    found = nearest(root, fits, name)
    if found is None:
        raise ValueError(
            f"--root {root} is not {NAME}: looked for {IMAGES}/S005 and {LABELS}/S005 below it, "
            f"but there is no {name}; found {first_names(root)}"
        )
    return found
