"""Whether what lies in a store is what was written there: checksums, read without torch.

The header of a sealed safetensors file holds the word `seal`: the CRC-32 of all before the tensors, with zeros in the
seal's place, and the CRC-32 of the tensors' bytes, 8 hex digits each. So the words of a file can be trusted by its
header alone. A trunk's `trunk.json` holds the SHA-256 of its weights and a checksum of its own.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from idennet_core.ids import content_id

SEAL, EMPTY = "seal", "0" * 16  # the word of a file that is to be sealed
BLOCK = 2**20  # bytes read at a time
_MARK = f'"{SEAL}":"'.encode()


class Damaged(ValueError):
    """A file that is not what was written: cut, changed or half-written."""


def seal(path: Path) -> None:
    """Put the checksums into a file that was saved with an `EMPTY` seal, and bring it to the disk."""
    with path.open("r+b") as file:
        head = _head(file, os.fstat(file.fileno()).st_size)
        tensors = 0
        while block := file.read(BLOCK):
            tensors = zlib.crc32(block, tensors)
        file.seek(head.index(_MARK) + len(_MARK))
        file.write(f"{zlib.crc32(head):08x}{tensors:08x}".encode())
        file.flush()
        os.fsync(file.fileno())


def words(file: IO[bytes], size: int) -> dict[str, str]:
    """The words in the header of an opened file of so many bytes. Raises `Damaged` where it is not as written."""
    return _opened(_head(file, size))[0]


def read(path: Path, unsealed: bool = False) -> tuple[bytes, dict[str, str]]:
    """A sealed file's bytes and its words. Raises FileNotFoundError; `Damaged` where any byte is not as written.

    An `unsealed` file, of before there were seals, may be taken as it is.
    """
    with path.open("rb") as file:
        head = _head(file, os.fstat(file.fileno()).st_size)
        if unsealed and _MARK not in head:
            try:
                return head + file.read(), _metadata(head)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise Damaged(f"{path} is damaged: its header is no JSON with words in it") from None
        tensors = file.read()
    try:
        found, checksum = _opened(head)
        if checksum != f"{zlib.crc32(tensors):08x}".encode():
            raise Damaged("its tensors must have the checksum in its header")
    except Damaged as damage:
        raise Damaged(f"{path} is damaged: {damage}") from None
    return head + tensors, found


def _head(file: IO[bytes], size: int) -> bytes:
    """All before the tensors, as far as the file goes: the header's length in 8 bytes, and the header."""
    length = file.read(8)
    return length + file.read(min(int.from_bytes(length, "little"), size))


def _opened(head: bytes) -> tuple[dict[str, str], bytes]:
    """The words, and the checksum that the tensors must have, in hex digits."""
    start = head.find(_MARK) + len(_MARK)
    end = start + len(EMPTY)
    found, plain = head[start:end], head[:start] + EMPTY.encode() + head[end:]
    if _MARK not in head or found[:8] != f"{zlib.crc32(plain):08x}".encode():
        raise Damaged("its header must have the checksum that it names")
    return _metadata(plain), found[8:]


def _metadata(head: bytes) -> dict[str, str]:
    metadata: dict[str, str] = json.loads(head[8:])["__metadata__"]
    return {name: value for name, value in metadata.items() if name != SEAL}


def sealed_facts(facts: Mapping[str, Any], weights: bytes) -> dict[str, Any]:
    """What `trunk.json` says of a trunk, with the checksums of the weights and of what it says."""
    whole = {**facts, "sha256": hashlib.sha256(weights).hexdigest()}
    return {**whole, "checksum": content_id(whole)}


def trunk_place(trunks: Path, trunk_id: str) -> Path:
    """The folder of a trunk. Raises ValueError for what is no id, which could lead elsewhere."""
    if not re.fullmatch("[0-9a-f]{32}", trunk_id):
        raise ValueError(f"a trunk's id is 32 hexadecimal digits, got {trunk_id!a:.60}; restore what names it")
    return trunks / trunk_id


def trunk_facts(folder: Path) -> dict[str, Any]:
    """What `trunk.json` says of a stored trunk: recipe, classes, held-out accuracy, checksums.

    Raises FileNotFoundError where there is no such folder, `Damaged` where the file is missing or not as written.
    """
    path = folder / "trunk.json"
    try:
        facts = json.loads(path.read_text())
        rest = {name: value for name, value in facts.items() if name != "checksum"}
        # a trunk of before there was a checksum has none
        whole = rest["trunk_id"] == folder.name and facts.get("checksum", content_id(rest)) == content_id(rest)
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise FileNotFoundError(f"{folder} is missing") from None
        raise Damaged(f"the trunk {folder} is half-written: it has no trunk.json") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise Damaged(f"the trunk {folder} is damaged: its trunk.json is not what was written")
    return facts  # type: ignore[no-any-return]


def is_whole(folder: Path) -> bool:
    """Whether all of a trunk is there as it was written."""
    try:
        trunk(folder)
    except (FileNotFoundError, Damaged):
        return False
    return True


def trunk(folder: Path) -> tuple[dict[str, Any], bytes]:
    """What `trunk.json` says of a stored trunk, and the bytes of its weights.

    Raises FileNotFoundError where there is no such folder, `Damaged` where the trunk is half-written or not as written.
    """
    facts, path = trunk_facts(folder), folder / "network.safetensors"
    try:
        weights = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"the trunk {folder} is half-written: it has no network.safetensors") from None
    if hashlib.sha256(weights).hexdigest() != facts.get("sha256"):
        raise Damaged(f"the trunk {folder} is damaged: its weights must have the checksum in trunk.json")
    return facts, weights
