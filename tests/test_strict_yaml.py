import pytest

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
