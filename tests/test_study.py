"""A study file becomes what it says, with a profile and overrides over it, and is frozen without loss."""

from pathlib import Path

import pytest
from conftest import changed, idenctl
from study_files import GOOD, TWO_WAY, load, refused, written

from orchestrator.design import cells, describe
from orchestrator.study import assignments, dump

SHIPPED = Path(__file__).parent.parent / "studies" / "oulu_idrate.yaml"
OVERRIDES = [
    ("id_rate=1", "--set id_rate=1: the study varies id_rate; edit its design or search instead"),
    ("variant=f", "--set variant=f: the study varies variant; edit its design or search instead"),
    ("depht=16", "--set depht=16: unknown setting 'depht'; did you mean 'depth'?"),
    ("depth=17", "--set depth=17: depth must be 6n + 4 with n >= 1, such as 16, 22 or 40, got 17"),
    ("epochs=", "--set epochs=: a setting has a value, got none; write one after the ="),
    ("epochs=null", "--set epochs=null: a setting has a value, got none; write one after the ="),
    ("seeds=[1]", "--set seeds=[1]: a key is a setting, or trunks.TASK.SETTING, got 'seeds'; edit the study file"),
    ("name=x", "--set name=x: a key is a setting, or trunks.TASK.SETTING, got 'name'; edit the study file instead"),
    ("epochs=[1]", "--set epochs=[1]: base.epochs must be true or false, a finite number, or text, got [1]"),
    ("epochs=[", "--set epochs=[: not YAML: "),
    ("folds.x=1", "--set folds.x=1: a key is a setting, or trunks.TASK.SETTING, got 'folds.x'"),
    ("trunks.x.lr=1", "--set trunks.x.lr=1: unknown trunk 'x'; valid: emotion, identity"),
    ("trunks.emotion.epoch=1", "--set trunks.emotion.epoch=1: unknown setting 'epoch'; did you mean 'epochs'?"),
    ("epochs", "--set takes key=value, got 'epochs'; write a setting, = and its value, as in depth=16"),
    ("=", "--set takes key=value, got '='; write a setting, = and its value, as in depth=16"),
]


def test_a_study_file_becomes_what_it_says(tmp_path):
    study = load(written(tmp_path))
    assert (study.name, study.folder, study.folds, study.seeds) == ("small", "small", [0, 1], [0])
    assert study.base == {"variant": "if", "depth": 16, "alpha": 0.1}
    assert [describe(cell.label) for cell in cells(study)] == ["variant=f", "id_rate=0.5", "id_rate=1"]
    assert study.reference.values == {0: 80, 1: 90.5}


def test_a_two_way_study_becomes_what_it_says_and_a_frozen_one_is_the_same(tmp_path):
    study = load(written(tmp_path, TWO_WAY))
    assert study.folds == [None]
    assert study.report.by == ["variant", "depth"]
    assert study.reference.values == {"original": {"anger": 70, "all": 80.5}, "f": {"fear": 0}}
    (tmp_path / "frozen.yaml").write_text(dump(study))
    assert "folds: none" in dump(study)
    assert load(tmp_path / "frozen.yaml") == study


def test_a_profile_is_merged_key_by_key_and_lists_are_replaced(tmp_path):
    study = load(written(tmp_path), "quick")
    assert study.folder == "small@quick"
    assert study.base == {"variant": "if", "depth": 16, "alpha": 0.1, "epochs": 3}
    assert study.trunks == {"emotion": {"epochs": 2, "lr": 0.2}}
    assert study.design.grid == {"id_rate": [1]}
    assert study.design.cells == [{"variant": "f"}]
    assert study.folds == list(range(10))


def test_an_unknown_profile_is_refused_with_those_there(tmp_path):
    path = written(tmp_path)
    said = refused(lambda: load(path, "quik"))
    assert said == f"{path}: unknown profile 'quik'; did you mean 'quick'? valid: quick"


def test_a_rule_that_a_profile_breaks_is_placed_in_the_profile(tmp_path):
    path = written(tmp_path, changed(GOOD, "base: {epochs: 3}", "base: {depth: 17}"))
    for profile in (None, "quick"):
        assert refused(lambda name=profile: load(path, name)).startswith(f"{path}:18: depth must be")


def test_overrides_come_after_the_profile_and_are_recorded(tmp_path):
    study = load(written(tmp_path), "quick", {"epochs": "7", "lr": "1e-3", "trunks.identity.seed": "4"})
    assert study.base["epochs"] == 7
    assert study.base["lr"] == 0.001
    assert study.trunks["identity"] == {"seed": 4}
    assert (study.profile, study.overrides) == ("quick", {"epochs": 7, "lr": 0.001, "trunks.identity.seed": 4})


@pytest.mark.parametrize(("override", "message"), OVERRIDES)
def test_an_override_that_cannot_be_is_refused(tmp_path, override, message):
    path = written(tmp_path)
    said = refused(lambda: load(path, None, assignments([override])))
    assert said.startswith(message)
    ended = idenctl("study", "plan", path, "--store", tmp_path / "runs", "--set", override)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"error: {said}\n")


def test_a_key_cannot_be_overridden_twice():
    assert refused(lambda: assignments(["lr=1", "lr=2"])) == "--set gives 'lr' twice: 1 and 2; keep one"


@pytest.mark.parametrize(("profile", "overrides"), [(None, {}), ("quick", {"gamma": "2", "trunks.emotion.lr": "1e-5"})])
def test_a_frozen_study_loads_to_the_same_study(tmp_path, profile, overrides):
    study = load(SHIPPED, profile, overrides)
    frozen = tmp_path / "study.yaml"
    frozen.write_text(dump(study), encoding="utf-8")
    assert load(frozen) == study
    assert dump(load(frozen)) == dump(study)
