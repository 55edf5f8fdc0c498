"""Faces that are bit for bit alike."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from idennet_core.datasets.unfinished import FACE_BYTES

DIGEST = 8  # bytes; among a million faces two are alike by chance in one of 40 million sets


def watched(blocks: Iterable[bytes], digests: bytearray) -> Iterator[bytes]:
    """The blocks of faces as they come, while a digest of each face is added to `digests`."""
    for block in blocks:
        for start in range(0, len(block), FACE_BYTES):
            digests += hashlib.blake2b(block[start : start + FACE_BYTES], digest_size=DIGEST).digest()
        yield block


def alike(digests: bytes | bytearray) -> list[tuple[int, int]]:
    """The numbers of faces with the same digest, each with the next one that has it."""
    found = np.frombuffer(digests, f"<u{DIGEST}")
    order = np.argsort(found, kind="stable")
    same = np.flatnonzero(found[order][1:] == found[order][:-1])
    return sorted((int(order[i]), int(order[i + 1])) for i in same)
