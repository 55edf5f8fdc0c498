"""Encoded pictures: how large one is, is read from its header before anything is decoded."""

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 256 * 2**20  # of a file
MAX_PIXELS = 64_000_000  # decoded, 192 MB
UNREADABLE = "not a readable picture: empty, cut off or of another format"
PNG_MARK, JPEG_MARK = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG's SOF markers; the three others are no frames


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG picture to BGR [height, width, 3].

    Raises ValueError for one that is too large to be a data set's or cannot be read.
    """
    width, height = size_of(encoded)
    if width * height > MAX_PIXELS:
        raise ValueError(f"a picture may have {MAX_PIXELS // 10**6} megapixels, but this has {width}x{height} pixels")
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(UNREADABLE)
    return np.asarray(pixels, np.uint8)


def size_of(encoded: bytes) -> tuple[int, int]:
    """Width and height in the header of a JPEG or PNG picture. Raises ValueError where there is none."""
    try:
        if encoded.startswith(PNG_MARK):
            width, height = struct.unpack_from(">II", encoded, 16)
            return width, height
        position = 2 if encoded.startswith(JPEG_MARK) else len(encoded)
        while encoded[position] == 0xFF:
            marker = encoded[position + 1]
            if marker in FRAME_HEADERS:
                height, width = struct.unpack_from(">HH", encoded, position + 5)
                return width, height
            if marker == 0xFF:  # a fill byte
                position += 1
            else:
                position += 2 + struct.unpack_from(">H", encoded, position + 2)[0]
    except (IndexError, struct.error):
        pass
    raise ValueError(UNREADABLE)
