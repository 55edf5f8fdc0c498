"""A search in an Optuna database, for dashboards: written from the store alone, by a thread that holds up nothing.

A search is an Optuna study, and the nested one of each outer fold another. A configuration is a trial: its number is
its place among those asked, so writing again finds what is there and never adds it twice. Nothing is read back.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from statistics import fmean
from threading import Event, Thread
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.search.packs import SearchPacks
from orchestrator.search.procedure import Procedure, Results
from orchestrator.search.space import ACCURACY
from orchestrator.sections import IN_VARIABLE, masked
from orchestrator.trial import Trial

LIMIT = 10.0  # seconds that the end of a run waits for the database
CONNECT = 5  # seconds to connect in
STATEMENT = 20_000  # milliseconds for one statement
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
METRIC_NAMES = "study:metric_names"  # where Optuna keeps what objectives are called
log = logging.getLogger("idenctl")


@dataclass(frozen=True)
class Shown:
    """A search as an Optuna study: its trials are the configurations in the order in which they were asked."""

    name: str
    objectives: Mapping[str, StudyDirection]
    attributes: Mapping[str, Any]
    trials: Sequence[FrozenTrial]


Known = dict[tuple[str, int], FrozenTrial]  # by the study's name and the trial's number


def shown(search: SearchPacks, synthetic: bool, known: Known | None = None) -> list[Shown]:
    """All that a database shows of a search; `known` holds the finished trials of earlier calls and takes up new ones.

    Only what is written to the store counts: a batch that a plan alone asks for is not there.
    """
    known = {} if known is None else known
    return [_shown(procedure, search, synthetic, known) for procedure in search.procedures]


def write(
    storage: BaseStorage, search: Shown, held: Mapping[int, FrozenTrial] | None = None
) -> Mapping[int, FrozenTrial]:
    """Bring a database to what the search is; gives what it holds of it then, by number.

    `held` is what it is known to hold, None where it has to be read. A study that contradicts the search, such as one
    of other results, is written anew.
    """
    study_id = _study_id(storage, search)
    if held is None:
        held = {trial.number: trial for trial in storage.get_all_trials(study_id)}
        if any(_contradicts(held[number], trial) for number, trial in enumerate(search.trials) if number in held):
            storage.delete_study(study_id)
            study_id, held = _study_id(storage, search), {}
        _describe(storage, study_id, search)
    after = dict(held)
    for number, trial in enumerate(search.trials):
        if number not in held:
            storage.create_new_trial(study_id, template_trial=trial)
        elif held[number].state.is_finished() or not trial.state.is_finished():
            continue
        else:
            _finish(storage, storage.get_trial_id_from_study_id_trial_number(study_id, number), trial)
        after[number] = trial
    return after


def copied(searches: Sequence[Shown]) -> InMemoryStorage:
    """The searches in the memory of this process."""
    storage = InMemoryStorage()
    for search in searches:
        write(storage, search)
    return storage


def address(storage: str) -> str:
    """The URL that a study file's `storage` means.

    Raises ValueError where its environment variable or the driver of its database is missing.
    """
    url = storage
    if variable := IN_VARIABLE.fullmatch(storage):
        url = os.environ.get(variable[1], "")
        if not url.startswith(("postgresql://", "sqlite:///")):
            found = f"'{masked(url)}'" if url else "nothing"
            raise ValueError(
                f"{storage} must name an environment variable that holds postgresql://… or sqlite:///…, "
                f"{variable[1]} holds {found}; export it"
            )
    if url.startswith("postgresql://"):
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise ValueError(
                f"{masked(url)} needs the driver psycopg, which is not installed; pip install 'idenctl[postgres]'"
            ) from None
    return url


def connected(url: str) -> RDBStorage:
    """The database at a URL, with tables for Optuna. Raises ConnectionError, in one line, where it does not answer."""
    limits: dict[str, Any] = {"timeout": CONNECT}
    if url.startswith("postgresql:"):
        limits = {"connect_timeout": CONNECT}
        if "options=" not in url:  # those of the URL hold
            limits["options"] = f"-c statement_timeout={STATEMENT}"
    try:
        full = url.replace("postgresql:", "postgresql+psycopg:", 1)
        return RDBStorage(full, engine_kwargs={"pool_pre_ping": True, "connect_args": limits})
    except Exception as error:  # of SQLAlchemy, of the driver or of Optuna, by what is wrong
        raise ConnectionError(f"the database {masked(url)} does not answer: {_reason(error)}") from error


@contextmanager
def following(url: str, synthetic: bool, limit: float = LIMIT) -> Iterator[Callable[[SearchPacks], None]]:
    """Shows a search in the database at a URL as often as the function that this gives is called with it.

    It returns at once: a thread writes the latest. A database that does not answer is said once in a warning, tried
    again with the next call and when the context ends, which waits for it `limit` seconds.
    """
    known: Known = {}
    waiting: SimpleQueue[list[Shown] | None] = SimpleQueue()
    said = Event()  # that it does not answer; until it does
    thread = Thread(target=_keep_up, args=(url, waiting, said), name="mirror", daemon=True)
    thread.start()
    try:
        yield lambda search: waiting.put(shown(search, synthetic, known))
    finally:
        waiting.put(None)
        thread.join(limit)
        if thread.is_alive():
            _warn(f"the database {masked(url)} does not answer within {limit:g} s", said)


def _keep_up(url: str, waiting: "SimpleQueue[list[Shown] | None]", said: Event) -> None:
    """Write the latest that waits, until None does; what could not be written is tried again with the next."""
    behind: list[Shown] = []
    storage: RDBStorage | None = None
    held: dict[str, Mapping[int, FrozenTrial]] = {}
    ending = False
    while not ending:
        items = [waiting.get()]
        while not waiting.empty():
            items.append(waiting.get())
        ending = items[-1] is None
        behind = next((item for item in reversed(items) if item is not None), behind)
        try:
            for search in behind:
                if storage is None:
                    storage, held = connected(url), {}
                held[search.name] = write(storage, search, held.get(search.name))
            behind = []
            said.clear()
        except Exception as error:  # whatever it is, the study goes on
            storage = None
            _warn(str(error) if isinstance(error, ConnectionError) else f"{masked(url)}: {_reason(error)}", said)


def _warn(reason: str, said: Event) -> None:
    if not said.is_set():
        said.set()
        log.warning(
            f"{reason}; the study goes on, the mirror is caught up once the database answers: at the next pack, "
            "or when the same command is run again"
        )


def _reason(error: Exception) -> str:
    """The first line of an error's first cause, which names neither the SQL nor its values."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = masked(str(error)).strip().splitlines()
    return lines[0].rstrip(".:; ") if lines else type(error).__name__


