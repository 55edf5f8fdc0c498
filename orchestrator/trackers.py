"""What TensorBoard and MLflow are told of a running study, by Ray Tune's own callbacks.

Tune calls such callbacks once a Tune trial, which is a pack here; whoever looks at curves wants those of trials. So
they are called by what packs tell, trial by trial, with both engines. What earlier runs have trained is not told again.
"""

import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import tune_engine  # noqa: F401  # sets what Ray reads when it is imported

# isort: split
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.logger import TBXLoggerCallback

from orchestrator.progress import Asked, Event, PackDone, PackFailed, PackStarted, PackStopped, Progress, TrialFailed
from orchestrator.runner import Plan
from orchestrator.sections import masked
from orchestrator.trial import Trial

log = logging.getLogger("idenctl")
EPOCH = "training_iteration"  # what Tune calls the step of a curve


@dataclass(frozen=True, eq=False)
class Shown:
    """A trial as Tune's callbacks look at one: its name, what it was configured with, a folder."""

    name: str
    config: Mapping[str, Any]
    local_path: str

    def __str__(self) -> str:
        return self.name

    @property
    def evaluated_params(self) -> Mapping[str, Any]:
        """What TensorBoard calls hyperparameters."""
        return self.config

    def init_local_path(self) -> None:
        """Make the folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


class Tracker:
    """Tells one of Tune's callbacks what packs tell, as far as it belongs to single trials."""

    def __init__(self, kind: str, callback: Any, folder: Path, planned: Plan, cells: Mapping[str, str]) -> None:
        """`kind` is its name for people; `cells` names the cell of each trial of the plan."""
        self.kind, self.callback, self.folder = kind, callback, folder
        self.trials = {trial.trial_id: trial for trial in planned.trials}
        self.cells = dict(cells)
        self.running: dict[str, Shown] = {}  # by trial_id
        self.packs: dict[str, Collection[str]] = {}
        self.works = True

    def __call__(self, event: Event) -> None:
        """Tell it; one that fails is told nothing more, and the study goes on."""
        self._guarded(lambda: self._tell(event))

    def close(self) -> None:
        """End what is still running, as of a study that was stopped."""
        self._guarded(lambda: self._end(list(self.running), failed=False))

    def _guarded(self, action: Callable[[], None]) -> None:
        if not self.works:
            return
        try:
            action()
        except Exception as error:
            self.works = False
            log.warning(f"{self.kind} is told nothing more, the study goes on: {type(error).__name__}: {error}")

    def _tell(self, event: Event) -> None:
        if isinstance(event, Asked):
            self.trials |= event.trials
            self.cells |= event.cells
        elif isinstance(event, PackStarted):
            self.packs[event.pack_id] = event.trial_ids
            for trial_id in event.trial_ids:
                if trial_id not in self.running:  # a pack that is cut starts again in halves
                    self.running[trial_id] = self._shown(self.trials[trial_id])
                    self.callback.log_trial_start(self.running[trial_id])
        elif isinstance(event, Progress):
            for trial_id, point in event.points.items():
                self._point(trial_id, {**point, EPOCH: point["epoch"] + 1})
            self._end(event.failed, failed=True)
            self._end(event.pruned, failed=False)
        elif isinstance(event, PackDone):
            for trial_id, accuracy in event.accuracies.items():
                self._point(trial_id, {"accuracy": accuracy, EPOCH: self._epochs(trial_id)})
            self._end(event.failed, failed=True)
            self._end(self.packs.pop(event.pack_id, ()), failed=False)
        elif isinstance(event, PackFailed | PackStopped):
            self._end(self.packs.pop(event.pack_id, ()), failed=isinstance(event, PackFailed))
        elif isinstance(event, TrialFailed):
            self._end(event.failed, failed=True)

    def _point(self, trial_id: str, values: Mapping[str, Any]) -> None:
        if shown := self.running.get(trial_id):
            told = {name: value for name, value in values.items() if name != "epoch" and not math.isnan(value)}
            self.callback.log_trial_result(0, shown, told)

    def _end(self, trial_ids: Collection[str], failed: bool) -> None:
        for trial_id in trial_ids:
            if shown := self.running.pop(trial_id, None):
                self.callback.log_trial_end(shown, failed=failed)

    def _epochs(self, trial_id: str) -> int:
        """The step of what is known at a trial's end."""
        return int(self.trials[trial_id].configuration.settings.get("epochs", 1))

    def _shown(self, trial: Trial) -> Shown:
        held = {"fold": trial.fold, "seed": trial.seed, "without": trial.without}
        held = {name: value for name, value in held.items() if value is not None}
        cell = re.sub(r"[^\w=.,+-]+", "_", self.cells[trial.trial_id])
        places = ",".join(f"{name}={value}" for name, value in held.items())
        name = f"{cell}/{places},{trial.trial_id[:8]}"
        return Shown(name, {**trial.configuration.settings, **held}, str(self.folder / name))


@contextmanager
def tracked(
    planned: Plan, cells: Mapping[str, str], tensorboard: Path | None, mlflow: str | None
) -> Iterator[Callable[[Event], None]]:
    """Give what tells the events of a run to TensorBoard's files in a folder, and to MLflow at a tracking address.

    Raises ValueError where a package is missing, or where MLflow refuses the address.
    """
    name = planned.study.folder
    trackers = []
    if tensorboard:
        writer: Any = TBXLoggerCallback  # without types
        trackers.append(Tracker("TensorBoard", writer(), tensorboard / name, planned, cells))
    if mlflow:
        trackers.append(Tracker("MLflow", _mlflow(mlflow, planned), Path(), planned, cells))

    def tell(event: Event) -> None:
        for tracker in trackers:
            tracker(event)

    try:
        yield tell
    finally:
        for tracker in trackers:
            tracker.close()


def _mlflow(address: str, planned: Plan) -> Any:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seven take minutes, in which packs would wait
    tags = {"study": planned.study.folder, "synthetic": str(planned.synthetic).lower()}
    try:
        callback: Any = MLflowLoggerCallback(address, experiment_name=planned.study.folder, tags=tags)
        callback.setup()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--mlflow needs mlflow, but {error.name} is not installed; pip install 'idenctl[mlflow]'"
        ) from None
    except Exception as error:
        said = masked(f"{address} does not: {error}")
        raise ValueError(f"--mlflow must be a tracking address that answers, {said}; give another") from error
    return callback
