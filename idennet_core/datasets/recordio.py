"""RecordIO: one file of records, and an index of where each begins.

A record is a u32 magic, a u32 of 3 bits that say which part of a record this is and 29 bits of length, and the
payload, padded to 4 bytes. A payload that holds the magic was cut there, and the magic left out. Payloads of
pictures start with a header: u32 flag, f32 label, two u64 ids; flag > 0 means that `flag` f32 labels follow.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from idennet_core.datasets.pictures import MAX_BYTES

MAGIC = 0xCED7230A
FRAME, HEADER = struct.Struct("<II"), struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)  # which part of a record
CUT_OFF = "the record is cut off"
MAX_PARTS = 1000  # of a record; the magic is in a picture once in gigabytes


class RecordFile:
    """A RecordIO file, open for reading by several threads at a time; records are found by their offset."""

    def __init__(self, path: Path) -> None:
        """Open a file. Raises OSError for one that cannot be read."""
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> "RecordFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def head(self, offset: int) -> tuple[float, int]:
        """The label of the record at `offset`, the first where there are several, and its picture's length in bytes.

        Reads 36 bytes whatever the record's size; of a record in parts only the first is counted. Raises
        ValueError for what is not a whole record there.
        """
        start = self._read(offset, FRAME.size + HEADER.size + 4)
        _, length = self._frame(offset, start, (WHOLE, FIRST))
        label, before = _label(start[FRAME.size :], length)
        return label, length - before

    def picture(self, offset: int) -> bytes:
        """The encoded picture of the record at `offset`. Raises ValueError for what is not a whole record there."""
        payload = b""
        expected = (WHOLE, FIRST)
        for _ in range(MAX_PARTS):
            part, length = self._frame(offset, self._read(offset, FRAME.size), expected)
            if len(payload) + length > MAX_BYTES:
                raise ValueError(f"a record may have {MAX_BYTES >> 20} MiB, but this has more")
            payload += self._read(offset + FRAME.size, length)
            if part in (WHOLE, LAST):
                return payload[_label(payload, len(payload))[1] :]
            payload += MAGIC.to_bytes(4, "little")
            offset += FRAME.size + (length + 3) // 4 * 4
            expected = (MIDDLE, LAST)
        raise ValueError(f"a record may have {MAX_PARTS} parts, but this has more")

    def _read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset) if offset < self._size else b""

    def _frame(self, offset: int, start: bytes, expected: tuple[int, int]) -> tuple[int, int]:
        """Which part of a record starts with `start`, and its payload's length, which the file is sure to hold."""
        if len(start) < FRAME.size:
            raise ValueError(CUT_OFF)
        magic, word = FRAME.unpack_from(start)
        if magic != MAGIC:
            raise ValueError(f"no record there: it must start with the magic {MAGIC:#x}")
        part, length = word >> 29, word & (1 << 29) - 1
        if part not in expected:
            raise ValueError("the record's parts do not go together")
        if offset + FRAME.size + length > self._size:
            raise ValueError(CUT_OFF)
        return part, length


def read_index(path: Path) -> Iterator[tuple[int, int] | str]:
    """The lines `key<tab>offset` of an index file, or the reason why a line is not one.

    Raises ValueError for a file that is larger than any index.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"an index file may have {MAX_BYTES >> 20} MiB, but {path} has more")
    with path.open("rb") as file:
        while line := file.readline(64):
            key, tab, offset = line.strip().partition(b"\t")
            if tab and key.isdigit() and offset.isdigit():
                yield int(key), int(offset)
            else:
                yield "not a key, a tab and an offset"


def _label(payload: bytes, length: int) -> tuple[float, int]:
    """The first label of a payload of `length` bytes, and how many bytes precede its picture."""
    if length < HEADER.size:
        raise ValueError("the record is too short for a header")
    flag, label, _, _ = HEADER.unpack_from(payload)
    before = HEADER.size + 4 * flag
    if before > length:
        raise ValueError("the record is too short for its labels")
    return (struct.unpack_from("<f", payload, HEADER.size)[0] if flag else label), before
