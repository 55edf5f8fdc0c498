"""What a pack's results are as tables: the columns of trials, curves and predictions, and their rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from orchestrator.trial import Setting, TrialResult

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


EMPTY = {
    "predictions": pa.Table.from_batches([], _predictions),
    "curves": pa.Table.from_batches([], _curves),
    "trials": pa.Table.from_batches([], _trials({})),
}
TABLES = tuple(EMPTY)  # in the order in which a pack writes them
RESERVED = frozenset(_trials({}).names)  # the columns of `trials` that are no settings
CURVE = frozenset(_curves.names) - {"trial_id", "pack_id"}  # what a workload may say of an epoch


def tables(
    results: Sequence[TrialResult], settings: Mapping[str, Setting], run: Run, pack_id: str
) -> dict[str, pa.Table]:
    """The tables of a pack by name, in the order in which they are written; `settings` names the setting columns."""
    trials = [_trial_row(result, settings, run, pack_id) for result in results]
    curves = [{"trial_id": r.trial.trial_id, "pack_id": pack_id, **point} for r in results for point in r.curve]
    return {
        "predictions": pa.concat_tables([_prediction_table(result, pack_id) for result in results]),
        "curves": pa.Table.from_pylist(curves, _curves),
        "trials": pa.Table.from_pylist(trials, _trials(settings)),
    }


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
