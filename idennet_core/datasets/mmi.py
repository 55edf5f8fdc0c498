"""MMI: six expressions, each from the resting face over the peak and back, filmed or in still pictures.

As the paper uses it: views from the front, the middle three frames of each sequence. The paper's list of 205
sequences is not published: they are found by rule, or taken from a manifest.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from idennet_core.datasets.clips import MIDDLE, file_of, read_frame
from idennet_core.datasets.pictures import read_file
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.scan import (
    Scan,
    check_root,
    first_names,
    is_drawn,
    is_file,
    is_folder,
    is_picture,
    listing,
    natural,
    nearest,
    subfolders,
)
from idennet_core.faces.detection import WHOLE, Look

NAME = "mmi"
CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")  # values 1 to 6 of the tag Emotion
NUM_SEQUENCES = 205
ADVICE = "give --manifest FILE if you know which"
SESSION, ACTION_UNITS = "session.xml", "-oao_aucs.xml"
CLIP = re.compile(r"(S\d{3})-\d+", re.IGNORECASE)  # a file's name begins with it; its first half is the subject
LISTED = re.compile(rf"\d{{1,255}}/{CLIP.pattern}", re.IGNORECASE)  # a file's name has no more digits
MAX_ANNOTATION = 2**20  # bytes; they have a few thousand
VIDEOS = (".avi", ".mov", ".mp4", ".mpeg", ".mpg")
UPRIGHT_HEIGHT = 480  # pixels; other single views were filmed with the camera on its side
PROFILE, TWO_VIEWS = 1, 2  # a session's view; 0 is a single one from the front


def scan(root: Path, manifest: Path | None = None) -> Scan:
    """Find the frontal clips `Sessions/<number>/S001-002.*` below `root`, the middle three frames of each.

    Frames of a video are known only when it is decoded: their sources are `….avi#middle1` to `#middle3`.
    A `manifest` names the clips to use (see `read_manifest`). Raises ValueError for another layout or when
    nothing is usable, FileNotFoundError or NotADirectoryError for a root that is not a folder.
    """
    check_root(root)
    sessions = _find_sessions(root)
    listed = read_manifest(manifest) if manifest else None
    synthetic = is_drawn(sessions)
    pictures: list[Face] = []
    skipped: list[Skipped] = []
    views: dict[str, int] = {}  # of the sequences that are used
    met: set[str] = set()

    def skip(path: Path, reason: str) -> None:
        skipped.append(Skipped(path.relative_to(root).as_posix(), reason))

    for session in listing(sessions, skip) or []:
        if not (session.name.isdecimal() and is_folder(session)):
            skip(session, "not a session's folder (a number)")
            continue
        held = listing(session, skip)
        if held is None:
            continue
        view, wrong_view = read_view(session / SESSION)
        clips, strange = _clips(held)
        if not clips:
            skip(session, "no clip such as S001-002 in this session")
        for path in strange:
            skip(path, f"neither a clip such as S001-002, its annotation nor {SESSION}")
        for clip, media in sorted(clips.items()):
            sequence = f"{session.name}/{clip}"
            met.add(sequence)
            label, wrong_label = read_emotion(session / f"{clip}.xml")
            frames, wrong_frames = _middle(media)
            unlisted = "not in the manifest" if listed is not None and sequence not in listed else ""
            if reason := unlisted or wrong_view or wrong_label or wrong_frames:
                skip(session / clip, reason)
                continue
            views[sequence] = view
            subject = clip.partition("-")[0].upper()  # the session's number is no subject
            place = session.relative_to(root).as_posix()
            pictures += [Face(subject, label, sequence, frame, "", f"{place}/{name}") for frame, name in frames]
    for sequence in sorted((listed or set()) - met, key=natural):
        skip(sessions / sequence, "in the manifest, but not in the data set")
    usual = synthetic or len(views) == NUM_SEQUENCES
    return Scan(
        name=NAME,
        classes=CLASSES,
        pictures=pictures,
        skipped=skipped,
        files=[root / file_of(picture.source)[0] for picture in pictures],
        read=partial(read_frame, root),
        synthetic=synthetic,
        protocol={"view": "frontal", "frames": "middle 3"} | ({"manifest": manifest.name} if manifest else {}),
        looks=partial(looks, views),
        warnings=() if usual else (f"{len(views)} frontal sequences, the paper uses {NUM_SEQUENCES}: {ADVICE}",),
    )


def read_manifest(path: Path) -> set[str]:
    """The sequences that a manifest lists, one a line as session/clip: `12/S001-002`.

    Empty lines and what follows a `#` do not count. Raises FileNotFoundError, or ValueError for a line that is
    something else or occurs twice, and for a file without any.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--manifest {path} does not exist: give a file with a line session/clip a sequence")
    listed: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        entry = line.partition("#")[0].strip()
        if entry and not LISTED.fullmatch(entry):
            raise ValueError(
                f"{path}:{number} must be session/clip such as 12/S001-002, but is {entry[:40]!r}: mend it"
            )
        if entry in listed:
            raise ValueError(f"{path}:{number} must name a sequence once, but {entry} occurs twice: mend it")
        listed |= {entry} - {""}
    if not listed:
        raise ValueError(f"{path} must have a line session/clip such as 12/S001-002 a sequence, but has none")
    return listed


