"""Pictures on their way into the network: the 14 views of a face, crops, and standardisation."""

import cv2
import numpy as np
from numpy.typing import NDArray

from idennet_core.config import CROP_SIZE, FACE_SIZE, STORED_SIZE

ANGLES = (0, -15, -10, -5, 5, 10, 15)  # degrees (paper Sec. 4.2)
MAX_OFFSET = FACE_SIZE - CROP_SIZE  # pixels a crop can move
CENTRE = MAX_OFFSET // 2

Pictures = NDArray[np.uint8]


def faces_only(stored: Pictures) -> Pictures:
    """The faces [N, 60, 60] without the margin of the stored pictures [N, 80, 80]."""
    margin = (STORED_SIZE - FACE_SIZE) // 2
    return stored[:, margin : margin + FACE_SIZE, margin : margin + FACE_SIZE]


def views(stored: Pictures) -> Pictures:
    """The 14 views of each face, [14 * N, 60, 60] from [N, 80, 80]: flip x 7 rotations (paper Sec. 4.2).

    View-major: the first N are the faces as they are. The margin keeps borders out of the rotated faces.
    """
    centre = ((STORED_SIZE - 1) / 2, (STORED_SIZE - 1) / 2)
    size = (STORED_SIZE, STORED_SIZE)
    turned = []
    for angle in ANGLES:
        matrix = cv2.getRotationMatrix2D(centre, angle, 1.0)
        turned.append(np.stack([cv2.warpAffine(face, matrix, size) for face in stored]) if angle else stored)
    upright = faces_only(np.concatenate(turned))
    return np.concatenate([upright, upright[:, :, ::-1]])


def crops(faces: Pictures, offsets: NDArray[np.integer]) -> NDArray[np.float32]:
    """Network input [B, 1, 48, 48] from faces [B, 60, 60] and the (row, column) offset of each crop, [B, 2].

    Each crop is brought to mean 0 and standard deviation 1: exposure differs between the data sets.
    """
    windows = np.lib.stride_tricks.sliding_window_view(faces, (CROP_SIZE, CROP_SIZE), (1, 2))
    cut = windows[np.arange(len(faces)), offsets[:, 0], offsets[:, 1]].astype(np.float32)
    mean = cut.mean((1, 2), keepdims=True)
    deviation = np.maximum(cut.std((1, 2), keepdims=True), 1.0)  # an even picture stays even
    standard: NDArray[np.float32] = (cut - mean) / deviation
    return standard[:, None]
