"""A store made smaller: what nothing refers to is found and removed, small packs and superseded rows become one pack.

For whoever holds the store alone (`record.alone`); readers may read on, and lose nothing. Of a bucket that says
nothing of other machines: there age alone speaks for what may go.
"""

import json
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from idennet_core import locks, sealing
from idennet_core.ids import content_id
from orchestrator import index, sealed
from orchestrator.frozen import read_plan
from orchestrator.leftovers import changed, half_written, remove
from orchestrator.record import search_of
from orchestrator.rows import TABLES
from orchestrator.store import ORDER, Store, counting, is_over
from orchestrator.trunks import id_of

MOST = 2000  # trials of a pack that is made of others
PAUSE = 0.1  # seconds in which who has begun to list the packs sees the new one, before the old ones go
HALF_WRITTEN = 3600.0  # seconds without a change, while no study runs
ANY = float("-inf")  # age
MIRRORED = ("data", "trunks", "heads", "checkpoints")  # as needed; all else is brought up to date by who reads it
Things = Mapping[Path, tuple[int, float]]  # bytes, and when changed, in seconds since 1970


@dataclass(frozen=True)
class Leftover:
    """Something in a store that may go, and why; `here` is this machine, of a bucket its mirror."""

    kind: str
    path: Path
    why: str
    bytes: int
    changed: float  # seconds since 1970
    here: bool


def leftovers(store: Store, age: float) -> list[Leftover]:
    """What nothing in the store refers to and nobody changed for so many seconds, and checkpoints of what is stored.

    In a bucket no lock shows who is at work, so nothing is found there that is younger, whatever it is.
    """
    studies = {path.parent: read_plan(path) for path in sorted(store.studies.glob("*/plan.json"))}
    plans, searching = list(studies.values()), any(map(_is_unfinished_search, studies, studies.values()))
    checkpoints, stored_trunks = _things(store, "checkpoints", "[!.]*"), _things(store, "trunks", "[!.]*")
    heads = _things(store, "heads", "[!.]*.safetensors")
    tables = {name: _things(store, name, "[!.]*.parquet") for name in TABLES}
    rows = store.every_trial(["trial_id", "state", "trunk_ids"])
    states = dict(rows.select("trial_id", "state").iter_rows())
    cells = [cell for plan in plans for cell in plan["cells"]]
    trunks = {value for cell in cells for name, value in cell.get("inputs", {}).items() if name.startswith("trunk_")}
    trunks |= set(rows["trunk_ids"].explode().drop_nulls())
    wanted = None if searching else {trial_id for plan in plans for trial_id in _trial_ids(plan)}
    here, found = not store.bucket, list[Leftover]()
    for path, why, least in _checkpoints(store, checkpoints, states, wanted, trunks, age):
        found += _old("checkpoint", {path: checkpoints[path]}, why, here, least)
    if not searching:
        why = "no stored trial and no study refers to it"
        found += _old("trunk", stored_trunks, why, here, age, trunks)
    found += _old("head", heads, "its trial is not stored", here, age, states)
    packs = {path.stem for path in tables[TABLES[-1]]}
    for name in TABLES[:-1]:
        least = HALF_WRITTEN if here else age
        found += _old(name, tables[name], "its pack was not stored to the end", here, least, packs)
    unfinished = [path for path in store.data.glob(".*.unfinished") if not _is_held(path / "journal.jsonl")]
    found += _old("data", _on_disk(unfinished), "a preparation that was not finished", True, age)
    found += _old("half-written", _on_disk(half_written(store.root, HALF_WRITTEN)), "its writer was killed", True, ANY)
    if store.bucket:
        found += _old("half-written", store.bucket.things(".incoming"), "its writer was killed", False, age)
        for name in MIRRORED:
            gone = _on_disk(store.bucket.gone(name))
            found += _old("copy", gone, "the bucket no longer has it", True, ANY)
    return found


def clear(store: Store, found: Sequence[Leftover], age: float) -> list[Leftover]:
    """Remove what was found, of a bucket what is found again: somebody may have begun to use it. Gives what went."""
    if store.bucket:
        store.refresh()
        again = {(each.path, each.here) for each in leftovers(store, age)}
        found = [each for each in found if (each.path, each.here) in again]
    for each in found:
        if store.bucket and not each.here:
            store.bucket.clear(each.path)
        remove(each.path)
    return list(found)


def _things(store: Store, name: str, only: str) -> Things:
    if store.bucket:
        return store.bucket.things(name, only)
    return _on_disk(sorted((store.root / name).glob(only)))


def _on_disk(paths: Iterable[Path]) -> Things:
    found = {}
    for path in paths:
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        with suppress(FileNotFoundError):  # gone meanwhile
            found[path] = sum(file.lstat().st_size for file in files if not file.is_dir()), changed(path)
    return found


def _old(kind: str, things: Things, why: str, here: bool, age: float, used: Collection[str] = ()) -> Iterator[Leftover]:
    """Those of the things that are older, and not used by their name without its suffix."""
    for path, (size, when) in things.items():
        if path.stem not in used and time.time() - when > age:
            yield Leftover(kind, path, why, size, when, here)


