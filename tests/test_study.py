import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from orchestrator import strict_yaml
from orchestrator.cli import app
from orchestrator.design import cells, describe
from orchestrator.idennet import Idennet
from orchestrator.study import assignments, dump
from orchestrator.study import load as load_by

RULES = Idennet.rules
load = partial(load_by, rules_of=lambda name: RULES)
SHIPPED = Path(__file__).parent.parent / "studies" / "oulu_idrate.yaml"
# Kept one value a line, so that a mistake's line number says which value was meant.
GOOD = """\
name: small
question: Does it load?
dataset: oulu-casia
folds: [0, 1]
seeds: [0]
base:
  variant: if
  depth: 16
  alpha: 0.1
design:
  cells: [{variant: f}]
  grid:
    id_rate: [0.5, 1]
trunks:
  emotion: {epochs: 2}
profiles:
  quick:
    base: {epochs: 3}
    design: {grid: {id_rate: [1]}}
    folds: all
    trunks: {emotion: {lr: 0.2}}
reference: {source: somewhere, metric: accuracy, by: id_rate, values: {0: 80, 1: 90.5}}
report: {by: id_rate, baselines: [{variant: f}]}
"""
ONE = "components: {fusion: {on: {variant: if}, off: {variant: i}}}"
TWO = ONE[:-1] + ", loss: {on: {alpha: 0.1}, off: {alpha: 0}}}"
# (what is written, instead of what, the line and the words of the message)
MISTAKES = [
    ("name: ../small", "name: small", "1: name must be 1 to 64 letters, digits, _ or -, got '../small'"),
    ("name: 7", "name: small", "1: name should be a valid string, got 7"),
    ("name: [", "name: small", "not YAML: "),
    ("\tname: small", "name: small", "1: not YAML: "),
    (
        "nam: small",
        "name: small",
        "1: unknown key 'nam'; did you mean 'name'? valid: name, question, workload, dataset",
    ),
    ("", "report: {by: id_rate, baselines: [{variant: f}]}\n", "1: the key 'report' is missing"),
    ("<<: {name: x}\nname: small", "name: small", "1: unknown key '<<'"),
    ("dataset: oulu", "dataset: oulu-casia", "3: unknown data set 'oulu'; valid: oulu-casia, ck+, mmi, ferplus"),
    ("dataset: ferpuls", "dataset: oulu-casia", "3: unknown data set 'ferpuls'; did you mean 'ferplus'?"),
    ("folds: [0, 10]", "folds: [0, 1]", "4: folds must be all, none, or a list of folds from 0 to 9, got [0, 10]"),
    ("folds: [-1]", "folds: [0, 1]", "4: folds must be all, none, or a list of folds from 0 to 9, got [-1]"),
    ("folds: some", "folds: [0, 1]", "4: folds must be all, none, or a list of folds from 0 to 9, got 'some'"),
    ("folds: [1, 1]", "folds: [0, 1]", "4: folds must not hold a value twice, got [1, 1]"),
    ("folds: [0.5]", "folds: [0, 1]", "4: folds.0 should be a valid integer, got 0.5"),
    ("folds: [null, 1]", "folds: [0, 1]", "4: folds must be all, none, or a list of folds from 0 to 9, got [None, 1]"),
    ("folds: []", "folds: [0, 1]", "4: folds must not be empty, or the study has no trials, got []"),
    ("seeds: []", "seeds: [0]", "5: seeds must not be empty, or the study has no trials, got []"),
    ("seeds: [-1]", "seeds: [0]", "5: seeds must be integers of at least 0, got [-1]"),
    ("depth: 17", "depth: 16", "8: depth must be 6n + 4 with n >= 1, such as 16, 22 or 40, got 17"),
    ("alpha: -1", "alpha: 0.1", "9: alpha must be a number of at least 0, got -1.0"),
    ("alpha: .inf", "alpha: 0.1", "9: alpha must be a number of at least 0, got '.inf'"),
    ("alpha: 1e999", "alpha: 0.1", "9: base.alpha must be true or false, a finite number, or text, got inf"),
    (
        "alpha: [0.1]",
        "alpha: 0.1",
        "9: base.alpha must be true or false, a finite number, or text, got [0.1]",
    ),
    ("alpha:", "alpha: 0.1", "9: base.alpha must be true or false, a finite number, or text, got None"),
    ("alpha: &a 0.1\n  gamma: *a", "alpha: 0.1", "10: aliases such as *name are not supported"),
    ("alpha: !!float 1", "alpha: 0.1", "9: tags are not supported, got tag:yaml.org,2002:float"),
    ("augment: no", "alpha: 0.1", "9: augment must be true or false, got 'no'"),
    ("alpah: 0.1", "alpha: 0.1", "9: unknown setting 'alpah'; did you mean 'alpha'?"),
    ("alpha: 0.1\n  depth: 22", "alpha: 0.1", "10: the key 'depth' is given twice, first at "),
    (
        "cells: [{variant: g}]",
        "cells: [{variant: f}]",
        "11: variant must be one of original, i, f, if, got 'g'",
    ),
    (
        "cells: {variant: f}",
        "cells: [{variant: f}]",
        "11: design.cells should be a valid list, got {'variant': 'f'}",
    ),
    ("id_rate: [0.5, 1.5]", "id_rate: [0.5, 1]", "13: id_rate must be a share from 0 to 1, got 1.5"),
    ("id_rate: 1", "id_rate: [0.5, 1]", "13: design.grid.id_rate should be a valid list, got 1"),
    (
        "id_rate: []",
        "id_rate: [0.5, 1]",
        "13: design.grid.id_rate must not be empty, or the study has no trials",
    ),
    ("id_rate: [1, 1.0]", "id_rate: [0.5, 1]", "13: design.grid.id_rate must not hold a value twice"),
    (
        " {}",
        "\n  cells: [{variant: f}]\n  grid:\n    id_rate: [0.5, 1]",
        "10: design must list cells, a grid, zip, one_at_a_time or components",
    ),
    (
        "  emotoin: {epochs: 2}",
        "  emotion: {epochs: 2}",
        "15: unknown trunk 'emotoin'; did you mean 'emotion'?",
    ),
    ("{epochs: 0}", "{epochs: 2}", "15: epochs must be an integer of at least 1, got 0"),
    ("{dataset: fer}", "{epochs: 2}", "15: unknown data set 'fer'; "),
    ("base: {epoch: 3}", "base: {epochs: 3}", "18: unknown setting 'epoch'; did you mean 'epochs'?"),
    (
        "bases: {epochs: 3}",
        "base: {epochs: 3}",
        "18: unknown key 'profiles.quick.bases'; did you mean 'base'? valid: base",
    ),
    ("{0: 80, 1: x}", "{0: 80, 1: 90.5}", "22: reference.values.1 must be a number, or a mapping to numbers, got 'x'"),
    ("{by: id_rat, base", "{by: id_rate, base", "23: unknown setting 'id_rat'; did you mean 'id_rate'?"),
    ("[{variant: original}]}\n", "[{variant: f}]}\n", "a baseline must be one cell of the design"),
    (
        "values: {0: {a: x}, 1: 90.5}",
        "values: {0: 80, 1: 90.5}",
        "22: reference.values.0 must be a number, or a mapping to numbers, got {'a': 'x'}",
    ),
    (
        "values: {0: {f: 80}, 1: 90.5}",
        "values: {0: 80, 1: 90.5}",
        "22: reference.values.0 must be a number, as by says, got {'f': 80.0}",
    ),
    ("values: {0: 80, 2: 90}", "values: {0: 80, 1: 90.5}", "22: id_rate must be a share from 0 to 1, got 2"),
    ("values: {0: 80, g: 90}", "values: {0: 80, 1: 90.5}", "22: id_rate must be a share from 0 to 1, got 'g'"),
    (
        "by: [id_rate, id_rate], v",
        "by: id_rate, v",
        "22: reference.by must be a setting, or two of them as [rows, columns]",
    ),
    ("by: [], v", "by: id_rate, v", "22: reference.by must be a setting, or two of them as [rows, columns], got []"),
    ("by: [id_rate, expresion], v", "by: id_rate, v", "unknown setting 'expresion'; did you mean 'expression'?"),
    (
        "by: [expression, id_rate], v",
        "by: id_rate, v",
        "22: unknown setting 'expression'; did you mean 'compression'? valid: variant",
    ),
    (
        "by: [id_rate, expression], v",
        "by: id_rate, v",
        "22: values by expression need a table to stand in; set report:",
    ),
    (
        "by: [id_rate, depth], v",
        "by: id_rate, v",
        "22: reference.values.0 must be a mapping from depth to numbers, as by",
    ),
    (
        "{by: [id_rate, gamma], b",
        "{by: id_rate, b",
        "23: a two-way table needs a value of id_rate in every cell; set it",
    ),
    (
        "{show: [faces], by",
        "{by",
        "23: report.show.0 should be 'details', 'expressions', 'confusion' or 'subjects', got 'faces'",
    ),
    ("{show: [subjects, subjects], by", "{by", "23: report.show must not hold a value twice"),
    (
        "zip: {alpha: [0.1, 0.2], gamma: [2]}\n  grid:",
        "grid:",
        "12: the lists of zip must have the same length, got alpha 2, gamma 1",
    ),
    ("zip: {alpha: [1, 1]}\n  grid:", "grid:", "12: design.zip.alpha must not hold a value twice, got [1, 1]"),
    ("zip: {alpah: [1]}\n  grid:", "grid:", "12: unknown setting 'alpah'; did you mean 'alpha'?"),
    (
        "one_at_a_time: {alpha: []}\n  grid:",
        "grid:",
        "12: design.one_at_a_time.alpha must not be empty, or the study has",
    ),
    ("one_at_a_time: {alpha: [-1]}\n  grid:", "grid:", "12: alpha must be a number of at least 0, got -1.0"),
    ("leave_one_out: all\n  grid:", "grid:", "12: leave_one_out needs at least two components, got none; name more"),
    (
        f"{ONE}\n  add_one_in: all\n  grid:",
        "grid:",
        "13: add_one_in needs at least two components, got fusion; name more",
    ),
    (f"{TWO}\n  grid:", "grid:", "12: components are switched by leave_one_out or add_one_in, got neither; add one"),
    (f"{TWO}\n  add_one_in: []\n  grid:", "grid:", "13: design.add_one_in must not be empty"),
    (f"{TWO}\n  add_one_in: [loss, loss]\n  grid:", "grid:", "13: design.add_one_in must not hold a value twice"),
    (
        f"{TWO}\n  add_one_in: fusion\n  grid:",
        "grid:",
        "13: design.add_one_in must be all, or a list of components, got 'fusion'",
    ),
    (
        f"{TWO}\n  leave_one_out: [fusoin]\n  grid:",
        "grid:",
        "13: unknown component 'fusoin'; did you mean 'fusion'? valid: fusion, loss",
    ),
    (
        f"{TWO.replace('alpha: 0.1', 'variant: i').replace('alpha: 0', 'variant: f')}\n  add_one_in: all\n  grid:",
        "grid:",
        "12: a setting belongs to one component, got variant in fusion and loss; find settings that switch them apart",
    ),
    (
        "components: {fusion: {on: {variant: f}, off: {depth: 16}}}\n  grid:",
        "grid:",
        "12: design.components.fusion must give the same settings a value on and off, got",
    ),
    (
        "components: {a: {on: {gamma: 1}, off: {gamma: 1}}}\n  grid:",
        "grid:",
        "12: design.components.a must differ on and off",
    ),
    (
        "components: {a: {on: {gamma: 1}, of: {gamma: 1}}}\n  grid:",
        "grid:",
        "12: unknown key 'design.components.a.of'; did you mean",
    ),
    (
        f"{TWO.replace('alpha', 'alpah')}\n  add_one_in: all\n  grid:",
        "grid:",
        "12: unknown setting 'alpah'; did you mean 'alpha'?",
    ),
    ("{by: components, b", "{by: id_rate, b", "23: unknown setting 'components'; valid: variant, depth"),
    ("profile: quick\nname: small", "name: small", "1: 'profile' is what a frozen study records; remove it"),
]
OVERRIDES = [
    ("id_rate=1", "--set id_rate=1: the study varies id_rate; edit its design or search instead"),
    ("variant=f", "--set variant=f: the study varies variant; edit its design or search instead"),
    ("depht=16", "--set depht=16: unknown setting 'depht'; did you mean 'depth'?"),
    ("depth=17", "--set depth=17: depth must be 6n + 4 with n >= 1, such as 16, 22 or 40, got 17"),
    ("epochs=", "--set epochs=: base.epochs must be true or false, a finite number, or text, got None"),
    ("epochs=[1]", "--set epochs=[1]: base.epochs must be true or false, a finite number, or text, got [1]"),
    ("epochs=[", "--set epochs=[: not YAML: "),
    ("folds.x=1", "--set folds.x=1: a key is a setting, or trunks.TASK.SETTING, got 'folds.x'"),
    ("trunks.x.lr=1", "--set trunks.x.lr=1: unknown trunk 'x'; valid: emotion, identity"),
    (
        "trunks.emotion.epoch=1",
        "--set trunks.emotion.epoch=1: unknown setting 'epoch'; did you mean 'epochs'?",
    ),
    ("epochs", "--set takes key=value, got 'epochs'"),
]


