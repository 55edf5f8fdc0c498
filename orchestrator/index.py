"""The index of a large store: the rows of its trials in one file, so that thousands need not be opened again.

It holds nothing that the packs' own files do not hold, and may be removed at any time. A pack whose files have another
size or time of change than the index names, or that it does not name, is read from its files.
"""

import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import sealed
from orchestrator.leftovers import sweep

LEAST, GROWTH = 64, 8  # packs that are worth an index, and the part of the indexed packs that is worth a new one


@dataclass(frozen=True)
class Present:
    """The packs of a store: by pack_id, the sizes and times of change of their files, and which the index holds."""

    marks: Mapping[str, str]
    indexed: frozenset[str]

    @property
    def fresh(self) -> set[str]:
        """The packs that the index does not hold as they are."""
        return self.marks.keys() - self.indexed


def look(root: Path, tables: Sequence[str]) -> Present:
    """The packs whose file in the last of these tables is in place; all of one moment, as packs may be put together."""
    while True:
        before = _time_of_change(root / tables[-1])
        found: dict[str, list[str]] = {}
        for place, table in enumerate(tables):
            for pack_id, mark in _marks(root / table):
                found.setdefault(pack_id, ["-"] * len(tables))[place] = mark
        if _time_of_change(root / tables[-1]) == before:
            break
    marks = {pack_id: " ".join(files) for pack_id, files in found.items() if files[-1] != "-"}
    try:
        named = json.loads((pq.read_schema(_path(root)).metadata or {})[b"packs"])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        named = {}
    return Present(marks, frozenset(pack_id for pack_id, mark in named.items() if marks.get(pack_id) == mark))


def _marks(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            pack_id, _, suffix = entry.name.partition(".")
            if pack_id and suffix == "parquet":
                with suppress(FileNotFoundError):
                    file = entry.stat()
                    yield pack_id, f"{file.st_size}@{file.st_mtime_ns}"


def _time_of_change(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def rows(root: Path, packs: Collection[str], columns: Sequence[str] | None = None) -> pl.DataFrame | None:
    """The indexed trials of these packs, in these columns or all.

    None where the index is damaged or gone, or where another process has put one in its place that lacks some.
    """
    read = None if columns is None else [*dict.fromkeys(["pack_id", *columns])]
    if (table := sealed.read(_path(root), read)) is None:
        return None
    found = pl.DataFrame(table).filter(pl.col("pack_id").is_in(set(packs)))
    return found if found["pack_id"].n_unique() == len(packs) else None


def worth(present: Present) -> bool:
    """Whether there is enough beyond the index for a new one: written so seldom, all of them cost a few of the last."""
    return len(present.fresh) >= max(LEAST, len(present.indexed) // GROWTH)


def write(root: Path, trials: pl.DataFrame, present: Present) -> None:
    """Index these rows, of packs that are present. A store that cannot be written keeps what it has."""
    path = _path(root)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    named = {pack_id: present.marks[pack_id] for pack_id in trials["pack_id"].unique(maintain_order=True)}
    table = trials.to_arrow(compat_level=pl.CompatLevel.oldest())
    table = table.replace_schema_metadata({"packs": json.dumps(named)})
    try:
        path.parent.mkdir(exist_ok=True)
        sweep(path.parent)
        beside.write_bytes(sealed.encoded(table))
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()


def _path(root: Path) -> Path:
    return root / "index" / "trials.parquet"
