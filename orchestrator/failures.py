"""Why packs of a study failed, kept beside its plan until their trials are taken up again; they have no rows."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from orchestrator import kept
from orchestrator.progress import Event, PackFailed, PackStarted
from orchestrator.store import Store, write_json

STEP = "delete it, it only says why trials were not run"


def read(path: Path) -> dict[str, str]:
    """The reason by trial_id, of a study's `failures.json`; raises ValueError, naming the file, when it is damaged."""
    if not path.exists():
        return {}
    found = kept.read(path, {}, STEP)
    for trial_ids in found.values():
        sound = isinstance(trial_ids, list) and all(isinstance(trial_id, str) for trial_id in trial_ids)
        kept.require(sound, path, "a list of trials", STEP)
    return {trial_id: reason for reason, trial_ids in found.items() for trial_id in trial_ids}


def standing(store: Store, name: str, stored: Iterable[str] | None = None) -> dict[str, str]:
    """The reasons for which trials of a study have no row, by trial_id. Raises as `read` does.

    `stored` are the trials of the store, if they are read already.
    """
    if not (found := read(_path(store, name))):
        return {}
    done = set(store.every_trial(["trial_id"])["trial_id"] if stored is None else stored)
    return {trial_id: reason for trial_id, reason in found.items() if trial_id not in done}


def keeping(store: Store, name: str) -> Callable[[Event], None]:
    """What keeps the reasons of a study that is run now, told of every event."""
    path = _path(store, name)
    try:
        reasons = read(path)
    except ValueError:  # the trials that it spoke of are tried again
        reasons = {}
        store.drop(path, later=True)

    def heard(event: Event) -> None:
        if isinstance(event, PackStarted):
            changed = reasons.keys() & event.trial_ids
            for trial_id in changed:
                del reasons[trial_id]
        elif isinstance(event, PackFailed):
            changed = set(event.trial_ids)
            reasons.update(dict.fromkeys(changed, event.reason))
        else:
            return
        if changed:
            together = defaultdict(list)
            for trial_id, reason in reasons.items():
                together[reason].append(trial_id)
            with suppress(OSError):  # a full disk may be the reason, which the run has told
                write_json(path, together)
                store.keep(path, later=True)

    return heard


def _path(store: Store, name: str) -> Path:
    return store.studies / name / "failures.json"