@pytest.fixture
def study_file(tmp_path):
    def write(text=GOOD):
        path = tmp_path / "small.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def with_mistake(written, instead_of):
    assert instead_of in GOOD
    return GOOD.replace(instead_of, written, 1)


def refused(call):
    with pytest.raises((ValueError, OSError)) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def command(monkeypatch, capsys, *arguments):
    """Exit status and stderr of a command line."""
    monkeypatch.setattr(sys, "argv", ["idenctl", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code, capsys.readouterr().err


TWO_WAY = """\
design: {grid: {variant: [original, f], depth: [16, 22]}}
reference:
  source: somewhere
  metric: accuracy
  by: [variant, expression]
  values:
    original: {anger: 70, all: 80.5}
    f: {fear: 0}
report:
  by: [variant, depth]
  baselines: [{variant: original}]
  show: [expressions]
name: two
question: Which way?
dataset: ferplus
folds: none
"""


def test_a_two_way_study_becomes_what_it_says_and_a_frozen_one_is_the_same(study_file, tmp_path):
    study = load(study_file(TWO_WAY))
    assert study.folds == [None]
    assert study.report.by == ["variant", "depth"]
    assert study.reference.values == {"original": {"anger": 70, "all": 80.5}, "f": {"fear": 0}}
    (tmp_path / "frozen.yaml").write_text(dump(study))
    assert "folds: none" in dump(study)
    assert load(tmp_path / "frozen.yaml") == study


@pytest.mark.parametrize(
    ("written", "instead_of", "message"),
    [
        (
            "{angre: 70, all",
            "{anger: 70, all",
            "7: unknown expression 'angre'; did you mean 'anger'? valid: neutral, anger",
        ),
        ("    g: {fear: 0}", "    f: {fear: 0}", "8: variant must be one of original, i, f, if, got 'g'"),
        (
            "f: 1",
            "f: {fear: 0}",
            "8: reference.values.f must be a mapping from expression to numbers, as by says, got 1.0",
        ),
        ("by: [variant, dept]", "by: [variant, depth]", "10: unknown setting 'dept'; did you mean 'depth'?"),
        ("[{variant: i}]", "[{variant: original}]", "11: a baseline of a two-way table must be one cell at each depth"),
        (
            "[{variant: f, depth: 16}]",
            "[{variant: original}]",
            "11: a baseline of a two-way table must be one cell at each depth, got {'variant': 'f', 'depth': 16}",
        ),
        ("[{}]", "[{variant: original}]", "11: a baseline of a two-way table must be one cell at each depth, got {}"),
        ("folds: nine", "folds: none", "16: folds must be all, none, or a list of folds from 0 to 9, got 'nine'"),
    ],
)
def test_a_mistake_in_a_two_way_study_is_one_line_with_its_place(study_file, written, instead_of, message):
    assert TWO_WAY.count(instead_of) == 1
    path = study_file(TWO_WAY.replace(instead_of, written))
    assert f"{path}:{message}" in refused(lambda: load(path))


def test_a_study_file_becomes_what_it_says(study_file):
    study = load(study_file())
    assert (study.name, study.folder, study.folds, study.seeds) == ("small", "small", [0, 1], [0])
    assert study.base == {"variant": "if", "depth": 16, "alpha": 0.1}
    assert [describe(cell.label) for cell in cells(study)] == ["variant=f", "id_rate=0.5", "id_rate=1"]
    assert study.reference.values == {0: 80, 1: 90.5}


@pytest.mark.parametrize(("written", "instead_of", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_its_place_and_the_value(study_file, written, instead_of, message):
    path = study_file(with_mistake(written, instead_of))
    said = refused(lambda: load(path))
    assert said.startswith(f"{path}:")
    assert message in said.removeprefix(f"{path}:")


@pytest.mark.parametrize(("written", "instead_of", "message"), MISTAKES)
def test_a_mistake_in_a_study_file_exits_with_2_and_one_line(
    monkeypatch, capsys, tmp_path, study_file, written, instead_of, message
):
    path = study_file(with_mistake(written, instead_of))
    status, said = command(monkeypatch, capsys, "study", "plan", path, "--store", tmp_path / "runs")
    assert status == 2
    assert said.startswith(f"error: {path}:")
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "1: a study is a mapping of keys such as name and design, got None"),
        (b"- a\n- b\n", "1: a study is a mapping of keys such as name and design, got ['a', 'b']"),
        (b"\x89PNG", " a study file is UTF-8 text, got the byte 0x89"),
        (b"a: \x01", " not YAML: special characters are not allowed"),
        (b"a: 1\n---\nb: 2\n", "2: not YAML: "),
        (b"a: b: c\n", "1: not YAML: mapping values are not allowed here; quote a text that holds ': '"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path, content, message):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    assert f"{path}:{message}" in refused(lambda: load(path))


def test_a_missing_file_names_the_one_that_was_meant(study_file):
    path = study_file()
    missing = path.with_name("smal.yaml")
    with pytest.raises(FileNotFoundError, match=f"no study file {missing}; did you mean '{path}'?"):
        load(missing)
    with pytest.raises(IsADirectoryError, match="is a folder; give a study file"):
        load(path.parent)


def test_a_missing_file_exits_with_2_and_only_debug_shows_a_traceback(monkeypatch, capsys, tmp_path):
    arguments = ["study", "plan", tmp_path / "none.yaml", "--store", tmp_path / "runs"]
    status, said = command(monkeypatch, capsys, *arguments)
    assert (status, len(said.splitlines())) == (2, 1)
    status, said = command(monkeypatch, capsys, *arguments, "--debug")
    assert status == 2
    assert "Traceback" in said


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


def test_a_profile_is_merged_key_by_key_and_lists_are_replaced(study_file):
    study = load(study_file(), "quick")
    assert study.folder == "small@quick"
    assert study.base == {"variant": "if", "depth": 16, "alpha": 0.1, "epochs": 3}
    assert study.trunks == {"emotion": {"epochs": 2, "lr": 0.2}}
    assert study.design.grid == {"id_rate": [1]}
    assert study.design.cells == [{"variant": "f"}]
    assert study.folds == list(range(10))


def test_an_unknown_profile_is_refused_with_those_there(study_file):
    assert "unknown profile 'quik'; did you mean 'quick'? valid: quick" in refused(lambda: load(study_file(), "quik"))


def test_a_rule_that_a_profile_breaks_is_placed_in_the_profile(study_file):
    path = study_file(with_mistake("base: {depth: 17}", "base: {epochs: 3}"))
    for profile in (None, "quick"):
        assert refused(lambda name=profile: load(path, name)).startswith(f"{path}:18: depth must be")


def test_overrides_come_after_the_profile_and_are_recorded(study_file):
    study = load(study_file(), "quick", {"epochs": "7", "lr": "1e-3", "trunks.identity.seed": "4"})
    assert study.base["epochs"] == 7
    assert study.base["lr"] == 0.001
    assert study.trunks["identity"] == {"seed": 4}
    assert (study.profile, study.overrides) == (
        "quick",
        {"epochs": 7, "lr": 0.001, "trunks.identity.seed": 4},
    )


@pytest.mark.parametrize(("override", "message"), OVERRIDES)
def test_an_override_that_cannot_be_is_refused(monkeypatch, capsys, tmp_path, study_file, override, message):
    path = study_file()
    assert message in refused(lambda: load(path, None, assignments([override])))
    arguments = ["study", "plan", path, "--store", tmp_path / "runs", "--set", override]
    status, said = command(monkeypatch, capsys, *arguments)
    assert (status, len(said.splitlines())) == (2, 1)
    assert message in said


def test_a_key_cannot_be_overridden_twice():
    assert "--set gives 'lr' twice: 1 and 2; keep one" in refused(lambda: assignments(["lr=1", "lr=2"]))


@pytest.mark.parametrize(("profile", "overrides"), [(None, {}), ("quick", {"gamma": "2", "trunks.emotion.lr": "1e-5"})])
def test_a_frozen_study_loads_to_the_same_study(tmp_path, profile, overrides):
    study = load(SHIPPED, profile, overrides)
    frozen = tmp_path / "study.yaml"
    frozen.write_text(dump(study), encoding="utf-8")
    assert load(frozen) == study
    assert dump(load(frozen)) == dump(study)


def test_the_shipped_study_holds_original_f_and_five_rates_on_ten_folds():
    for profile in (None, "quick"):
        study = load(SHIPPED, profile)
        labels = [dict(cell.label) for cell in cells(study)]
        assert labels == [{"variant": "original"}, {"variant": "f"}] + [
            {"id_rate": rate} for rate in (0.2, 0.4, 0.6, 0.8, 1.0)
        ]
        assert len(labels) * len(study.folds) * len(study.seeds) == 70
        assert study.reference.values == {0: 87.18, 0.2: 87.56, 0.4: 89.06, 0.6: 89.46, 0.8: 91.02, 1: 93.95}
        assert "unclear" in study.reference.note


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "error: No such command 'bogus'; see: idenctl --help"),
        (["study", "run"], "error: Missing argument 'FILE'; see: idenctl study run --help"),
        (["report", "x", "--format", "pdf"], "'pdf' is not one of 'terminal', 'markdown', 'csv', 'json'"),
        (["study", "run", "x", "--bogus"], "--bogus"),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_one_line(arguments, said):
    command = [sys.executable, "-m", "orchestrator.cli.app", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
