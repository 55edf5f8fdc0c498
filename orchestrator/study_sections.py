"""The smaller sections of a study file: what a report shows and is held against, budgets, a search's database."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, PlainValidator

from orchestrator.search.space import Number
from orchestrator.sections import STRICT, Settings, Value, distinct, storage_address


def _axes(value: object) -> object:
    names = value if isinstance(value, list) else [value]
    if not (all(isinstance(name, str) for name in names) and len(set(names)) == len(names) in (1, 2)):
        raise ValueError("must be a setting, or two of them as [rows, columns]")
    return value


def _published(value: object) -> object:
    return {key: _percent(number) for key, number in value.items()} if isinstance(value, dict) else _percent(value)


def _percent(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a number, or a mapping to numbers")
    return float(value)


def _above_zero(number: float) -> float:
    if number <= 0:
        raise ValueError("must be above 0")
    return number


Axes = Annotated[
    str | list[str],
    PlainValidator(_axes, json_schema_input_type=str | Annotated[list[str], Field(min_length=1, max_length=2)]),
]
Percents = Annotated[
    float | dict[Value, float], PlainValidator(_published, json_schema_input_type=float | dict[str, float])
]
Hours = Annotated[Number, AfterValidator(_above_zero)]


class _Section(BaseModel):
    model_config = STRICT


class Reference(_Section):
    """Published results to set beside the measured ones: percentages by the setting `by`.

    With `by: [rows, columns]`, `values` maps a row to its columns. The columns may be `expression`.
    """

    source: str = Field(description="Where they were published.")
    metric: Literal["accuracy", "sequence_accuracy"] = Field(description="Of pictures, or of whole sequences.")
    by: Axes = Field(description="The setting that tells them apart, or [rows, columns].")
    values: dict[Value, Percents] = Field(description="Percent, by the value of that setting.")
    note: str = Field(default="", description="What a reader must know of them.")


class Report(_Section):
    """What the report shows: accuracy by the setting `by`, each cell compared with each baseline.

    `by: [rows, columns]` is a two-way table, in which a cell is compared with the baseline of its column.
    `show` asks for more tables.
    """

    by: Axes = Field(description="The setting that the cells are shown by, or [rows, columns] of a table.")
    baselines: list[Settings] = Field(default=[], description="The cells that every cell is compared with.")
    show: Annotated[list[Literal["details", "expressions", "confusion", "subjects"]], AfterValidator(distinct)] = Field(
        default=[], description="More tables: details of the differences, by expression, confusion, by subject."
    )


class Budget(_Section):
    """When a run ends: after so many hours, or when its study's trials have taken so many hours of devices."""

    wall_clock_hours: Hours | None = Field(
        default=None, description="Hours after which a run ends; run it again to go on."
    )
    device_hours: Hours | None = Field(default=None, description="Hours of devices that all trials together may take.")


class Optuna(_Section):
    """The Optuna database that shows a search while it runs, for dashboards."""

    storage: Annotated[str, AfterValidator(storage_address)] = Field(
        description="postgresql://…, sqlite:///FILE, or env:NAME for a URL in an environment variable."
    )


def axes(by: str | Sequence[str]) -> tuple[str, ...]:
    """The rows of a table, and its columns where it is a two-way table."""
    return (by,) if isinstance(by, str) else tuple(by)