def _lines(path: Path) -> list[str]:
    return read_file(path, MAX_ANNOTATION, f"--manifest {path}").decode("utf-8-sig", errors="replace").splitlines()


def read_view(path: Path) -> tuple[int, str]:
    """The view of a session, that of its first track, and '' or the reason why it cannot be used."""
    tags, reason = _tags(path)
    if reason:
        return PROFILE, f"{SESSION}: {reason}"
    view = next((attributes for name, attributes in tags if name == "track"), {}).get("view")
    if view is None:
        return PROFILE, f"{SESSION}: its first track names no view"
    if view not in ("0", "1", "2"):
        return PROFILE, f"{SESSION}: view must be 0, 1 or 2, but is {view[:20]!r}"
    return int(view), "seen from the side (view 1)" if int(view) == PROFILE else ""


def read_emotion(path: Path) -> tuple[str, str]:
    """The expression in a clip's annotation, or '' and the reason why there is none of the six."""
    tags, reason = _tags(path)
    if reason:
        return "", f"its annotation: {reason}"
    # By name: the order of the tags differs.
    values = {tag.get("Value", "") for name, tag in tags if name == "Metatag" and tag.get("Name") == "Emotion"}
    if not values:
        return "", "its annotation: no Metatag named Emotion"
    if len(values) > 1:
        return "", f"its annotation: {len(values)} different emotions"
    value = values.pop()
    if not re.fullmatch(r"\d{1,9}", value.strip()):
        return "", f"its annotation: Emotion must be a whole number, but is {value[:20]!r}"
    if not 1 <= int(value) <= len(CLASSES):
        return "", f"emotion {int(value)} is none of the six expressions (1 to {len(CLASSES)})"
    return CLASSES[int(value) - 1], ""


def looks(views: Mapping[str, int], picture: Face, image: NDArray[np.uint8]) -> Sequence[Look]:
    """How a face may lie in a decoded picture: which half is frontal, and which side is up, only the face tells."""
    if views[picture.sequence] == TWO_VIEWS:
        return (Look(right=0.5), Look(left=0.5))
    return WHOLE if image.shape[0] == UPRIGHT_HEIGHT else (Look(turns=1), Look(turns=3), *WHOLE)


def _clips(held: Iterable[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """The media files of each clip among what a session's folder holds, and the files that are strange there."""
    clips: dict[str, list[Path]] = {}
    nameless, strange = [], []
    for path in held:
        named = CLIP.match(path.name)
        is_media = is_file(path) and (is_picture(path) or (named and path.suffix.lower() in VIDEOS))
        if is_media and named:
            clips.setdefault(named[0], []).append(path)
        elif is_media:
            nameless.append(path)
        elif named and path.name == f"{named[0]}.xml":
            clips.setdefault(named[0], [])
        elif path.name != SESSION and not (named and path.name.lower().endswith(ACTION_UNITS)):
            strange.append(path)
    if len(clips) == 1:  # stills of the session's only clip need not repeat its name
        next(iter(clips.values())).extend(nameless)
        nameless = []
    return clips, strange + nameless


def _middle(media: list[Path]) -> tuple[list[tuple[str, str]], str]:
    """The middle three frames of a clip and the names of their files, or none and the reason."""
    videos = [path.name for path in media if path.suffix.lower() in VIDEOS]
    if videos and len(media) > 1:
        return [], f"{len(media)} files, one video or pictures alone are needed"
    if videos:
        return [(frame, f"{videos[0]}#{frame}") for frame in MIDDLE], ""
    if len(media) < len(MIDDLE):
        return [], f"{len(media)} of the {len(MIDDLE)} pictures that are needed at least"
    first = len(media) // 2 - 1
    return [(path.stem, path.name) for path in media[first : first + len(MIDDLE)]], ""


def _tags(path: Path) -> tuple[list[tuple[str, dict[str, str]]], str]:
    """Every element of an XML file, its name and attributes, in order; or none and the reason.

    Files that declare entities are refused: entities can blow up to gigabytes.
    """
    tags: list[tuple[str, dict[str, str]]] = []

    def refuse(*declaration: object) -> None:
        raise ValueError("it declares entities, which are not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: tags.append((name, attributes))
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(read_file(path, MAX_ANNOTATION, "it"), True)
    except FileNotFoundError:
        return [], f"there is no {path.name}"
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"
    except (expat.ExpatError, LookupError) as error:  # a LookupError: an encoding that nobody knows
        return [], f"not readable XML ({error})"
    except ValueError as error:
        return [], str(error)
    return tags, ""


def _find_sessions(root: Path) -> Path:
    """The folder of numbered sessions, `Sessions` in the published layout."""

    def is_session(folder: Path) -> bool:
        return folder.name.isdecimal() and is_file(folder / SESSION)

    found = nearest(root, lambda folder: any(map(is_session, subfolders(folder))), f"sessions with a {SESSION}")
    if found is None:
        raise ValueError(
            f"--root {root} is not {NAME}: looked for Sessions/1/{SESSION} (any number) in and below it, "
            f"found {first_names(root)}"
        )
    return found
