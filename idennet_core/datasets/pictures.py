"""Files of somebody else's making: read up to a limit; how large a picture is, its header says before it is decoded."""

import os
import stat
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 256 * 2**20  # of a file
MAX_PIXELS = 64_000_000  # decoded, 192 MB
UNREADABLE = "not a readable picture: empty, cut off or of another format"
PNG_MARK, JPEG_MARK = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff"
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG's SOF markers; the three others are no frames
BARE = {0x01, *range(0xD0, 0xDA)}  # markers that no length follows, or the first scan: none belongs before a frame


def read_file(path: Path, limit: int = MAX_BYTES, what: str = "a picture's file") -> bytes:
    """All bytes of a file of at most `limit` bytes.

    Raises OSError, and ValueError for a larger file and for a pipe, a socket or a device, which may never end.
    """
    with open(path, "rb", opener=_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{what} must be a file, but this is a pipe, a socket or a device")
        if status.st_size > limit:
            raise ValueError(f"{what} may have {_size(limit)}, but this has more")
        return file.read(status.st_size)


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG picture to BGR [height, width, 3].

    Raises ValueError for one that is too large to be a data set's or cannot be read.
    """
    width, height = size_of(encoded)
    check_size(width, height)
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(UNREADABLE)
    return np.asarray(pixels, np.uint8)


def check_size(width: int, height: int, what: str = "a picture") -> None:
    """Raise ValueError for more pixels than are decoded."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{what} may have {MAX_PIXELS // 10**6} megapixels, but this has {width}x{height} pixels")


def size_of(encoded: bytes) -> tuple[int, int]:
    """Width and height in the header of a JPEG or PNG picture. Raises ValueError where there is none."""
    try:
        if encoded.startswith(PNG_MARK):
            width, height = struct.unpack_from(">II", encoded, 16)
            return width, height
        position = 2 if encoded.startswith(JPEG_MARK) else len(encoded)
        while encoded[position] == 0xFF and (marker := encoded[position + 1]) not in BARE:
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


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >> 20 else f"{count >> 10} KiB"
