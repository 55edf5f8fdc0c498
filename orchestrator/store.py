"""The store: the folder that holds prepared data, trunks and results, and is the one source of truth.

A pack writes three Parquet files of one name under `predictions`, `curves` and, last, `trials`: the trials count as
stored from the moment the last one is in place. Nothing is overwritten: a pack that runs again writes other files,
and readers keep one row a trial.
"""

import json
import logging
import os
import socket
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from idennet_core import sealing
from orchestrator import index
from orchestrator.trial import Rungs, Setting, State, TrialResult

FORMAT = 1
TABLES = ("predictions", "curves", "trials")  # in the order in which a pack writes them
log = logging.getLogger("idenctl")

_time = pa.timestamp("us", tz="UTC")
_types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
_curves = pa.schema(
    [("trial_id", pa.string()), ("pack_id", pa.string()), ("epoch", pa.int64())]
    + [(name, pa.float64()) for name in ("lr", "loss", "emotion_loss", "identity_loss")]
    + [(name, pa.float64()) for name in ("train_accuracy", "test_accuracy")]
)
_predictions = pa.schema(
    [(name, pa.string()) for name in ("trial_id", "pack_id", "subject", "sequence", "frame", "label")]
    + [("probabilities", pa.list_(pa.float32())), ("classes", pa.list_(pa.string()))]
)


@dataclass(frozen=True)
class Run:
    """Where and when a pack ran."""

    device: str
    host: str
    started_at: datetime
    finished_at: datetime
    version: str


def _trials(settings: Mapping[str, Setting]) -> pa.Schema:
    """The columns of `trials`; a setting's type is that of its default."""
    text, number = pa.string(), pa.float64()
    return pa.schema(
        [(name, text) for name in ("trial_id", "configuration_id", "data_id", "dataset")]
        + [("synthetic", pa.bool_()), ("trunk_ids", pa.list_(text))]
        + [(name, _types[type(default)]) for name, default in settings.items()]
        + [(name, pa.int64()) for name in ("fold", "without", "seed")]
        + [("state", text), ("reason", text)]
        + [("trained_epochs", pa.int64())]
        + [(name, number) for name in ("accuracy", "sequence_accuracy", "validation_accuracy")]
        + [("n_train", pa.int64()), ("n_test", pa.int64()), ("seconds", number)]
        + [(name, text) for name in ("pack_id", "device", "host")]
        + [("started_at", _time), ("finished_at", _time), ("version", text)]
    )


AT_ONCE = 500  # packs that are read together
ORDER = ("trial_id", "state", "trained_epochs", "finished_at", "pack_id")  # which row of a trial counts
RESERVED = frozenset(_trials({}).names)  # the columns of `trials` that are no settings
CURVE = frozenset(_curves.names) - {"trial_id", "pack_id"}  # what a workload may say of an epoch


