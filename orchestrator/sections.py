"""What the sections of a study file are made of."""

import math
import re
from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator

from orchestrator.trial import Setting


def _setting(value: object) -> Setting:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("must be true or false, a finite number, or text")


def masked(text: str) -> str:
    """The text with `***` for the passwords of URLs."""
    return re.sub(
        r"(://[^:/@\s]*:)\S{,1000}@|(\bpassword=)[^&\s'\"]*",
        lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***",
        text,
    )


def shown(value: object) -> str:
    """A value as messages show it, cut where it is long."""
    text = masked(ascii(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def some(values: list[Any]) -> list[Any]:
    """The values; raises ValueError for none."""
    if not values:
        raise ValueError("must not be empty, or the study has no trials")
    return values


def distinct(values: list[Any]) -> list[Any]:
    """The values; raises ValueError where one is there twice."""
    if len(set(values)) != len(values):
        raise ValueError("must not hold a value twice")
    return values


IN_VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")  # a URL that an environment variable holds


def storage_address(text: str) -> str:
    """Where an Optuna database is. Raises ValueError for what is none, and for a password."""
    if masked(text) != text:
        raise ValueError("must not hold a password; export the URL and write env:NAME, or use ~/.pgpass")
    if not text.startswith(("postgresql://", "sqlite:///")) and not IN_VARIABLE.fullmatch(text):
        raise ValueError("must be postgresql://…, sqlite:///FILE, or env:NAME for one in an environment variable")
    return text


Value = Annotated[Setting, PlainValidator(_setting, json_schema_input_type=Setting)]
Settings = dict[str, Value]


# of every section: the keys it names, in their types; each file gives it to its own, as ruff knows no pydantic
# model from another one
STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")
