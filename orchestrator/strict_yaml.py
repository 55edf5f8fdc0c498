"""YAML as plain values that know where they came from.

Scalars follow YAML 1.2, not PyYAML's 1.1: `no` and `off` are text, `1e-4` is a number, `010` is text.
"""

import re
from collections.abc import Hashable
from math import inf
from typing import Any

import yaml

from orchestrator.names import quoted

Place = tuple[Hashable, ...]  # the keys and indices that lead to a value: ("design", "grid", "id_rate", 0)

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
MAX_CHARACTERS = 2**20  # of a file; the largest study of the project has a few thousand
HINTS = {  # by what the parser says
    "mapping values are not allowed here": "quote a text that holds ': '",
    "found character '\\t'": "indent with spaces",
    "but found another document": "leave one, without ---",
}
_DEEPEST = 20  # levels of a document; a study has seven
_LARGEST = 2**63  # whole numbers are smaller: columns of results hold 64 bits
_INVISIBLE = "\n\t\u200c\u200d"  # what may stand in text though it has no shape: lines, and what joins letters
_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str")


def read(text: str, source: str, *, numbered: bool = True) -> tuple[Any, dict[Place, str]]:
    """The value of a YAML document and where each value in it stands: `source:line`, or `source` unnumbered.

    Raises ValueError for what is not YAML, a key given twice, an alias, a tag, control characters, and for what is
    larger or deeper than any such document.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{source}: a file may have {MAX_CHARACTERS:,} characters, got {len(text):,}; shorten it")
    places: dict[Place, str] = {(): f"{source}:1" if numbered else source}
    seen: set[yaml.Node] = set()

    def scalar(node: Any) -> bool | int | float | str | None:
        if hidden := next((c for c in node.value if not c.isprintable() and c not in _INVISIBLE), ""):
            raise ValueError(f"{at(node.start_mark)}: text has no control characters, got {hidden!a}; remove it")
        try:
            return node.value if node.style else _scalar(node.value)  # a style is a kind of quotes
        except ValueError as error:
            raise ValueError(f"{at(node.start_mark)}: {error}") from None

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
                raise ValueError(f"{at(key_node.start_mark)}: the key {_named(key)} is given twice, first at {first}")
            places[*place, key] = at(key_node.start_mark)
            found[key] = value(value_node, (*place, key))
        return found

    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        hint = next((f"; {way}" for problem, way in HINTS.items() if problem in str(error.problem)), "")
        raise ValueError(f"{at(error.problem_mark)}: not YAML: {error.problem}{hint}") from None
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


def flow(content: object) -> str:
    """The same on one line: `[a, b]`, `{key: value}`, or a word."""
    text = yaml.dump([content], Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=inf)
    return text.strip()[1:-1]


def _scalar(text: str) -> bool | int | float | str | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or abs(int(text)) >= _LARGEST:
            raise ValueError(f"a whole number is smaller than 2^63, got {quoted(text)}")
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _named(key: object) -> str:
    return quoted(key) if isinstance(key, str) else f"'{key}'"


class _Loader(yaml.BaseLoader):
    """Refuses what is nested deeper than the recursion that reads it should go."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _DEEPEST:
            problem = f"it is nested deeper than {_DEEPEST} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML quotes by YAML 1.1, where 1e-4 is text and needs no quotes
    style = None if _scalar(text) == text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
