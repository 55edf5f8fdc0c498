"""What the sections of a study file are made of."""

import math
from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator

from orchestrator.trial import Setting


def _setting(value: object) -> Setting:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("must be true or false, a finite number, or text")


def some(values: list[Any]) -> list[Any]:
    """The values; raises ValueError for none."""
    if not values:
        raise ValueError("must not be empty, or the study has no trials")
    return values


def distinct(values: list[Any]) -> list[Any]:
    """The values; raises ValueError where one is there twice."""
    if any(value in values[:index] for index, value in enumerate(values)):
        raise ValueError("must not hold a value twice")
    return values


Value = Annotated[Setting, PlainValidator(_setting)]
Settings = dict[str, Value]


STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")  # of every section: the keys it names, in their types
