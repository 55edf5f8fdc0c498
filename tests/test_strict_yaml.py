import pytest
from study_files import refused

from orchestrator import strict_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("if", "if"), ("no", "no"), ("off", "off"), ("y", "y"), ("true", True),
        ("null", None), ("~", None), ("", None),
        ("1e-4", 1e-4), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-3", -3),
        ("010", "010"), ("0x10", "0x10"), ("1_000", "1_000"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"),
        ("'1'", "1"), ('"true"', "true"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    read = strict_yaml.read(f"key: {text}", "f")[0]["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["1e-4", "no", "true", "null", "", "12", "a: b", "#", "two\nlines", " x ", "é", "*a"])
def test_dumped_text_is_read_back_as_the_same_text(text):
    assert strict_yaml.read(strict_yaml.dump({"key": text, text: [text]}), "f")[0] == {
        "key": text,
        text: [text],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 9223372036854775808", "f:1: a whole number is smaller than 2^63, got '9223372036854775808'"),
        ("a: -" + "9" * 5000, "f:1: a whole number is smaller than 2^63, got '-99999"),
        ("b: 1\na: " + "[" * 30 + "]" * 30, "f:2: not YAML: it is nested deeper than 20 levels"),
        ("[" * 100_000, "f:1: not YAML: it is nested deeper than 20 levels"),
        ("a: &x [1]\nb: [*x, *x]", "f:1: aliases such as *name are not supported"),
        ("a: !!python/name:os.system x", "f:1: tags are not supported"),
        ('a: "\\x1b[31m"', "f:1: text has no control characters, got '\\x1b'; remove it"),
        ('a: "\\u202egnp.exe"', "f:1: text has no control characters, got '\\u202e'; remove it"),
        ("a: " + "x" * 2**20, "f: a file may have 1,048,576 characters, got 1,048,579; shorten it"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_larger_or_stranger_than_any_study_is_refused(text, said):
    assert refused(lambda: strict_yaml.read(text, "f")).startswith(said)


@pytest.mark.parametrize("number", [2**63 - 1, 1 - 2**63])
def test_the_largest_whole_numbers_are_read(number):
    assert strict_yaml.read(f"a: {number}", "f")[0] == {"a": number}