class Store:
    """A store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data, self.trunks, self.heads = root / "data", root / "trunks", root / "heads"
        self.checkpoints, self.studies = root / "checkpoints", root / "studies"
        self.calibration = root / "calibration"

    def check(self) -> "Store":
        """Raise ValueError for a store that this version cannot read; a folder that is not there yet is fine."""
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(f"a store is a folder, got the file {self.root}; give another --store")
        marker = self.root / "store.json"
        if marker.is_file():
            try:
                found = json.loads(marker.read_text())["format"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{marker} must say the store's format, but it is damaged; restore it from a copy"
                ) from None
            if found > FORMAT:
                raise ValueError(
                    f"this idenctl reads stores up to format {FORMAT}, {self.root} has {found}; install a newer idenctl"
                )
        return self

    def open(self) -> "Store":
        """Make the store's folder where it is missing. Raises PermissionError where it cannot be written."""
        self.check()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            marker = self.root / "store.json"
            if not marker.is_file():
                write_text(marker, json.dumps({"format": FORMAT}) + "\n")
            if not os.access(self.root, os.W_OK):
                raise OSError
        except OSError:
            raise PermissionError(f"a store must be writable, {self.root} is not; give another --store") from None
        return self

    def write_pack(self, results: Sequence[TrialResult], settings: Mapping[str, Setting], run: Run) -> None:
        """Store a pack's results: all, or none. `settings` names the setting columns, with defaults."""
        pack_id = uuid.uuid4().hex
        trials = [_trial_row(result, settings, run, pack_id) for result in results]
        curves = [{"trial_id": r.trial.trial_id, "pack_id": pack_id, **point} for r in results for point in r.curve]
        predictions = pa.concat_tables([_prediction_table(r, pack_id) for r in results])
        self._write(predictions, "predictions", pack_id)
        self._write(pa.Table.from_pylist(curves, _curves), "curves", pack_id)
        self._write(pa.Table.from_pylist(trials, _trials(settings)), "trials", pack_id)
        self._drop_checkpoints({result.trial.trial_id: result.state for result in results})

    def trials(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The trials that are tested on their fold, one row each; those of searches are `every_trial`'s alone."""
        read = None if columns is None else [*dict.fromkeys([*columns, "without"])]
        return self.every_trial(read).filter(pl.col("without").is_null()).select(columns or pl.all())

    def every_trial(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """One row a trial, in these columns or all.

        Complete before failed before pruned, the longest curve first, then the earliest.
        """
        read = None if columns is None else [*dict.fromkeys([*columns, *ORDER])]
        rank = pl.col("state").replace_strict({"complete": 0, "failed": 1, "pruned": 2}, return_dtype=pl.Int8)
        rows = self._trials(read).sort(rank, -pl.col("trained_epochs"), "finished_at", "pack_id")
        return rows.unique("trial_id", keep="first", maintain_order=True).select(columns or pl.all())

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
        for path in sorted(self.checkpoints.glob("pack-*.safetensors")):
            metadata = checkpoint_words(path)
            same = rungs is not None and metadata.get("rungs") == rungs.rungs_id
            left = [] if same else json.loads(metadata.get("left", "[]"))
            for trial_id in json.loads(metadata.get("trials", "[]")):
                epoch = int(metadata["epoch"])
                if trial_id not in left and epoch > found.get(trial_id, (-1, path))[0]:
                    found[trial_id] = (epoch, path)
        return found

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of packs that are stored: a driver that is killed in between leaves them."""
        self._drop_checkpoints(self.states())

    def _of_stored(self, table: str, trials: pl.DataFrame) -> pl.DataFrame:
        packs, keys = set(trials["pack_id"]), ["trial_id", "pack_id"]
        rows = self._read(table, packs, index.look(self.root, TABLES))
        # mostly none: far fewer to look for than those to keep
        others = self._trials(keys).filter(pl.col("pack_id").is_in(packs)).join(trials, keys, "anti")
        return rows.join(others, keys, "anti", maintain_order="left") if others.height else rows

    def _write(self, table: pa.Table, name: str, pack_id: str) -> None:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{pack_id}.tmp"
        pq.write_table(table, beside, compression="zstd", write_page_checksum=True)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(folder / f"{pack_id}.parquet")

    def _trials(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """All rows of all packs, those that ran twice too, in these columns or all; of a large store, by its index."""
        present = index.look(self.root, TABLES)
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

        A pack with a damaged file is named in a warning and left out, in every table.
        """

        def load(pack_id: str) -> tuple[pa.Table | None, list[Path]]:
            """The pack's rows, and which of its files are no good; those of an indexed pack were good."""
            files = {name: self.root / name / f"{pack_id}.parquet" for name in TABLES}
            checked = [table] if pack_id in present.indexed else TABLES
            found = {name: _load(files[name], whole=name == table) for name in checked}
            return found[table], [files[name] for name in checked if found[name] is None]

        schema = {"trials": _trials({}), "curves": _curves, "predictions": _predictions}[table]
        frames, wanted = [pl.DataFrame(schema.empty_table())], sorted(present.marks.keys() & packs)
        with ThreadPoolExecutor() as pool:
            # some packs at a time: thousands of small tables take several times the memory of one
            for start in range(0, len(wanted), AT_ONCE):
                alike: dict[pa.Schema, list[pa.Table]] = {}
                for rows, damaged in pool.map(load, wanted[start : start + AT_ONCE]):
                    for path in damaged:
                        warn_once(f"{path} is damaged or missing: left as it is, its trials will run again")
                    if rows is not None and not damaged:
                        alike.setdefault(rows.schema, []).append(rows)
                frames += [pl.DataFrame(pa.concat_tables(tables)) for tables in alike.values()]
        return _together(frames)

    def _drop_checkpoints(self, just_stored: Mapping[str, State]) -> None:
        """Remove the checkpoints of packs of which every trial is stored now: whole, or as it left there."""
        of_packs: dict[str, list[Path]] = {}
        for path in self.checkpoints.glob("pack-*.safetensors"):
            of_packs.setdefault(path.name.split(".")[0], []).append(path)
        for paths in of_packs.values():
            if any(self._is_over(checkpoint_words(path), just_stored) for path in paths):
                for path in paths:
                    path.unlink(missing_ok=True)

    def _is_over(self, words: Mapping[str, str], just_stored: Mapping[str, State]) -> bool:
        """Whether every trial of the checkpoint with these words is stored."""
        trials, left = (json.loads(words.get(name, "[]")) for name in ("trials", "left"))
        # the store itself is read for a checkpoint of packs that were formed otherwise alone
        return not just_stored.keys().isdisjoint(trials) and (
            _over(trials, left, just_stored) or _over(trials, left, self.states())
        )


def _over(trials: Sequence[str], left: Sequence[str], stored: Mapping[str, State]) -> bool:
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


def checkpoint_words(path: Path) -> dict[str, str]:
    """What a checkpoint's header says; empty for one that is gone, or damaged, which is said in a warning."""
    try:
        return sealing.words(path)
    except FileNotFoundError:
        return {}
    except sealing.Damaged as damage:
        warn_once(f"{damage}; left out, its trials go on from before it")
        return {}


def this_host() -> str:
    """The name of this machine, for the rows."""
    return socket.gethostname()


def _trial_row(result: TrialResult, settings: Iterable[str], run: Run, pack_id: str) -> dict[str, Any]:
    configuration, tested = result.trial.configuration, result.trial.without is None
    return {
        "trial_id": result.trial.trial_id,
        "configuration_id": configuration.configuration_id,
        "data_id": configuration.inputs.get("data"),
        "dataset": configuration.settings.get("dataset"),
        "synthetic": result.synthetic,
        "trunk_ids": [value for name, value in configuration.inputs.items() if name.startswith("trunk")],
        **{name: configuration.settings.get(name) for name in settings},
        "fold": result.trial.fold,
        "without": result.trial.without,
        "seed": result.trial.seed,
        "state": result.state,
        "reason": result.reason,
        "trained_epochs": result.epochs,
        "accuracy": result.accuracy if tested else None,
        "sequence_accuracy": result.sequence_accuracy if tested else None,
        "validation_accuracy": None if tested else result.accuracy,
        "n_train": result.n_train,
        "n_test": result.n_test,
        "seconds": result.seconds,
        "pack_id": pack_id,
        "device": run.device,
        "host": run.host,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "version": run.version,
    }


def _prediction_table(result: TrialResult, pack_id: str) -> pa.Table:
    found = result.predictions
    if found is None or result.trial.without is not None:  # a validation fold is not tested
        return _predictions.empty_table()
    count, width = found.probabilities.shape
    offsets = pa.array(range(0, count * width + 1, width), pa.int32())
    columns = {
        "trial_id": [result.trial.trial_id] * count,
        "pack_id": [pack_id] * count,
        "subject": list(found.subject),
        "sequence": list(found.sequence),
        "frame": list(found.frame),
        "label": list(found.label),
        "probabilities": pa.ListArray.from_arrays(offsets, pa.array(found.probabilities.ravel())),
        "classes": [list(found.classes)] * count,
    }
    return pa.table(columns, _predictions)


def _load(path: Path, whole: bool) -> pa.Table | None:
    """The file's rows, none of them where only its footer is asked for; None where it is damaged or missing."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(use_threads=False) if whole else file.schema_arrow.empty_table()
    except (OSError, pa.ArrowException):
        return None


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Warn, unless this process has said the same before."""
    if message not in _warned:
        _warned.add(message)
        log.warning(message)
