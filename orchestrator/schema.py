"""The JSON schema of study files, by which editors complete and check them: pydantic's own, with IDEnNet's settings.

It refuses nothing that loading a study file accepts; what it accepts, loading may refuse for more than a shape.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.study import Study
from orchestrator.study_rules import EXPRESSION, Rules
from orchestrator.trial import COMPONENTS, IDENNET, Setting

Schema = dict[str, Any]
DIALECT = "http://json-schema.org/draft-07/schema#"  # the latest that all editors know
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def text(rules: Rules) -> str:
    """The schema as a file: JSON, with a line at its end."""
    return json.dumps(document(rules), indent=1, ensure_ascii=False) + "\n"


def document(rules: Rules) -> Schema:
    """The schema of study files; `rules` are IDEnNet's and hold for files that name no other workload."""
    found: Schema = _tidy(Study.model_json_schema())
    one = [{"required": ["design"]}, {"required": ["search"]}]
    settings = {name: _setting(rules, name, default) for name, default in rules.settings.items()}
    lists = {
        name: {"description": setting["description"], "type": "array", "items": setting}
        for name, setting in settings.items()
    }
    return {
        "$schema": DIALECT,
        "title": "A study of idenctl",
        **found,
        "oneOf": one,
        "if": {"properties": {"workload": {"const": IDENNET}}},
        "then": {"properties": _of_workload(rules)},
        "$defs": found["$defs"] | {"Settings": _mapping(settings), "Levels": _mapping(lists)},
    }


def _of_workload(rules: Rules) -> Schema:
    settings, lists = {"$ref": "#/$defs/Settings"}, {"$ref": "#/$defs/Levels"}
    listed = {"items": settings}
    switch = {"additionalProperties": {"properties": {"on": settings, "off": settings}}}
    tasks = {
        task: _mapping({name: _setting(rules, name, default) for name, default in defaults.items()})
        for task, defaults in rules.trunks.items()
    }
    parts: Schema = {
        "base": settings,
        "design": {
            "properties": {"cells": listed, "grid": lists, "zip": lists, "one_at_a_time": lists, COMPONENTS: switch}
        },
        "trunks": _mapping(tasks),
    }
    return {
        "dataset": {"enum": list(rules.datasets)},
        **parts,
        "search": {"properties": {"space": {"propertyNames": {"enum": list(rules.settings)}}, "enqueue": listed}},
        "profiles": {"additionalProperties": {"properties": parts}},
        "report": {"properties": {"by": _axes([*rules.settings, COMPONENTS])}},
        "reference": {"properties": {"by": _axes([*rules.settings, EXPRESSION])}},
    }


def _setting(rules: Rules, name: str, default: Setting) -> Schema:
    choices = rules.datasets if name == "dataset" else rules.choices.get(name)
    return {
        "description": rules.meanings[name],
        "type": _TYPES[type(default)],
        **({"enum": list(choices)} if choices else {}),
        "default": default,
    }


def _mapping(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _axes(names: Iterable[str]) -> Schema:
    one = {"enum": list(names)}
    return {"anyOf": [one, {"type": "array", "items": one}]}


def _tidy(schema: Any) -> Any:
    """The schema without titles, which only repeat keys, and without defaults that say nothing."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if not isinstance(kept.get("default", 0), bool | int | str | list) or kept.get("default") == []:
        kept.pop("default")
    return {key: value if key == "default" else _tidy(value) for key, value in kept.items()}
