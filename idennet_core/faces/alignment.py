"""Alignment: a similarity brings five points of a face to fixed places, so that all faces lie alike.

The five points, here and in files, are (x, y) in pixels of the right eye, the left eye, the nose tip, the
right and the left mouth corner; "right" is the subject's.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from idennet_core.config import FACE_SIZE, STORED_SIZE

MARGIN = (STORED_SIZE - FACE_SIZE) // 2  # pixels on each side of the face
CLOSEST_EYES = 2  # pixels; a face of the smallest size that is detected has four
# ArcFace's template for a 112x112 face, in its pixels.
TEMPLATE_112 = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
TEMPLATE = TEMPLATE_112 * (FACE_SIZE / 112) + MARGIN  # in pixels of a stored face


def similarity(points: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rotation, scale and shift [2, 3] that bring `points` [n, 2] closest to `targets` [n, 2].

    Closest in least squares: Umeyama's problem (1991), in the plane a line fit over complex numbers,
    target = a * point + b. Raises ValueError when the points coincide.
    """
    z, w = (np.asarray(p, np.float64) @ (1, 1j) for p in (points, targets))
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if not spread > 0:
        raise ValueError("the five points coincide or are not finite")
    a = np.vdot(centred, w - w.mean()) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(image: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The face as stored: grey uint8 [80, 80] with the five points [5, 2] of `image` on the template.

    `image` is grey or BGR. A shrinking warp is sampled more finely and averaged down, so that it does not
    alias. What lies outside the picture repeats its border. Raises ValueError when the points coincide, or are not
    the pixels of a face in this picture.
    """
    matrix = similarity(points, TEMPLATE)
    x, y = np.mean(points, axis=0)
    if not (0 <= x < image.shape[1] and 0 <= y < image.shape[0]):
        raise ValueError("the five points lie outside the picture: they must be in its pixels")
    if math.dist(points[0], points[1]) < CLOSEST_EYES:
        raise ValueError(
            f"the eyes lie less than {CLOSEST_EYES} pixels apart: the points must be in pixels, not shares"
        )
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    fine = math.ceil(max(1.0, 1 / scale))  # samples a stored pixel, in each direction
    matrix *= fine
    matrix[:, 2] += (fine - 1) / 2  # the centre of a stored pixel is the centre of its samples
    side = STORED_SIZE * fine
    warped = cv2.warpAffine(grey(image), matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(warped, (STORED_SIZE,) * 2, interpolation=cv2.INTER_AREA), np.uint8)


def pad_cropped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A cropped face as stored, grey uint8 [80, 80]: resized to 60x60, its border repeated around."""
    shrinks = min(image.shape[:2]) > FACE_SIZE
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    face = cv2.resize(grey(image), (FACE_SIZE, FACE_SIZE), interpolation=interpolation)
    return np.pad(face, MARGIN, mode="edge")


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey uint8 [height, width] of a grey or BGR picture."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
