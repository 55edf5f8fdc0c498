"""The store: the folder or bucket that holds prepared data, trunks and results, and is the one source of truth.

A pack writes three Parquet files of one name under `predictions`, `curves` and, last, `trials`: the trials count as
stored from the moment the last one is in place. Nothing is overwritten: a pack that runs again writes other files,
and readers keep one row a trial. A store in a bucket is read and written in a mirror of it on this machine: `fetch`
before something is read there, `keep` after it was written; in a folder they do nothing.
"""

import json
import logging
import os
import socket
import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa

from idennet_core import sealing
from orchestrator import index, leftovers, sealed
from orchestrator.address import is_address, parsed, place
from orchestrator.bucket import Bucket
from orchestrator.rows import EMPTY, TABLES, Run, tables
from orchestrator.trial import Rungs, Setting, State, TrialResult

FORMAT = 1
FOLDERS = ("data", "trunks", "heads", "detector", "calibration", "studies", "checkpoints", *TABLES)
AT_ONCE = 500  # packs that are read together
ORDER = ("trial_id", "state", "trained_epochs", "finished_at", "pack_id")  # which row of a trial counts
log = logging.getLogger("idenctl")


class _PutTogether(Exception):
    """Packs that were listed are gone: they were put together with others."""


class Store:
    """A store in a folder, or in a bucket of which `root` is the mirror; `str` says where, as `--store` takes it."""

    def __init__(self, root: Path, bucket: Bucket | None = None) -> None:
        self.root, self.bucket = root, bucket
        self.data, self.trunks, self.heads = root / "data", root / "trunks", root / "heads"
        self.checkpoints, self.studies = root / "checkpoints", root / "studies"
        self.calibration = root / "calibration"

    def __reduce__(self) -> tuple[Any, ...]:
        """On another machine the mirror lies elsewhere."""
        return (_in_bucket, (self.bucket,)) if self.bucket else (Store, (self.root,))

    def __str__(self) -> str:
        return str(self.bucket or self.root)

    @property
    def everywhere(self) -> str:
        """The store as `--store` takes it on any machine that reaches it."""
        return str(self.bucket.everywhere if self.bucket else self.root.absolute())

    def check(self) -> "Store":
        """Raise ValueError for a store that this version cannot read; a folder that is not there yet is fine.

        Of one in a bucket, fetches what planning reads; raises for one that is not reached as `Bucket.connect` does.
        """
        if self.bucket:
            self.bucket.connect()
            self.refresh()
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(f"a store is a folder, got the file {self.root}; give another --store")
        marker = self.root / "store.json"
        if marker.is_file():
            try:
                found = json.loads(marker.read_text())["format"]
                newer = found > FORMAT
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{marker} must say the store's format, it is damaged; restore a copy of it") from None
            if newer:
                raise ValueError(
                    f"this idenctl reads stores up to format {FORMAT}, {self.root} has {found}; install a newer idenctl"
                )
        return self

    def open(self) -> "Store":
        """Make the store ready to be written; raises as `check` and `make` do."""
        return self.check().make().begin()

    def make(self) -> "Store":
        """Make the store's folder where it is missing. Raises PermissionError where it cannot be written."""
        with suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK):
            raise PermissionError(f"a store must be writable, {self.root} is not; give another --store")
        return self

    def begin(self) -> "Store":
        """Send what earlier runs could not, remove what killed writers left, and mark a new folder as a store."""
        self.send()
        leftovers.sweep(self.root)
        if not (marker := self.root / "store.json").is_file():
            write_text(marker, json.dumps({"format": FORMAT}) + "\n")
            self.keep(marker)
        return self

    def fetch(self, *parts: str) -> Path:
        """Where a file of the store lies on this machine, or would; of a bucket, fetched unless it is there."""
        if self.bucket:
            self.bucket.pull("/".join(parts))
        return self.root.joinpath(*parts)

    def fetch_all(self, *parts: str, only: str = "*") -> Path:
        """The same of a whole folder, or of the files in it that are called so."""
        if self.bucket:
            self.bucket.pull("/".join([*parts, ""]), only=(only,))
        return self.root.joinpath(*parts)

    def refresh(self) -> None:
        """Fetch the small files by which a study is planned: what there is of data, trunks, studies, measurements."""
        if self.bucket:
            self.bucket.pull("store.json", "calibration/", "studies/")
            self.bucket.pull("data/", "trunks/", only=("metadata.json", "trunk.json"))

    def keep(self, *paths: Path, once: bool = False, later: bool = False) -> None:
        """Take files or whole folders that were written in the store into its bucket; see `Bucket.push`."""
        if self.bucket:
            self.bucket.push(*paths, once=once, later=later)

    def send(self) -> None:
        """Take into the bucket what was written and could not be sent, by this run or one before it."""
        if self.bucket:
            self.bucket.send(*FOLDERS)

    def drop(self, path: Path, later: bool = False) -> None:
        """Remove a file from the store; see `Bucket.remove`."""
        if self.bucket:
            self.bucket.remove(path, later=later)
        path.unlink(missing_ok=True)

    def write_pack(self, results: Sequence[TrialResult], settings: Mapping[str, Setting], run: Run) -> None:
        """Store a pack's results: all, or none. `settings` names the setting columns, with defaults."""
        pack_id = uuid.uuid4().hex
        for name, table in tables(results, settings, run, pack_id).items():
            self.write_table(table, name, pack_id)
        self.keep(*(self.root / name / f"{pack_id}.parquet" for name in TABLES))
        self._drop_checkpoints({result.trial.trial_id: result.state for result in results})

    def trunk_facts(self) -> list[dict[str, Any]]:
        """What is known of each stored trunk; a damaged one is named in a warning and left out."""
        found = []
        for folder in sorted(self.trunks.glob("[!.]*/")):
            try:
                found.append(sealing.trunk_facts(folder))
            except sealing.Damaged as damage:
                warn_once(f"{damage}; left out, the next run of its study trains it anew")
        return found

    def trials(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The trials that are tested on their fold, one row each; those of searches are `every_trial`'s alone."""
        read = None if columns is None else [*dict.fromkeys([*columns, "without"])]
        return self.every_trial(read).filter(pl.col("without").is_null()).select(columns or pl.all())

    def every_trial(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """One row a trial, in these columns or all.

        Complete before failed before pruned, the longest curve first, then the earliest.
        """
        read = None if columns is None else [*dict.fromkeys([*columns, *ORDER])]
        return counting(self._trials(read)).select(columns or pl.all())

    def curves(self, trials: pl.DataFrame | None = None) -> pl.DataFrame:
        """The learning curves of these rows of `every_trial()`, or of all: a row a trial and epoch."""
        return self._of_stored("curves", self.every_trial() if trials is None else trials)

    def predictions(self, trials: pl.DataFrame | None = None) -> pl.DataFrame:
        """The test predictions of these rows of `trials()`, or of all: a row a trial and test frame."""
        return self._of_stored("predictions", self.trials() if trials is None else trials)

    def scores(self, trial_ids: Collection[str]) -> dict[str, tuple[State, float | None, list[float]]]:
        """Of those of these trials that are stored, by trial_id: state, score and curve.

        Both are shares, of the fold that the trial is scored by: tested, or in a search validated.
        """
        columns = ["trial_id", "pack_id", "state", "accuracy", "validation_accuracy"]
        rows = self.every_trial(columns).filter(pl.col("trial_id").is_in(list(trial_ids)))
        curves: dict[str, list[float]] = {trial_id: [] for trial_id in rows["trial_id"]}
        points = self.curves(rows).sort("trial_id", "epoch").select("trial_id", "test_accuracy")
        for trial_id, accuracy in points.iter_rows():
            curves[trial_id].append(accuracy)
        score = pl.coalesce("accuracy", "validation_accuracy")
        found = rows.select("trial_id", "state", score).iter_rows()
        return {trial_id: (state, share, curves[trial_id]) for trial_id, state, share in found}

    def states(self) -> dict[str, State]:
        """The state of every stored trial, by trial_id."""
        return dict(self.every_trial(["trial_id", "state"]).iter_rows())

    def checkpointed(self, rungs: Rungs | None = None) -> dict[str, tuple[int, Path]]:
        """By trial_id, the epoch to go on with and the file, of the furthest checkpoint a trial is in.

        One that had left its pack is in it for packs under the same rungs alone. The header says so, which is checked;
        whether the rest is whole shows when it is read.
        """
        found: dict[str, tuple[int, Path]] = {}
        for path, words in self.checkpoint_words():
            same = rungs is not None and words.get("rungs") == rungs.rungs_id
            left = [] if same else json.loads(words.get("left", "[]"))
            for trial_id in json.loads(words.get("trials", "[]")):
                epoch = int(words["epoch"])
                if trial_id not in left and epoch > found.get(trial_id, (-1, path))[0]:
                    found[trial_id] = (epoch, path)
        return found

    def checkpoint_words(self) -> list[tuple[Path, dict[str, str]]]:
        """The packs' checkpoints and what their headers say, nothing where one is damaged; of a bucket unfetched."""
        found = self.bucket.starts("checkpoints/", _words) if self.bucket else {}
        for path in () if self.bucket else self.checkpoints.glob("pack-*.safetensors"):
            with suppress(FileNotFoundError), path.open("rb") as file:
                found[path] = _words(file, os.fstat(file.fileno()).st_size)
        found = {path: found[path] for path in sorted(found) if path.match("pack-*.safetensors")}
        for path, words in found.items():
            if not words:
                warn_once(f"the checkpoint {path} is damaged (its header): left out, its trials go on from before it")
        return list(found.items())

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of packs that are stored: a driver that is killed in between leaves them."""
        self._drop_checkpoints(self.states())

    def _of_stored(self, table: str, trials: pl.DataFrame) -> pl.DataFrame:
        keys = ["trial_id", "pack_id"]
        while True:
            present = index.look(self.root, TABLES)
            lies = trials.select(*keys, at="pack_id")
            if gone := set(trials["pack_id"]) - present.marks.keys():  # put together with others since
                now = self.every_trial(keys).select("trial_id", now="pack_id")
                there = pl.when(pl.col("pack_id").is_in(gone)).then("now").fill_null(pl.col("pack_id"))
                lies = lies.join(now, "trial_id", "left").select(*keys, at=there)
            try:
                rows = self._rows_of(table, lies.select("trial_id", pack_id="at"), present)
            except _PutTogether:
                continue
            if gone:
                as_given = lies.rename({"pack_id": "given", "at": "pack_id"})
                as_given = rows.join(as_given, keys, maintain_order="left").drop("pack_id")
                rows = as_given.rename({"given": "pack_id"}).select(rows.columns)
            return rows

    def _rows_of(self, table: str, trials: pl.DataFrame, present: index.Present) -> pl.DataFrame:
        packs, keys = set(trials["pack_id"]), ["trial_id", "pack_id"]
        rows = self._read(table, packs, present)
        # mostly none: far fewer to look for than those to keep
        others = self._trials(keys).filter(pl.col("pack_id").is_in(packs)).join(trials, keys, "anti")
        return rows.join(others, keys, "anti", maintain_order="left") if others.height else rows

    def write_table(self, table: pa.Table, name: str, pack_id: str) -> None:
        """Write one of a pack's tables to the disk, then to its place."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{pack_id}.tmp"
        with beside.open("wb") as file:
            file.write(sealed.encoded(table))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(folder / f"{pack_id}.parquet")

    def _trials(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """All rows of all packs, those that ran twice too, in these columns or all; of a large store, by its index."""
        if self.bucket:
            self.bucket.pull(*(f"{name}/" for name in TABLES))
        while True:
            with suppress(_PutTogether):
                return self._looked(index.look(self.root, TABLES), columns)

    def _looked(self, present: index.Present, columns: Sequence[str] | None) -> pl.DataFrame:
        indexed = index.rows(self.root, present.indexed, columns) if present.indexed else None
        if indexed is None:
            present = index.Present(present.marks, frozenset())
        fresh = self._read("trials", present.fresh, present)
        if index.worth(present):
            whole = index.rows(self.root, present.indexed) if present.indexed else None
            index.write(self.root, _together([whole, fresh]), present)
        wanted = fresh.columns if columns is None else [name for name in columns if name in fresh.columns]
        return _together([indexed, fresh.select(wanted)])

    def _read(self, table: str, packs: Collection[str], present: index.Present) -> pl.DataFrame:
        """All rows that these packs have in a table.

        A pack with a damaged file is named in a warning and left out, in every table. Raises `_PutTogether` where one
        was put together with others meanwhile.
        """

        def of_pack(pack_id: str) -> tuple[pa.Table | None, list[Path]]:
            """The pack's rows, and which of its files are no good; those of an indexed pack were good."""
            files = {name: self.root / name / f"{pack_id}.parquet" for name in TABLES}
            checked = [table] if pack_id in present.indexed else TABLES
            rows = sealed.read(files[table])
            good = {name: sealed.is_whole(files[name]) for name in checked if name != table}
            good[table] = rows is not None
            if not all(good.values()) and not files["trials"].exists():
                raise _PutTogether
            return rows, [files[name] for name in checked if not good[name]]

        frames, wanted = [pl.DataFrame(EMPTY[table])], sorted(present.marks.keys() & packs)
        with ThreadPoolExecutor() as pool:
            # some packs at a time: thousands of small tables take several times the memory of one
            for start in range(0, len(wanted), AT_ONCE):
                alike: dict[pa.Schema, list[pa.Table]] = {}
                for rows, damaged in pool.map(of_pack, wanted[start : start + AT_ONCE]):
                    for path in damaged:
                        warn_once(f"{path} is damaged or missing: left as it is, its trials will run again")
                    if rows is not None and not damaged:
                        alike.setdefault(rows.schema, []).append(rows)
                frames += [pl.DataFrame(pa.concat_tables(tables)) for tables in alike.values()]
        return _together(frames)

    def _drop_checkpoints(self, just_stored: Mapping[str, State]) -> None:
        """Remove the checkpoints of packs of which every trial is stored now: whole, or as it left there."""
        of_packs: dict[str, dict[Path, dict[str, str]]] = {}
        for path, words in self.checkpoint_words():
            of_packs.setdefault(path.name.split(".")[0], {})[path] = words
        for found in of_packs.values():
            if any(self._ended(words, just_stored) for words in found.values()):
                for path in found:
                    self.drop(path)

    def _ended(self, words: Mapping[str, str], just_stored: Mapping[str, State]) -> bool:
        """Whether every trial of the checkpoint with these words is stored."""
        trials, left = (json.loads(words.get(name, "[]")) for name in ("trials", "left"))
        # the store itself is read for a checkpoint of packs that were formed otherwise alone
        return not just_stored.keys().isdisjoint(trials) and (
            is_over(trials, left, just_stored) or is_over(trials, left, self.states())
        )


def counting(rows: pl.DataFrame) -> pl.DataFrame:
    """Of all rows of trials, with the columns `ORDER`, the one of each trial that counts."""
    rank = pl.col("state").replace_strict({"complete": 0, "failed": 1, "pruned": 2}, return_dtype=pl.Int8)
    ordered = rows.sort(rank, -pl.col("trained_epochs"), "finished_at", "pack_id")
    return ordered.unique("trial_id", keep="first", maintain_order=True)


def at(address: str | Path) -> Store:
    """The store in this folder or bucket: DIR, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX; nothing is read yet.

    Raises ValueError for an address that names neither.
    """
    return _in_bucket(Bucket(parsed(str(address)))) if is_address(str(address)) else Store(place(str(address)))


def _in_bucket(bucket: Bucket) -> Store:
    return Store(bucket.mirror, bucket)


def is_over(trials: Sequence[str], left: Sequence[str], stored: Mapping[str, str]) -> bool:
    """Whether each of a checkpoint's trials is stored, by its states: whole, or pruned where it had `left` there."""
    return all(stored.get(name, "pruned") != "pruned" or (name in left and name in stored) for name in trials)


def _together(frames: Sequence[pl.DataFrame | None]) -> pl.DataFrame:
    return pl.concat([frame for frame in frames if frame is not None], how="diagonal_relaxed")


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file that people read, as `write_text` does."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def _words(file: IO[bytes], size: int) -> dict[str, str]:
    """What the header of a checkpoint says; nothing where it is damaged."""
    try:
        return sealing.words(file, size)
    except sealing.Damaged:
        return {}


def this_host() -> str:
    """The name of this machine, for the rows."""
    return socket.gethostname()


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Warn, unless this process has said the same before."""
    if message not in _warned:
        _warned.add(message)
        log.warning(message)
