"""What the store keeps of a study that was run, read again; `record` writes it."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator import costs, kept
from orchestrator.costs import Took
from orchestrator.store import Store

STEP = "run the study again: idenctl study run FILE"
_PLAN: dict[str, type] = {
    **dict.fromkeys(("study", "dataset", "question", "data_id"), str),
    **dict.fromkeys(("cells", "folds", "seeds"), list),
    "synthetic": bool,
    "report": dict,
}
_SEARCH: dict[str, Any] = dict.fromkeys(("sampler", "order", "select"), str)
_SEARCH |= {"configurations": int, "objectives": list, "space": dict}
_PROCEDURE = {"outer": int | None, "over": bool, "points": list, "chosen": list, "importance": dict, "refit": list}
_POINT: dict[str, Any] = dict.fromkeys(("configuration_id", "state"), str) | dict.fromkeys(("values", "folds"), list)
_POINT |= dict.fromkeys(("number", "trials", "trained_epochs"), int) | dict.fromkeys(("repeats", "epochs"), int | None)
_POINT |= {"settings": dict}
_REFIT = {"configuration_id": str, "fold": int | None, "seed": int, "accuracy": float | int | None}
_OPTIONAL: dict[str, Any] = {"predicted": dict, "workload": str, "search": dict | None, "reference": dict | None}
_PACK: dict[str, Any] = dict.fromkeys(("pack_id", "trial_id"), str) | {"trials": int}
_TIME: dict[str, Any] = {"seconds": float | int, "measured": bool}
RAN = ["trial_id", "host", "started_at", "seconds"]


def read_plan(path: Path) -> dict[str, Any]:
    """A study's plan; raises ValueError, naming the file, when it is damaged or missing."""
    plan = kept.read(path, _PLAN, STEP)
    kept.require(all(map(_is_cell, plan["cells"])), path, "a cell", STEP)
    kept.require(all(isinstance(fold, int | None) for fold in plan["folds"]), path, "a fold", STEP)
    kept.require(all(isinstance(seed, int) for seed in plan["seeds"]), path, "a seed", STEP)
    kept.require(isinstance(plan["report"].get("by"), str | list), path, "report.by", STEP)
    kept.require(all(isinstance(one, dict) for one in plan["report"].get("baselines", ())), path, "a baseline", STEP)
    for key in _OPTIONAL.keys() & plan.keys():
        kept.require(isinstance(plan[key], _OPTIONAL[key]), path, key, STEP)
    kept.require(_is_predicted(plan.get("predicted", {})), path, "predicted", STEP)
    return plan


def written_at(plan: Mapping[str, Any], path: Path) -> float:
    """When the run of a plan, read from this file, began, in seconds since 1970. Raises as `read_plan` does."""
    kept.require(isinstance(plan.get("written_at"), str), path, "written_at", STEP)
    return datetime.fromisoformat(plan["written_at"]).timestamp()


def read_provenance(path: Path) -> dict[str, Any]:
    """Where the results of a study come from, of its `provenance.json`; raises as `read_plan` does."""
    return kept.read(path, {"versions": dict}, STEP)


def read_search(path: Path) -> dict[str, Any]:
    """What a search has asked and found, of its `search.json`; raises as `read_plan` does."""
    found = kept.read(path, {"procedures": list, "search": dict}, STEP)
    kept.require(_has(found["search"], _SEARCH), path, "the search", STEP)
    kept.require(bool(found["procedures"]) and all(map(_is_procedure, found["procedures"])), path, "a procedure", STEP)
    return found


def _is_cell(cell: Any) -> bool:
    return _has(cell, {"label": dict, "settings": dict, "configuration_id": str})


def _is_predicted(found: Mapping[str, Any]) -> bool:
    packs, trunks = found.get("packs", []), found.get("trunks", {})
    if not isinstance(packs, list) or not isinstance(trunks, dict):
        return False
    return all(_has(pack, _PACK | _TIME) for pack in packs) and all(_has(trunk, _TIME) for trunk in trunks.values())


def _is_procedure(found: Any) -> bool:
    lists = _has(found, _PROCEDURE) and all(_has(point, _POINT) for point in found["points"])
    return lists and all(_has(one, _REFIT) for one in found["refit"])


def _has(found: Any, shape: Mapping[str, Any]) -> bool:
    """Whether it is a mapping with values of these types under these keys."""
    return isinstance(found, dict) and all(key in found and isinstance(found[key], kind) for key, kind in shape.items())


def took(store: Store, name: str) -> list[Took]:
    """What the trunks and packs of a study that was run were to take, beside what they took."""
    plan = read_plan(store.studies / name / "plan.json")
    return took_of(plan, store.every_trial(RAN).iter_rows(), store)


def took_of(plan: Mapping[str, Any], rows: Iterable[tuple[str, str, datetime, float]], store: Store) -> list[Took]:
    """The same of a plan and the `RAN` of the store's every trial, which are read already."""
    # packs that were put together are told apart by where and when they ran
    ran = [(trial_id, f"{host} {started}", seconds) for trial_id, host, started, seconds in rows]
    seconds = {trunk["trunk_id"]: float(trunk["seconds"]) for trunk in store.trunk_facts()}
    return costs.took(plan.get("predicted", {}), ran, seconds)
