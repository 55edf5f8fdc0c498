"""A study that another process runs, as the store shows it: what its driver was told, told again from rows and files.

A pack at work shows in its checkpoints, one an epoch, of which the store keeps two; a workload without checkpoints
shows packs only when they are done.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import frozen
from orchestrator.design import describe
from orchestrator.progress import Event, Foreseen, PackDone, PackStarted, Progress, RunState
from orchestrator.source import ALONE
from orchestrator.store import Store
from orchestrator.trial import NUM_FOLDS, identified

SCORES = ["accuracy", "validation_accuracy"]  # of a search's trial the second
COLUMNS = ["trial_id", "state", "reason", *SCORES, "pack_id", "host", "started_at", "finished_at"]


@dataclass(frozen=True)
class Wanted:
    """A trial of a study: its cell's name, its fold, its epochs, 0 where nobody says."""

    cell: str
    fold: int | None
    epochs: int


@dataclass(frozen=True)
class Kept:
    """A checkpoint: when it was written (seconds since 1970), its pack, epochs done, accuracies so far, and ends."""

    time: float
    pack_id: str
    epoch: int
    trial_ids: tuple[str, ...]
    accuracies: Mapping[str, float]
    failed: Mapping[str, str]
    left: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """A study at one look: the state of its run, whether it has nothing more to do, when the last of it happened."""

    state: RunState
    over: bool
    last: float  # seconds since 1970


def look(store: Store, name: str) -> Seen:
    """What the store shows now of the last run of a study. Raises ValueError where its plan is damaged or missing."""
    folder = store.fetch_all("studies", name)
    plan = frozen.read_plan(folder / "plan.json")
    since = frozen.written_at(plan, folder / "plan.json")
    searched = None
    if plan.get("search") and (folder / "search.json").is_file():
        searched = frozen.read_search(folder / "search.json")
    wanted = _searched(searched, plan) if searched else _designed(plan)
    rows = [
        row for row in store.every_trial(COLUMNS).iter_rows(named=True)
        if row["trial_id"] in wanted and (searched or row["state"] != "pruned")
    ]  # fmt: skip
    state = _at_start(plan, name, wanted, rows, since)
    ended = _stored(rows, state.foreseen, since)
    last = since
    for at, event in sorted([*ended, *_running(_kept(store, wanted, rows), wanted, ended, since)], key=lambda e: e[0]):
        state, last = state.apply(event, at), max(at, last)
    over = not state.num_waiting and not state.running
    if plan.get("search"):
        over = searched is not None and all(each["over"] for each in searched["procedures"]) and over
    return Seen(state, over, last)


def _designed(plan: Mapping[str, Any]) -> dict[str, Wanted]:
    return {
        identified(cell["configuration_id"], fold, seed): Wanted(
            describe(cell["label"]), fold, int(cell.get("epochs") or 0)
        )
        for cell in plan["cells"]
        for seed in plan["seeds"]
        for fold in plan["folds"]
    }


def _searched(searched: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Wanted]:
    """The trials that a search has asked for, and those that test what it chose."""
    from orchestrator.search.packs import short
    from orchestrator.search.procedure import scored_by
    from orchestrator.trial import Configuration

    found = {}
    select, folds, seeds = searched["search"]["select"], plan["folds"], plan["seeds"]
    for procedure in searched["procedures"]:
        parts = scored_by(Configuration({}, {}), folds, seeds, select, procedure["outer"])
        called = {}
        for point in procedure["points"]:
            called[point["configuration_id"]] = Wanted(describe(short(point["settings"])), None, point["epochs"] or 0)
            if point["repeats"] is None:
                for part in parts:
                    trial_id = identified(point["configuration_id"], part.fold, part.seed, part.without)
                    found[trial_id] = replace(called[point["configuration_id"]], fold=part.fold)
        for one in procedure["refit"]:
            trial_id = identified(one["configuration_id"], one["fold"], one["seed"])
            found[trial_id] = replace(called[one["configuration_id"]], fold=one["fold"])
    return found


def _at_start(
    plan: Mapping[str, Any], name: str, wanted: Mapping[str, Wanted], rows: Sequence[Mapping[str, Any]], since: float
) -> RunState:
    before = [row for row in rows if row["finished_at"].timestamp() < since and not _again(row, plan)]
    predicted = plan.get("predicted", {})
    packs = _foreseen(predicted.get("packs", ()), wanted, rows)
    stored = {row["trial_id"]: _score(row) for row in before}
    missing = {pack_id: pack for pack_id, pack in packs.items() if not set(pack.trial_ids) <= stored.keys()}
    searched = plan.get("search")
    return RunState(
        title=f"{name} (synthetic)" if plan["synthetic"] else name,
        cells={trial_id: trial.cell for trial_id, trial in wanted.items()},
        stored={trial_id: score for trial_id, score in stored.items() if score is not None},
        packs=len(missing),
        started=since,
        folds={trial_id: trial.fold for trial_id, trial in wanted.items()},
        test_to_train=1 / (NUM_FOLDS - (2 if searched and searched["select"] != "test" else 1)),
        foreseen=missing,
        slots=predicted.get("side_by_side", 1),
        steps="",
        failed={row["trial_id"]: row["reason"] or "" for row in before if row["state"] == "failed"},
        pruned={row["trial_id"] for row in before if row["state"] == "pruned"},
    )


