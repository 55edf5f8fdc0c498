"""What the cells of a plan are called, what they are compared with, and what the paper has for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from orchestrator.trial import COMPONENTS, identified

Cell = Mapping[str, Any]
NotRun = tuple[str, int | None, int, str]  # configuration_id, fold and seed of a trial, and why its pack failed


def cell_label(settings: Mapping[str, Any], by: str) -> str:
    """A cell's name in the table: the value of `by`, its components or variant, then what else the study wrote."""
    head = next((name for name in (by, COMPONENTS, "variant") if name in settings), "")
    first = [_spoken(settings[head])] if head else []
    return ", ".join(first + [f"{key} {value}" for key, value in settings.items() if key != head]) or "base"


def reference_value(settings: Mapping[str, Any], reference: Mapping[str, Any]) -> Any:
    """What the reference has for a cell with these settings, as the study wrote them, or None.

    Looked up by the value of the (first) `by`, else by the variant's name. Original supervises no identity: it
    stands beside the paper's rate 0.
    """
    by, _ = axes(reference["by"])
    variant = settings.get("variant", "")
    value = _under(reference["values"], settings.get(by, variant))
    if value is None and variant == "original" and by == "id_rate":
        value = _under(reference["values"], 0)
    return value


def published(cell: Cell, reference: Mapping[str, Any] | None) -> Mapping[str, float]:
    """The paper's percentages for a cell, by expression; `all` is the whole test set."""
    if reference is None:
        return {}
    across = axes(reference["by"])[1]
    value = reference_value({**cell["settings"], **cell["label"]} if across else cell["label"], reference)
    if across == "expression":
        return value or {}
    if across:
        value = _under(value or {}, cell["settings"].get(across))
    return {} if value is None else {"all": float(value)}


def axes(by: str | Sequence[str]) -> tuple[str, str]:
    """The setting of the rows and that of the columns, '' where there is none."""
    rows, columns = (by, "") if isinstance(by, str) else (*by, "")[:2]
    return rows, columns


def baselines(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """The configuration_id of what each cell is compared with, by name; in a two-way table from the cell's column.

    Raises ValueError when a baseline is not one cell of the design.
    """
    by, across = axes(plan["report"]["by"])
    found: dict[str, list[str]] = {}
    for settings in plan["report"]["baselines"]:
        columns = [cell["settings"].get(across) for cell in plan["cells"]]
        members: dict[Any, list[Cell]] = {}
        for column, cell in zip(columns, plan["cells"], strict=True):
            members.setdefault(column, []).append(cell)
        of_column = {column: _baseline(settings, cells) for column, cells in members.items()}
        label = settings if across else of_column[columns[0]]["label"]
        found[cell_label(label, by)] = [of_column[column]["configuration_id"] for column in columns]
    return found


def not_run(plan: Mapping[str, Any], trials: pl.DataFrame) -> list[NotRun]:
    """The trials of the plan's cells that have no row among `trials` and whose pack failed when they were last run."""
    raised = plan.get("raised")
    if not raised:
        return []
    stored = set(trials.select("configuration_id", "fold", "seed").iter_rows())
    wanted = (
        (cell["configuration_id"], fold, seed)
        for cell in plan["cells"]
        for fold in plan["folds"]
        for seed in plan["seeds"]
    )
    return [
        (*trial, raised[name]) for trial in wanted if trial not in stored and (name := identified(*trial)) in raised
    ]


def _baseline(settings: Mapping[str, Any], cells: Sequence[Cell]) -> Cell:
    exact = [other for other in cells if settings in (other["label"], *other.get("also", ()))]
    found = exact or [other for other in cells if settings.items() <= other["settings"].items()]
    if len(found) != 1:
        raise ValueError(
            f"a baseline of the report must be one cell of the design, but {dict(settings)} is {len(found)}; "
            f"cells: {'; '.join(str(dict(other['label'])) for other in cells)}"
        )
    return found[0]


def _under(values: Mapping[Any, Any], key: object) -> Any:
    return {_key(name): value for name, value in values.items()}.get(_key(key))


def _key(value: object) -> float | str:
    # JSON turned the numbers of the study file into strings
    try:
        return float(str(value))
    except ValueError:
        return str(value).lower()


def _spoken(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    return value.upper() if len(value) <= 2 else value[0].upper() + value[1:]