def _shown(procedure: Procedure, search: SearchPacks, synthetic: bool, known: Known) -> Shown:
    wanted, asked = procedure.study, search.folder.name[:8]
    name = f"{wanted.folder} {asked}" + ("" if procedure.outer is None else f" without fold {procedure.outer}")
    name += " (synthetic)" if synthetic else ""
    drawn = {"synthetic": True} if synthetic else {}
    numbers = [number for number in sorted(procedure.configurations) if number < procedure.written]
    for number in numbers:
        if (name, number) not in known and number in procedure.outcomes:
            known[name, number] = _trial(procedure, number, search.results, drawn)
    assert wanted.search is not None
    attributes = {"question": wanted.question, "dataset": wanted.dataset, "select": wanted.search.select} | drawn
    trials = [known.get((name, n)) or _trial(procedure, n, search.results, drawn) for n in numbers]
    measured = "validation accuracy" if wanted.search.select == "validation" else ACCURACY
    names = [measured if objective == ACCURACY else objective for objective in wanted.search.objectives]
    objectives = dict(zip(names, procedure.search.study.directions, strict=True))
    return Shown(name, objectives, attributes, trials)


def _trial(procedure: Procedure, number: int, results: Results, drawn: Mapping[str, bool]) -> FrozenTrial:
    """A configuration as an Optuna trial; of one that has no outcome, what was asked."""
    configuration, outcome = procedure.configurations[number], procedure.outcomes.get(number)
    settings = dict(procedure.search.points[number].settings)
    attributes: dict[str, Any] = {"configuration_id": configuration.configuration_id, **drawn}
    curve: Mapping[int, float] = {}
    if outcome:
        trials = [t for t in procedure.asked[configuration.configuration_id] if t.trial_id in results]
        curve = outcome.curve if outcome.state == "pruned" else _mean_curve(trials, results)
        scores = {f"fold {trial.fold} seed {trial.seed}": results[trial.trial_id].score for trial in trials}
        if outcome.state != "pruned":  # a stored trial may have gone on where this search left it
            attributes["accuracies"] = {name: score for name, score in scores.items() if score is not None}
    return create_trial(
        state=STATES[outcome.state] if outcome else TrialState.RUNNING,
        values=list(outcome.values) if outcome and outcome.state == "complete" else None,
        params=settings,
        distributions={name: procedure.search.distributions[name] for name in settings},
        user_attrs=attributes,
        intermediate_values=dict(curve),
    )


def _mean_curve(trials: Sequence[Trial], results: Results) -> dict[int, float]:
    """The mean over folds and seeds by epoch, as far as all of them go."""
    means = map(fmean, zip(*(results[trial.trial_id].curve for trial in trials), strict=False))
    return {epoch: mean for epoch, mean in enumerate(means) if math.isfinite(mean)}


def _study_id(storage: BaseStorage, search: Shown) -> int:
    try:
        return storage.get_study_id_from_name(search.name)
    except KeyError:
        return storage.create_new_study([*search.objectives.values()], study_name=search.name)


def _describe(storage: BaseStorage, study_id: int, search: Shown) -> None:
    there = storage.get_study_user_attrs(study_id)
    for key, value in search.attributes.items():
        if there.get(key) != value:
            storage.set_study_user_attr(study_id, key, value)
    storage.set_study_system_attr(study_id, METRIC_NAMES, [*search.objectives])


def _contradicts(held: FrozenTrial, wanted: FrozenTrial) -> bool:
    """Whether a trial in a database is another one, or ended otherwise."""
    if held.params != wanted.params or held.distributions != wanted.distributions:
        return True
    return held.state.is_finished() and wanted.state.is_finished() and _ending(held) != _ending(wanted)


def _ending(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.values, trial.intermediate_values, trial.user_attrs


def _finish(storage: BaseStorage, trial_id: int, trial: FrozenTrial) -> None:
    """Give a running trial its end; the state comes last, so that one cut off here is finished the next time."""
    for epoch, accuracy in trial.intermediate_values.items():
        storage.set_trial_intermediate_value(trial_id, epoch, accuracy)
    for key, value in trial.user_attrs.items():
        storage.set_trial_user_attr(trial_id, key, value)
    storage.set_trial_state_values(trial_id, trial.state, trial.values)
