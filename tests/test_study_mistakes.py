"""A mistake in a study file is one line: the file and line, the rule, the value, and what may have been meant."""

import pytest
from conftest import changed, idenctl
from study_files import GOOD, TWO_WAY, load, refused, written

FOLDS_RULE = "folds must be all, none, or a list of folds from 0 to 9, got"
A_VALUE = "base.alpha must be true or false, a finite number, or text, got"
ONE_CELL = "a baseline of a two-way table must be one cell at each depth"
FUSION = "fusion: {on: {variant: if}, off: {variant: i}}"
LOSS = "loss: {on: {alpha: 0.1}, off: {alpha: 0}}"
TWO = f"components: {{{FUSION}, {LOSS}}}"

# what stands in the file: (what is written instead, the line of the message, how it begins)
MISTAKES = {
    "name: small": [
        (
            "name: ../small",
            1,
            "name must be 1 to 64 letters, digits, _ or -, not - first, and no device of Windows such as nul",
        ),
        ("name: 7", 1, "name should be a valid string, got 7"),
        ("name: [", 2, "not YAML: "),
        ("\tname: small", 1, "not YAML: found character '\\t' that cannot start any token; indent with spaces"),
        ("nam: small", 1, "unknown key 'nam'; did you mean 'name'? valid: name, question, workload, dataset"),
        ("<<: {name: x}\nname: small", 1, "unknown key '<<'"),
        ("profile: quick\nname: small", 1, "'profile' is what a frozen study records; remove it"),
    ],
    "dataset: oulu-casia": [
        (
            "dataset: oulu",
            3,
            "unknown data set 'oulu'; did you mean 'oulu-casia'? valid: oulu-casia, ck+, mmi, ferplus",
        ),
        ("dataset: ferpuls", 3, "unknown data set 'ferpuls'; did you mean 'ferplus'?"),
    ],
    "folds: [0, 1]": [
        ("folds: [0, 10]", 4, f"{FOLDS_RULE} [0, 10]"),
        ("folds: [-1]", 4, f"{FOLDS_RULE} [-1]"),
        ("folds: some", 4, f"{FOLDS_RULE} 'some'"),
        ("folds: [null, 1]", 4, f"{FOLDS_RULE} [None, 1]"),
        ("folds: [1, 1]", 4, "folds must not hold a value twice, got [1, 1]"),
        ("folds: [0.5]", 4, "folds.0 should be a valid integer, got 0.5"),
        ("folds: []", 4, "folds must not be empty, or the study has no trials, got []"),
    ],
    "seeds: [0]": [
        ("seeds: []", 5, "seeds must not be empty, or the study has no trials, got []"),
        ("seeds: [-1]", 5, "seeds must be integers of at least 0, got [-1]"),
    ],
    "depth: 16": [
        ("depth: 17", 8, "depth must be 6n + 4 with n >= 1, such as 16, 22 or 40, got 17"),
    ],
    "alpha: 0.1": [
        ("alpha: -1", 9, "alpha must be a number of at least 0, got -1.0"),
        ("alpha: .inf", 9, "alpha must be a number of at least 0, got '.inf'"),
        ("alpha: 1e999", 9, f"{A_VALUE} inf"),
        ("alpha: [0.1]", 9, f"{A_VALUE} [0.1]"),
        ("alpha:", 9, f"{A_VALUE} None"),
        ("alpha: &a 0.1\n  gamma: *a", 10, "aliases such as *name are not supported; write the value out"),
        ("alpha: !!float 1", 9, "tags are not supported, got tag:yaml.org,2002:float"),
        ("augment: no", 9, "augment must be true or false, got 'no'"),
        ("alpah: 0.1", 9, "unknown setting 'alpah'; did you mean 'alpha'?"),
        ("alpha: 0.1\n  depth: 22", 10, "the key 'depth' is given twice, first at "),
    ],
    "\n  cells: [{variant: f}]\n  grid:\n    id_rate: [0.5, 1]": [
        (" {}", 10, "design must list cells, a grid, zip, one_at_a_time or components"),
    ],
    "cells: [{variant: f}]": [
        ("cells: [{variant: g}]", 11, "variant must be one of original, i, f, if, got 'g'"),
        ("cells: {variant: f}", 11, "design.cells should be a valid list, got {'variant': 'f'}"),
    ],
    "id_rate: [0.5, 1]": [
        ("id_rate: [0.5, 1.5]", 13, "id_rate must be a share from 0 to 1, got 1.5"),
        ("id_rate: 1", 13, "design.grid.id_rate should be a valid list, got 1"),
        ("id_rate: []", 13, "design.grid.id_rate must not be empty, or the study has no trials, got []"),
        ("id_rate: [1, 1.0]", 13, "design.grid.id_rate must not hold a value twice, got [1, 1.0]"),
    ],
    "emotion: {epochs: 2}": [
        ("emotoin: {epochs: 2}", 15, "unknown trunk 'emotoin'; did you mean 'emotion'?"),
        ("emotion: {epochs: 0}", 15, "epochs must be an integer of at least 1, got 0"),
        ("emotion: {dataset: fer}", 15, "unknown data set 'fer'; "),
    ],
    "base: {epochs: 3}": [
        ("base: {epoch: 3}", 18, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ("bases: {epochs: 3}", 18, "unknown key 'profiles.quick.bases'; did you mean 'base'? valid: base"),
    ],
    "by: id_rate, values": [
        ("by: [id_rate, id_rate], values", 22, "reference.by must be a setting, or two of them as [rows, columns]"),
        ("by: [], values", 22, "reference.by must be a setting, or two of them as [rows, columns], got []"),
        ("by: [id_rate, expresion], values", 22, "unknown setting 'expresion'; did you mean 'expression'?"),
        (
            "by: [expression, id_rate], values",
            22,
            "unknown setting 'expression'; did you mean 'compression'? valid: variant",
        ),
        ("by: [id_rate, expression], values", 22, "values by expression need a table to stand in; set report:"),
        ("by: [id_rate, depth], values", 22, "reference.values.0 must be a mapping from depth to numbers, as by says"),
    ],
    "{0: 80, 1: 90.5}": [
        ("{0: 80, 1: x}", 22, "reference.values.1 must be a number, or a mapping to numbers, got 'x'"),
        ("{0: {a: x}, 1: 90.5}", 22, "reference.values.0 must be a number, or a mapping to numbers, got {'a': 'x'}"),
        ("{0: {f: 80}, 1: 90.5}", 22, "reference.values.0 must be a number, as by says, got {'f': 80.0}"),
        ("{0: 80, 2: 90}", 22, "id_rate must be a share from 0 to 1, got 2.0"),
        ("{0: 80, g: 90}", 22, "id_rate must be a share from 0 to 1, got 'g'"),
    ],
    "report: {by: id_rate, baselines: [{variant: f}]}": [
        ("", 1, "the key 'report' is missing"),
        ("report: {by: id_rat, baselines: []}", 23, "unknown setting 'id_rat'; did you mean 'id_rate'?"),
        ("report: {by: components}", 23, "unknown setting 'components'; valid: variant, depth"),
        ("report: {by: [id_rate, gamma]}", 23, "a two-way table needs a value of id_rate in every cell; set it"),
        (
            "report: {by: id_rate, baselines: [{variant: original}]}",
            23,
            "a baseline must be one cell of the design, got {'variant': 'original'}; name all that a cell says, as in",
        ),
        (
            "report: {by: id_rate, show: [faces]}",
            23,
            "report.show.0 should be 'details', 'expressions', 'confusion' or 'subjects', got 'faces'",
        ),
        (
            "report: {by: id_rate, show: [subjects, subjects]}",
            23,
            "report.show must not hold a value twice, got ['subjects', 'subjects']",
        ),
    ],
}
# lines that are written into the design between its cells, line 11, and its grid
DESIGNS = [
    ("zip: {alpha: [0.1, 0.2], gamma: [2]}", 12, "the lists of zip must have the same length, got alpha 2, gamma 1"),
    ("zip: {alpha: [1, 1]}", 12, "design.zip.alpha must not hold a value twice, got [1, 1]"),
    ("zip: {alpah: [1]}", 12, "unknown setting 'alpah'; did you mean 'alpha'?"),
    ("one_at_a_time: {alpha: []}", 12, "design.one_at_a_time.alpha must not be empty, or the study has no trials"),
    ("one_at_a_time: {alpha: [-1]}", 12, "alpha must be a number of at least 0, got -1.0"),
    ("leave_one_out: all", 12, "leave_one_out needs at least two components, got none; name more"),
    (
        f"components: {{{FUSION}}}\n  add_one_in: all",
        13,
        "add_one_in needs at least two components, got fusion; name more",
    ),
    (TWO, 12, "components are switched by leave_one_out or add_one_in, got neither; add one"),
    (f"{TWO}\n  add_one_in: []", 13, "design.add_one_in must not be empty"),
    (f"{TWO}\n  add_one_in: [loss, loss]", 13, "design.add_one_in must not hold a value twice, got ['loss', 'loss']"),
    (f"{TWO}\n  add_one_in: fusion", 13, "design.add_one_in must be all, or a list of components, got 'fusion'"),
    (
        f"{TWO}\n  leave_one_out: [fusoin]",
        13,
        "unknown component 'fusoin'; did you mean 'fusion'? valid: fusion, loss",
    ),
    (
        f"components: {{{FUSION}, loss: {{on: {{variant: i}}, off: {{variant: f}}}}}}\n  add_one_in: all",
        12,
        "a setting belongs to one component, got variant in fusion and loss; find settings that switch them apart",
    ),
    (
        "components: {fusion: {on: {variant: f}, off: {depth: 16}}}",
        12,
        "design.components.fusion must give the same settings a value on and off, got",
    ),
    ("components: {a: {on: {gamma: 1}, off: {gamma: 1}}}", 12, "design.components.a must differ on and off"),
    ("components: {a: {on: {gamma: 1}, of: {gamma: 1}}}", 12, "unknown key 'design.components.a.of'; did you mean"),
    (
        f"{TWO.replace('alpha', 'alpah')}\n  add_one_in: all",
        12,
        "unknown setting 'alpah'; did you mean 'alpha'?",
    ),
]
IN_TWO_WAYS = {
    "{anger: 70, all": [
        ("{angre: 70, all", 7, "unknown expression 'angre'; did you mean 'anger'? valid: neutral, anger"),
    ],
    "f: {fear: 0}": [
        ("g: {fear: 0}", 8, "variant must be one of original, i, f, if, got 'g'"),
        ("f: 1", 8, "reference.values.f must be a mapping from expression to numbers, as by says, got 1.0"),
    ],
    "by: [variant, depth]": [
        ("by: [variant, dept]", 10, "unknown setting 'dept'; did you mean 'depth'?"),
    ],
    "[{variant: original}]": [
        ("[{variant: i}]", 11, ONE_CELL),
        ("[{variant: f, depth: 16}]", 11, f"{ONE_CELL}, got {{'variant': 'f', 'depth': 16}}"),
        ("[{}]", 11, f"{ONE_CELL}, got {{}}"),
    ],
    "folds: none": [
        ("folds: nine", 16, f"{FOLDS_RULE} 'nine'"),
    ],
}
CASES = [
    *((GOOD, old, *case) for old, cases in MISTAKES.items() for case in cases),
    *((GOOD, "  grid:", f"  {lines}\n  grid:", line, message) for lines, line, message in DESIGNS),
    *((TWO_WAY, old, *case) for old, cases in IN_TWO_WAYS.items() for case in cases),
]
each_mistake = pytest.mark.parametrize(
    ("text", "old", "new", "line", "message"), CASES, ids=[f"{new}: line {line}" for _, _, new, line, _ in CASES]
)


@each_mistake
def test_a_mistake_is_one_line_with_its_place_and_the_value(tmp_path, text, old, new, line, message):
    path = written(tmp_path, changed(text, old, new))
    assert refused(lambda: load(path)).startswith(f"{path}:{line}: {message}")


@each_mistake
def test_a_mistake_in_a_study_file_exits_with_2_and_that_line(tmp_path, text, old, new, line, message):
    path = written(tmp_path, changed(text, old, new))
    ended = idenctl("study", "plan", path, "--store", tmp_path / "runs")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {refused(lambda: load(path))}\n"
    assert ended.stderr.startswith(f"error: {path}:{line}: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "1: a study is a mapping of keys such as name and design, got None"),
        (b"- a\n- b\n", "1: a study is a mapping of keys such as name and design, got ['a', 'b']"),
        (b"\x89PNG", " a study file is UTF-8 text, got the byte 0x89"),
        (b"a: \x01", " not YAML: special characters are not allowed"),
        (b"a: 1\n---\nb: 2\n", "2: not YAML: but found another document; leave one, without ---"),
        (b"a: b: c\n", "1: not YAML: mapping values are not allowed here; quote a text that holds ': '"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path, content, message):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    assert refused(lambda: load(path)).startswith(f"{path}:{message}")


def test_a_missing_file_names_the_one_that_was_meant(tmp_path):
    path = written(tmp_path)
    missing = path.with_name("smal.yaml")
    with pytest.raises(FileNotFoundError) as refusal:
        load(missing)
    assert str(refusal.value) == f"no study file {missing}; did you mean '{path}'? valid: {path}"
    with pytest.raises(IsADirectoryError, match="is a folder; give a study file"):
        load(path.parent)
