"""Face detection with YuNet, whose model file is the user's: fetched from its publisher or another export."""

import contextlib
import hashlib
import threading
import urllib.error
import urllib.request
import uuid
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
LONGEST_SIDES = (320, 640, 1280)  # pixels; YuNet wants faces of about 10 to 300


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

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float64] | str:
        """The five points [5, 2] of the face in a picture, in its pixels, or the reason why there are none.

        The picture is grey or BGR. A large one is searched at 320 pixels first, and at 640 and 1280 only when
        nothing was found. Of several faces, those with at least half the area of the largest count, and the
        one nearest to the centre is taken.
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
                return np.asarray((points + 0.5) * factor - 0.5)
        return f"no face found (best score {f'{best:.1f}' if best else f'below {LOWEST_SCORE}'})"

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

    Raises ValueError for another sum, ConnectionError when the download fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, beside.open("wb") as file:
            while block := answer.read(1 << 16):
                file.write(block)
        if (received := sha256(beside)) != expected:
            raise ValueError(f"{url} must have sha256 {expected}, but has {received}: not stored, give another --url")
        beside.replace(target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(f"{url} cannot be fetched ({error}): try again or give another --url") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def no_model_message(place: Path) -> str:
    """What to do without a model at `place`: one line for the user."""
    return (
        f"no face detector in {place.parent}: run `idenctl data detector get` ({MODEL_NAME} from "
        f"{MODEL_PUBLISHER}, sha256 {MODEL_SHA256}), or give --detector FILE, --landmarks FILE (five points "
        "a picture) or --cropped (already cropped faces)"
    )
