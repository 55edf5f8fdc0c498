"""Face detection with YuNet, whose model file is the user's: fetched from its publisher or another export."""

import hashlib
import ssl
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

MODEL_NAME = "face_detection_yunet_2023mar.onnx"
MODEL_PUBLISHER = "OpenCV Zoo"
MODEL_URL = f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{MODEL_NAME}"
MODEL_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SCORE = 0.6  # a face scores at least this
LOWEST_SCORE = 0.1  # what is reported where no face is found
MAX_MODEL = 16 * 2**20  # bytes of a file to be fetched; YuNet has a few hundred thousand
LONGEST_SIDES = (320, 640, 1280)  # pixels; YuNet wants faces of about 10 to 300


@dataclass(frozen=True)
class Look:
    """A part of a picture to look for a face in: some of its width, then turned anticlockwise by 90 degrees."""

    left: float = 0.0  # share of the width
    right: float = 1.0
    turns: int = 0

    def part(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of a picture [height, width(, 3)], upright if this is the right look."""
        left, right = self._columns(image.shape[1])
        return np.ascontiguousarray(np.rot90(image[:, left:right], self.turns))

    def back(self, points: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
        """Points [n, 2] of the part in pixels of the whole picture, whose shape begins with height and width."""
        left, right = self._columns(shape[1])
        x, y = points.T
        for turn in reversed(range(self.turns)):  # a turn brings the right edge to the top
            x, y = (right - left, shape[0])[turn % 2] - 1 - y, x
        return np.stack([x + left, y], axis=1)

    def _columns(self, width: int) -> tuple[int, int]:
        return int(self.left * width), int(self.right * width)


WHOLE = (Look(),)


class Detector:
    """Finds the five points of the face in a picture; may be called from several threads."""

    def __init__(self, model: Path) -> None:
        """Load a YuNet ONNX file. Raises FileNotFoundError or ValueError for one that cannot be used."""
        if not model.is_file():
            raise FileNotFoundError(f"no detector {model}: run `idenctl data detector get` for one")
        self._model = model
        self._local = threading.local()  # FaceDetectorYN keeps state: one a thread
        try:
            self._network().detect(np.zeros((64, 64, 3), np.uint8))
        except cv2.error as error:
            raise ValueError(
                f"detector {model} must be a YuNet model, but OpenCV cannot run it: "
                "run `idenctl data detector get` for one"
            ) from error

    def __call__(self, image: NDArray[np.uint8], looks: Sequence[Look] = WHOLE) -> NDArray[np.float64] | str:
        """The five points [5, 2] of the face in a picture, in its pixels, or the reason why there are none.

        The picture is grey or BGR. Where it is not known how the face lies in it, `looks` are the choices: the
        surest face that is seen from the front is taken.
        """
        highest, faces = 0.0, []
        for look in looks:
            score, points = self._search(look.part(image))
            highest = max(highest, score)
            if points is not None:
                faces.append((score - aside(points), look.back(points, image.shape)))
        if not faces:
            return f"no face found (best score {f'{highest:.1f}' if highest else f'below {LOWEST_SCORE}'})"
        return max(faces, key=lambda face: face[0])[1]

    def _search(self, image: NDArray[np.uint8]) -> tuple[float, NDArray[np.float64] | None]:
        """The highest score in a picture, and the points of its face if there is one.

        A large picture is searched at 320 pixels first, and at 640 and 1280 only when nothing was found. Of
        several faces, those with at least half the area of the largest count, and the one nearest to the
        centre is taken.
        """
        colour = image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
        best = 0.0
        for scale in scales(image.shape[0], image.shape[1]):
            height, width = round(image.shape[0] * scale), round(image.shape[1] * scale)
            small = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)
            network = self._network()
            network.setInputSize((width, height))
            found = network.detect(small)[1]
            if found is None:
                continue
            rows = np.asarray(found, np.float64)
            best = max(best, rows[:, 14].max())
            faces = rows[rows[:, 14] >= SCORE]
            if len(faces):
                points = faces[choose(faces[:, :4], width, height), 4:14].reshape(5, 2)
                factor = np.array([image.shape[1] / width, image.shape[0] / height])  # sizes were rounded
                return best, np.asarray((points + 0.5) * factor - 0.5)
        return best, None

    def _network(self) -> cv2.FaceDetectorYN:
        if not hasattr(self._local, "network"):
            # OpenCV 5 warns of a target that it cannot set and nobody asked for.
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
            self._local.network = cv2.FaceDetectorYN.create(
                str(self._model), "", (64, 64), score_threshold=LOWEST_SCORE, nms_threshold=0.3, top_k=100
            )
        network: cv2.FaceDetectorYN = self._local.network
        return network


def scales(height: int, width: int) -> list[float]:
    """The factors, at most 1, at which a picture of this size is searched, one after the other."""
    longest = max(height, width)
    return sorted({min(side, longest) / longest for side in LONGEST_SIDES})


def aside(points: NDArray[np.float64]) -> float:
    """How far a face is turned aside: the nose's way off the middle of the eyes, 0 in front, 0.5 at one eye."""
    right, left, nose = points[:3]
    across = left - right
    return float(abs((nose - (right + left) / 2) @ across) / max(across @ across, 1e-9))


def choose(boxes: NDArray[np.float64], width: int, height: int) -> int:
    """Which of the boxes (x, y, width, height) [n, 4] is the face of a picture: large, then central."""
    areas = boxes[:, 2] * boxes[:, 3]
    distances = np.hypot(*(boxes[:, :2] + boxes[:, 2:] / 2 - (width / 2, height / 2)).T)
    return int(np.argmin(np.where(areas >= areas.max() / 2, distances, np.inf)))


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(target: Path, url: str = MODEL_URL, expected: str = MODEL_SHA256) -> None:
    """Download a model to `target` if its SHA-256 is the expected one; otherwise nothing is left behind.

    Raises ValueError for another sum, more than `MAX_MODEL` bytes or what is no address, ConnectionError when the
    download fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        _download(url, beside)
        if beside.stat().st_size > MAX_MODEL:
            raise ValueError(
                f"{url} must be a model of at most {MAX_MODEL >> 20} MiB, but has more: give another --url"
            )
        if (received := sha256(beside)) != expected:
            raise ValueError(f"{url} must have sha256 {expected}, but has {received}: not stored, give another --url")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _download(url: str, target: Path) -> None:
    """Write what lies at an address to `target`, up to the first bytes that are too many."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as file:
            while file.tell() <= MAX_MODEL and (block := answer.read(1 << 16)):
                file.write(block)
            if file.tell() <= MAX_MODEL and (left := getattr(answer, "length", None)):  # of what was announced
                raise ConnectionError(f"it ends {left} bytes early")
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise ConnectionError(f"{url} cannot be fetched ({error!s:.200}): try again or give another --url") from error
    except ValueError as error:
        raise ValueError(f"--url must be an address such as {MODEL_URL}, but got {url!r} ({error})") from error


def no_model_message(place: Path) -> str:
    """What to do without a model at `place`: one line for the user."""
    return (
        f"no face detector in {place.parent}: run `idenctl data detector get` ({MODEL_NAME} from "
        f"{MODEL_PUBLISHER}, sha256 {MODEL_SHA256}), or give --detector FILE, --landmarks FILE (five points "
        "a picture) or --cropped (already cropped faces)"
    )
