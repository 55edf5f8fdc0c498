"""Parquet files with a checksum of all their bytes, one of pages alone would let a changed footer pass.

The checksum stands in the file's own metadata, so that it is a Parquet file like any other: 8 hex digits behind a
mark, the CRC-32 of the file with zeros in their place. A file that was written before there was one has none.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)  # the last for names in a damaged footer
_MARK, _EMPTY = b"idenctl-crc32:", b"0" * 8


def encoded(table: pa.Table) -> bytes:
    """The table as a sealed Parquet file, compressed, its pages with checksums of their own."""
    metadata = {**(table.schema.metadata or {}), b"seal": _MARK + _EMPTY}
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    content = bytearray(sink.getvalue())
    start = content.rindex(_MARK) + len(_MARK)
    content[start : start + len(_EMPTY)] = f"{zlib.crc32(content):08x}".encode()
    return bytes(content)


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """The rows of a file, in these columns or all; None where it is missing or a byte of it is not as written."""
    try:
        content = path.read_bytes()
        if not _is_whole(content):
            return None
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            return file.read(columns, use_threads=False).replace_schema_metadata(None)
    except UNREADABLE:
        return None


def is_whole(path: Path) -> bool:
    """Whether there is such a file with every byte as written; a file that has not changed is read once a process."""
    try:
        now = path.stat()
        return _was_whole(path, now.st_size, now.st_mtime_ns)
    except UNREADABLE:
        return False


@cache
def _was_whole(path: Path, size: int, changed: int) -> bool:
    """Whether the file of this size and time of change is whole. Raises OSError or ArrowException where it is not."""
    content = path.read_bytes()
    if not _is_whole(content):
        return False
    with pq.ParquetFile(pa.BufferReader(content)):  # one without a checksum may be cut off
        return True


def _is_whole(content: bytes) -> bool:
    at = content.rfind(_MARK)
    if at < 0:  # of before there was one, or changed just there
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            return b"seal" not in (file.schema_arrow.metadata or {})
    start, end = at + len(_MARK), at + len(_MARK) + len(_EMPTY)
    whole = zlib.crc32(content[end:], zlib.crc32(_EMPTY, zlib.crc32(content[:start])))
    return content[start:end] == f"{whole:08x}".encode()