def _again(row: Mapping[str, Any], plan: Mapping[str, Any]) -> bool:
    """Whether a run tries this trial again."""
    return row["state"] == "failed" and (row["reason"] or "").startswith(ALONE) and not plan.get("search")


def _foreseen(
    packs: Iterable[Mapping[str, Any]], wanted: Mapping[str, Wanted], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Foreseen]:
    """The packs as they were planned. A plan names the first trial of each: the others are those stored with it, else
    the next in the order of the design.
    """
    together: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        together[row["pack_id"]].append(row["trial_id"])
    with_others = {trial_id: trials for trials in together.values() for trial_id in trials}
    packs = [pack for pack in packs if pack["trial_id"] in wanted]
    taken = {trial_id for pack in packs for trial_id in with_others.get(pack["trial_id"], [pack["trial_id"]])}
    order = list(wanted)
    place = {trial_id: index for index, trial_id in enumerate(order)}
    found = {}
    for pack in packs:
        trials = list(with_others.get(pack["trial_id"], [pack["trial_id"]]))
        at = place[pack["trial_id"]]
        while len(trials) < pack["trials"] and at < len(order):
            if order[at] not in taken:
                taken.add(order[at])
                trials.append(order[at])
            at += 1
        found[pack["pack_id"]] = Foreseen(tuple(trials), pack["seconds"])
    return found


def _stored(
    rows: Sequence[Mapping[str, Any]], foreseen: Mapping[str, Foreseen], since: float
) -> list[tuple[float, Event]]:
    """What the packs that were stored since then had told, under the names under which they were planned."""
    planned = {trial_id: pack_id for pack_id, pack in foreseen.items() for trial_id in pack.trial_ids}
    packs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["finished_at"].timestamp() >= since:
            packs[f"{row['host']} {row['started_at']}"].append(row)
    found: list[tuple[float, Event]] = []
    for called, members in packs.items():
        pack_id = planned.get(members[0]["trial_id"], called)
        scores = {row["trial_id"]: _score(row) for row in members if row["state"] == "complete"}
        failed, pruned = (
            {row["trial_id"]: row["reason"] or "" for row in members if row["state"] == state}
            for state in ("failed", "pruned")
        )
        done = PackDone(pack_id, {i: score for i, score in scores.items() if score is not None}, failed, pruned)
        trials = tuple(row["trial_id"] for row in members)
        found.append((max(members[0]["started_at"].timestamp(), since), PackStarted(pack_id, trials)))
        found.append((members[0]["finished_at"].timestamp(), done))
    return found


def _running(
    kept: Iterable[Kept], wanted: Mapping[str, Wanted], ended: Sequence[tuple[float, Event]], since: float
) -> list[tuple[float, Event]]:
    """What the packs that have checkpoints have told, if they were written since then.

    When one began nobody says: at the latest when its first epoch did, and hardly before the last pack that ended.
    """
    packs: dict[str, list[Kept]] = defaultdict(list)
    for one in kept:
        packs[one.pack_id].append(one)
    found: list[tuple[float, Event]] = []
    for pack_id, told in packs.items():
        told.sort(key=lambda one: one.epoch)
        if told[-1].time < since:  # of an earlier run; nobody may be at it
            continue
        epochs = max(wanted[trial_id].epochs for trial_id in told[-1].trial_ids)
        free = max((at for at, event in ended if isinstance(event, PackDone) and at <= told[0].time), default=since)
        found.append((free, PackStarted(pack_id, told[-1].trial_ids)))
        if told[0].epoch == 1:
            found.append((free, Progress(pack_id, 0, epochs * len(told[0].trial_ids), 0, epochs, "")))
        for one in told:
            active = len(one.trial_ids) - len(one.left) - len(one.failed)
            steps = one.epoch * len(one.trial_ids)
            total = steps + max(epochs - one.epoch, 0) * active
            pruned = dict.fromkeys(one.left, "")
            share = steps / max(total, 1)
            event = Progress(pack_id, steps, total, one.epoch, epochs, "", one.accuracies, one.failed, pruned, share)
            found.append((max(one.time, since), event))
    return found


def _kept(store: Store, wanted: Mapping[str, Wanted], rows: Sequence[Mapping[str, Any]]) -> list[Kept]:
    """The checkpoints of packs of this study that are not stored."""
    stored = {row["trial_id"] for row in rows}
    found = []
    for path, words in store.checkpoint_words():
        trials = tuple(json.loads(words.get("trials", "[]")))
        if not trials or not set(trials) <= wanted.keys() or set(trials) <= stored:
            continue
        curves = json.loads(words.get("curves", "{}"))
        accuracies = {i: points[-1]["test_accuracy"] for i, points in curves.items() if points}
        failed, left = json.loads(words.get("failures", "{}")), tuple(json.loads(words.get("left", "[]")))
        pack_id = path.name.removeprefix("pack-").split(".")[0]
        found.append(Kept(_written(path, words), pack_id, int(words["epoch"]), trials, accuracies, failed, left))
    return found


def _written(path: Path, words: Mapping[str, str]) -> float:
    """When a checkpoint was written: as it says itself, else as the file system does."""
    if "written" in words:
        return float(words["written"])
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _score(row: Mapping[str, Any]) -> float | None:
    scores = [row[name] for name in SCORES if row[name] is not None]
    return float(scores[0]) if scores else None
