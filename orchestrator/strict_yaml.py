"""YAML as plain values that know where they came from.

Scalars follow YAML 1.2, not PyYAML's 1.1: `no` and `off` are text, `1e-4` is a number, `010` is text.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

Place = tuple[Hashable, ...]  # the keys and indices that lead to a value: ("design", "grid", "id_rate", 0)

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str")


def read(text: str, source: str, *, numbered: bool = True) -> tuple[Any, dict[Place, str]]:
    """The value of a YAML document and where each value in it stands: `source:line`, or `source` unnumbered.

    Raises ValueError for what is not YAML, a key given twice, an alias or a tag.
    """
    places: dict[Place, str] = {(): f"{source}:1" if numbered else source}
    seen: set[yaml.Node] = set()

    def scalar(node: Any) -> bool | int | float | str | None:
        return node.value if node.style else _scalar(node.value)  # a style is a kind of quotes

    def at(mark: Any) -> str:
        return f"{source}:{mark.line + 1}" if numbered and mark else source

    def value(node: yaml.Node, place: Place) -> Any:
        if node in seen:
            here = places.get(place, places[()])
            raise ValueError(f"{here}: aliases such as *name are not supported; write the value out")
        if node.tag not in _TAGS:
            raise ValueError(f"{at(node.start_mark)}: tags are not supported, got {node.tag}")
        seen.add(node)
        places.setdefault(place, at(node.start_mark))
        if isinstance(node, yaml.MappingNode):
            return mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [value(item, (*place, index)) for index, item in enumerate(node.value)]
        return scalar(node)

    def mapping(node: yaml.MappingNode, place: Place) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ValueError(f"{at(key_node.start_mark)}: a key must be a word or a number")
            key = value(key_node, (*place, key_node))
            if key in found:
                first = places[*place, key]
                raise ValueError(f"{at(key_node.start_mark)}: the key '{key}' is given twice, first at {first}")
            places[*place, key] = at(key_node.start_mark)
            found[key] = value(value_node, (*place, key))
        return found

    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        quote = "; quote a text that holds ': '" if error.problem == "mapping values are not allowed here" else ""
        raise ValueError(f"{at(error.problem_mark)}: not YAML: {error.problem}{quote}") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"{source}: not YAML: {error.reason}") from None
    return (None if root is None else value(root, ())), places


def read_as_1_1(text: str) -> Any:
    """The value of a YAML document by PyYAML's YAML 1.1, as Ray reads its files. Raises ValueError for what is none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"not YAML: {error}") from None


def dump(content: object) -> str:
    """YAML that `read` turns into equal content."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _scalar(text: str) -> bool | int | float | str | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML quotes by YAML 1.1, where 1e-4 is text and needs no quotes
    style = None if _scalar(text) == text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
