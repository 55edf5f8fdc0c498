"""A prepared set in the making: what is done so far lies in a folder of its own and survives the process.

`faces.npy` grows at its end; its header has the same length for any number of faces and is written last.
`journal.jsonl` has a line with the fingerprint of the work, then a line a picture in the order of the work: a
reason where it was skipped, else null or the distances of its five points from the true ones. Faces reach
the disk before their lines, and what is behind the last whole line is written anew.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idennet_core import locks
from idennet_core.config import STORED_SIZE

FACES, JOURNAL = "faces.npy", "journal.jsonl"
FACE_BYTES = STORED_SIZE * STORED_SIZE
BLOCK = 1024 * FACE_BYTES  # bytes read at a time

# What became of a picture: the reason why it was skipped, or a face with or without measured distances [5].
Outcome = str | list[float] | None


class Unfinished:
    """The faces and outcomes so far, opened for appending; one process at a time has it open."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        """Open what is to become the prepared set `directory`; what was done for another fingerprint is dropped.

        Raises ValueError while another process has it open.
        """
        self.place = directory.with_name(f".{directory.name}.unfinished")
        self.place.mkdir(parents=True, exist_ok=True)
        self._journal = open(self.place / JOURNAL, "a+b", opener=_itself)  # noqa: SIM115
        if not locks.take(self._journal):
            self._journal.close()
            raise ValueError(
                f"a set is prepared once at a time, but another process is at work on {directory}: wait for it"
            )
        os.close(_itself(self.place / FACES, os.O_CREAT))
        self._faces = open(self.place / FACES, "r+b", opener=_itself)  # noqa: SIM115
        self._start = json.dumps(fingerprint).encode() + b"\n"
        self.done = self._recover()  # pictures

    def __enter__(self) -> "Unfinished":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._faces.close()  # tries again what a full disk had no room for
        finally:
            self._journal.close()

    def append(self, faces: Iterable[NDArray[np.uint8]], outcomes: Iterable[Outcome]) -> None:
        """Add what became of further pictures, and the faces [80, 80] of those that were not skipped."""
        self._faces.writelines(np.ascontiguousarray(face).data for face in faces)
        self._faces.flush()
        os.fsync(self._faces.fileno())
        self._journal.write(b"".join(json.dumps(outcome).encode() + b"\n" for outcome in outcomes))
        self._journal.flush()

    def outcomes(self) -> Iterator[Outcome]:
        """What became of every picture so far, in order."""
        with (self.place / JOURNAL).open("rb") as lines:
            next(lines)
            yield from map(json.loads, lines)

    def blocks(self) -> Iterator[bytes]:
        """The faces' pixels, some at a time."""
        with (self.place / FACES).open("rb") as faces:
            faces.seek(len(header(0)))
            while block := faces.read(BLOCK):
                yield block

    def seal(self) -> None:
        """Write the header of `faces.npy`, which makes it a readable file."""
        count = (os.fstat(self._faces.fileno()).st_size - len(header(0))) // FACE_BYTES
        self._faces.seek(0)
        self._faces.write(header(count))
        self._faces.flush()
        os.fsync(self._faces.fileno())

    def move_to(self, directory: Path) -> None:
        """Put the folder in its place, where there must be none, without the journal."""
        self.place.replace(directory)
        (directory / JOURNAL).unlink()

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.place)

    def _recover(self) -> int:
        """Cut off what is not whole, or all that is of other work; gives the number of pictures done."""
        size = os.fstat(self._faces.fileno()).st_size
        self._journal.seek(0)
        good = kept = done = 0
        if self._journal.readline() == self._start:
            good = len(self._start)
            for line in self._journal:
                is_face = not line.startswith(b'"')
                if not line.endswith(b"\n") or len(header(0)) + (kept + is_face) * FACE_BYTES > size:
                    break
                good, kept, done = good + len(line), kept + is_face, done + 1
        self._journal.truncate(good)
        if not good:
            self._journal.write(self._start)
            self._journal.flush()
        self._faces.truncate(len(header(0)) + kept * FACE_BYTES)
        self._faces.seek(0, os.SEEK_END)
        return done


def _itself(name: str | Path, flags: int) -> int:
    """Open a file, never what a link in its place leads to: what is not ours must not be cut off."""
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)


def header(count: int) -> bytes:
    """The header of `faces.npy`; NumPy leaves room in it, so that it is as long for any number of faces."""
    written = io.BytesIO()
    description: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (count, STORED_SIZE, STORED_SIZE)}
    np.lib.format.write_array_header_1_0(written, description)
    return written.getvalue()
