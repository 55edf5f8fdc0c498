"""The JSON schema of study files refuses nothing that loading accepts, and both refuse keys that there are not."""

import copy
import json
from pathlib import Path

import pytest
from conftest import idenctl
from jsonschema import Draft7Validator
from study_files import GOOD, TWO_WAY, load, written

from orchestrator import strict_yaml
from orchestrator.study import dump

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "studies" / "schema.json"
FILES = sorted([*(ROOT / "studies").rglob("*.yaml"), *(ROOT / "examples").glob("*.yaml")])
OWN = [path for path in FILES if "workload:" not in path.read_text()]
ODD = (None, True, -1, 0.5, "x", [], ["x"], {}, {"x": 1})
VALIDATOR = Draft7Validator(json.loads(SCHEMA.read_text()))


def parsed(text):
    return strict_yaml.read(text, "a file")[0]


def spoiled(content):
    """The content with each value in it replaced by odd ones, left out, or beside a key that there is not."""
    for place in places(content):
        *way, last = place
        for odd in (*ODD, "left out"):
            other = copy.deepcopy(content)
            inner = other
            for key in way:
                inner = inner[key]
            if odd == "left out":
                del inner[last]
            else:
                inner[last] = odd
            yield place, odd, other
        if isinstance(last, str):
            other = copy.deepcopy(content)
            inner = other
            for key in way:
                inner = inner[key]
            inner[f"{last}_"] = inner[last]
            yield place, "a key that there is not", other


def places(content, at=()):
    for key, inner in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))


def test_the_schema_is_one_and_the_file_beside_the_studies_is_what_the_command_prints():
    Draft7Validator.check_schema(VALIDATOR.schema)
    assert idenctl("study", "schema").stdout == SCHEMA.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_study_file_names_the_schema_and_holds_to_it(path):
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve() == SCHEMA
    VALIDATOR.validate(parsed(path.read_text()))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_study_as_it_is_kept_holds_to_the_schema(path):
    VALIDATOR.validate(parsed(dump(load(path))))


def test_every_key_of_the_schema_is_described():
    def bare(schema, at=()):
        properties = schema.get("properties", {})
        yield from ((*at, name) for name, inner in properties.items() if not inner.get("description"))
        for key, inner in schema.items():
            if isinstance(inner, dict):
                yield from bare(inner, (*at, key))

    described = {key: value for key, value in VALIDATOR.schema.items() if key not in ("then", "if")}
    assert not list(bare(described))


# where names are free to the schema, and loading says which they may be
FREE = {("report", "baselines"), ("reference", "values"), ("design", "components")}


@pytest.mark.parametrize(
    "text",
    [GOOD, TWO_WAY, (ROOT / "studies/focal_search.yaml").read_text(), (ROOT / "studies/components.yaml").read_text()],
    ids=["small", "two-way", "search", "components"],
)
def test_what_the_schema_refuses_loading_refuses(tmp_path, text):
    refused, accepted = 0, []
    for place, odd, content in spoiled(parsed(written(tmp_path, text).read_text())):
        valid = VALIDATOR.is_valid(content)
        if valid and odd != "a key that there is not":
            continue
        path = tmp_path / "spoiled.yaml"
        path.write_text(strict_yaml.dump(content))
        try:
            load(path)
        except ValueError as error:
            refused += not valid
            if valid and "unknown " in str(error):
                accepted.append(place)
        else:
            assert valid, f"{place} as {odd!r} is refused by the schema alone"
    assert refused > 100
    assert {place[:2] for place in accepted} <= FREE