def _checkpoints(
    store: Store,
    things: Things,
    states: Mapping[str, str],
    wanted: Set[str] | None,
    trunks: Collection[str],
    age: float,
) -> Iterator[tuple[Path, str, float]]:
    """The checkpoints of what is stored, and those that nobody has a use for: why, and from which age on they go.

    `wanted` are the trials of all studies, None where a search that is not over may ask for any.
    """
    at_once = age if store.bucket else ANY
    for path, words in store.checkpoint_words():
        trials = json.loads(words.get("trials", "[]"))
        if path not in things:  # written since
            continue
        if trials and is_over(trials, json.loads(words.get("left", "[]")), states):
            yield path, "its trials are all stored", at_once
        elif not words:
            yield path, "damaged, or of an older idenctl", age
        elif wanted is not None and wanted.isdisjoint(trials):
            yield path, "no study refers to its trials", age
    for path in (path for path in things if path.match("trunk-*.safetensors")):
        if sealing.is_whole(store.fetch_all("trunks", id_of(path))):
            yield path, "its trunk is stored", at_once
        elif wanted is not None and id_of(path) not in trunks:
            yield path, "no study refers to its trunk", age


def _is_unfinished_search(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether a stored study is a search that will ask for more, of which no plan says what."""
    if not plan.get("search"):
        return False
    found = search_of(folder)
    return not plan["cells"] or found is None or found["done"] < found["asked"]


def _trial_ids(plan: Mapping[str, Any]) -> Iterator[str]:
    for cell in plan["cells"]:
        for fold in plan["folds"]:
            for seed in plan["seeds"]:
                yield content_id([cell["configuration_id"], fold, seed])


def _is_held(path: Path) -> bool:
    """Whether another process holds the lock of this file."""
    try:
        with path.open("rb") as file:
            return not locks.take(file, shared=True)
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Compacted:
    """What became of a store's packs; bytes of their files."""

    packs_before: int
    packs_after: int
    rows_removed: int  # of trials: those that another row of the same trial supersedes
    bytes_before: int
    bytes_after: int


def compact(store: Store) -> Compacted:
    """Put the rows of trials that count into few packs, and remove the packs that these come from.

    A pack with a damaged file stays as it is, and what others hold of its trials stays with them. The new pack counts
    from the moment its last file is in place, the old ones go after that, the last file of each first: killed at any
    moment, each trial has one row that counts or two equal ones, of which readers keep one.
    """
    packs, before = sorted(index.look(store.root, TABLES).marks), _files(store)
    read = {pack_id: _whole(store, pack_id) for pack_id in packs}
    rows = {pack_id: found for pack_id, found in read.items() if found is not None}
    if not rows:
        return Compacted(len(packs), len(packs), 0, before, before)
    counted = counting(pl.concat(rows.values()))
    kept = {pack_id: counted.filter(pack_id=pack_id)["trial_id"].to_list() for pack_id in rows}
    superseded = {pack_id for pack_id, trials in kept.items() if len(trials) < rows[pack_id].height}
    groups = _groups({pack_id: len(trials) for pack_id, trials in kept.items()}, superseded)
    for group in groups:
        _put_together(store, {pack_id: kept[pack_id] for pack_id in group})
    removed = sum(rows[pack_id].height - len(kept[pack_id]) for group in groups for pack_id in group)
    return Compacted(len(packs), len(index.look(store.root, TABLES).marks), removed, before, _files(store))


def _whole(store: Store, pack_id: str) -> pl.DataFrame | None:
    """What decides which rows of a pack count; None where one of its files is damaged."""
    *others, trials = (sealed.read(store.root / name / f"{pack_id}.parquet") for name in TABLES)
    if trials is None or any(table is None for table in others):
        return None
    return pl.DataFrame(trials.select(ORDER))


def _groups(sizes: Mapping[str, int], superseded: Collection[str]) -> list[list[str]]:
    """Which packs to put together, of up to `MOST` trials each; one alone only to remove what is superseded."""
    groups: list[list[str]] = [[]]
    for pack_id, size in sizes.items():
        if groups[-1] and sum(sizes[other] for other in groups[-1]) + size > MOST:
            groups.append([])
        groups[-1].append(pack_id)
    return [group for group in groups if len(group) > 1 or not set(group).isdisjoint(superseded)]


def _put_together(store: Store, kept: Mapping[str, Collection[str]]) -> None:
    """Make one pack of these trials of these packs, then remove the packs."""
    new = uuid.uuid4().hex
    for name in TABLES if any(kept.values()) else ():
        parts = []
        for pack_id, trials in kept.items():
            found = _table(store, name, pack_id)
            parts.append(found.filter(pc.is_in(found["trial_id"], pa.array(trials, pa.string()))))
        whole = pa.concat_tables(parts, promote_options="permissive")
        place = whole.schema.get_field_index("pack_id")
        whole = whole.set_column(place, "pack_id", pa.repeat(new, whole.num_rows))
        store.write_table(whole, name, new)
        if not pl.DataFrame(whole).equals(pl.DataFrame(_table(store, name, new))):
            raise OSError(f"{store.root / name / new}.parquet is not what was written; nothing was removed")
    time.sleep(PAUSE)
    for name in reversed(TABLES):
        for pack_id in kept:
            (store.root / name / f"{pack_id}.parquet").unlink(missing_ok=True)


def _table(store: Store, name: str, pack_id: str) -> pa.Table:
    path = store.root / name / f"{pack_id}.parquet"
    if (found := sealed.read(path)) is None:
        raise OSError(f"{path} became unreadable; nothing was removed")
    return found


def _files(store: Store) -> int:
    return sum(path.stat().st_size for name in TABLES for path in (store.root / name).glob("[!.]*.parquet"))
