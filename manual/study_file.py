"""The reference of study files, from the models that read them and the rules of IDEnNet's settings."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from manual.markdown import code, table, text
from orchestrator.idennet import Idennet
from orchestrator.study import Study
from orchestrator.trial import Setting

RULES = Idennet.rules
MEANINGS = RULES.meanings
PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything"}
UNIONS = {frozenset(get_args(Setting)): "value", frozenset((int, float)): "number"}


def page() -> str:
    """Every key of a study file, section by section, and every setting of IDEnNet with its default and its rule."""
    sections = [_section(where, model) for where, model in _models("", Study, set())]
    trunks = [f"### Pre-training, `trunks: {task}`\n\n{_settings(defaults)}" for task, defaults in RULES.trunks.items()]
    return "\n".join([*sections, f"## Settings of IDEnNet\n\n{_settings(RULES.settings)}", *trunks])


def _models(where: str, model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The model and all that its fields hold, each where it stands first."""
    if model in seen:
        return
    seen.add(model)
    yield where, model
    for name, field in model.model_fields.items():
        for inner in _inside(field.annotation):
            yield from _models(f"{where}.{name}".lstrip("."), inner, seen)


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _inside(inner)


def _section(where: str, model: type[BaseModel]) -> str:
    title = f"## `{where}`" if where else "## The whole file"
    rows = [
        (code(name), text(_said(field.annotation)), _default(field), text(field.description or ""))
        for name, field in model.model_fields.items()
    ]
    heads = ("key", "what stands there", "left out", "meaning")
    return f"{title}\n\n{inspect.cleandoc(model.__doc__ or '')}\n\n{table(heads, rows)}"


def _said(annotation: Any) -> str:
    """What a value of this type is, in words."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section, below"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _said(arguments[0])
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, UnionType):
        kinds = [each for each in arguments if each is not NoneType]
        return UNIONS.get(frozenset(kinds)) or " or ".join(map(_said, kinds))
    if origin is list:
        return f"list of {_said(arguments[0])}"
    if origin is dict:
        return f"mapping of {_said(arguments[0])} to {_said(arguments[1])}"
    return PLAIN[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**must be there**"
    value = field.get_default(call_default_factory=True)
    if value in (None, {}, [], "") or isinstance(value, BaseModel):
        return "-"
    return code(_yaml(value))


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _settings(defaults: Mapping[str, Setting]) -> str:
    rows = [
        (code(name), code(_yaml(default)), text(_rule(name, defaults)), text(MEANINGS.get(name, "")))
        for name, default in defaults.items()
    ]
    return table(("setting", "default", "must be", "meaning"), rows)


def _rule(name: str, defaults: Mapping[str, Setting]) -> str:
    """What the setting must be, as the message says that refuses a value of no type."""
    if name == "dataset":
        return f"one of {', '.join(RULES.datasets)}"
    try:
        RULES.complete({name: object()}, defaults)  # type: ignore[dict-item]
    except ValueError as refusal:
        return re.sub(r"^\w+ must be |, got .*$", "", str(refusal))
    raise AssertionError(f"{name} takes anything")
