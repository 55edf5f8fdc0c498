"""Studies of other workloads than IDEnNet: named in the file, refused in one line, run, and kept apart in the store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import changed, idenctl
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, cross_val_score
from sklearn.svm import SVC

from orchestrator import runner, workload
from orchestrator.store import Store
from orchestrator.trial import IDENNET

DIGITS = Path(__file__).parent.parent / "examples" / "digits.yaml"
COIN = """\
name: coin
question: Is it fair?
workload: coin:Coin
dataset: tosses
folds: [0, 1]
design: {grid: {C: [heads, tails]}}
report: {by: C, show: [confusion, subjects]}
"""
# its setting C is text, where that of the digits is a number
COIN_MODULE = """
from dataclasses import replace
from orchestrator.planning import Estimate
from orchestrator.study_rules import Rules, complete
from orchestrator.trial import Configuration, TrialResult
from orchestrator.workload import Configured

ACCURACY = {"heads": 0.75, "tails": 0.25}


class Coin:
    rules = Rules({"C": "heads"}, datasets=("tosses",))

    def __init__(self, store):
        pass

    def configure(self, study, cells):
        found = [complete(cell.settings, self.rules.settings) for cell in cells]
        return Configured([Configuration(settings, {"recipe": "1"}) for settings in found], synthetic=False)

    def pack_key(self, trial):
        return "all"

    def estimate(self, pack, device, threads):
        return Estimate(0.0, 0, measured=True)

    def run(self, pack, context):
        facts = {"state": "complete", "synthetic": False, "n_train": 9, "n_test": 1, "seconds": 0.0}
        return [TrialResult(t, accuracy=ACCURACY[t.configuration.settings["C"]], **facts) for t in pack.trials]


class Twin(Coin):
    pass


class Lazy(Coin):
    def run(self, pack, context):
        return super().run(pack, context)[1:]


class Percent(Coin):
    def run(self, pack, context):
        return [replace(result, accuracy=100 * result.accuracy) for result in super().run(pack, context)]


class Curved(Coin):
    def run(self, pack, context):
        curve = [{"epoch": 0, "los": 1.0, "trial_id": "x"}]
        return [replace(result, curve=curve) for result in super().run(pack, context)]


class Timeless(Coin):
    def run(self, pack, context):
        return [replace(result, curve=[{"emotion_loss": 1.0}]) for result in super().run(pack, context)]


class Shy(Coin):
    estimate = property()


class Seeds(Coin):
    rules = Rules({"seed": 0}, datasets=("tosses",))


class Odd(Coin):
    rules = Rules({"C": None}, datasets=("tosses",))


def broken(store):
    raise RuntimeError("no coin")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a workload in it."""
    monkeypatch.chdir(tmp_path)
    Path("coin.py").write_text(COIN_MODULE)
    Path("half.py").write_text("import a_library_that_is_not_there\n")
    Path("coin.yaml").write_text(COIN)
    return tmp_path


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A store in which the example study has run."""
    store = tmp_path_factory.mktemp("digits") / "runs"
    assert idenctl("study", "run", DIGITS, "--engine", "inline", "--store", store).returncode == 0
    return store


def plan_of(file, store):
    done = idenctl("study", "plan", file, "--json", "--store", store)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("coin", "workload must be package.module:object, such as orchestrator.idennet:Idennet, got 'coin'"),
        ("no_coins:Coin", "no module no_coins; install it, or go to the folder that holds it"),
        ("coin.sub:Coin", "no module coin.sub; install it, or go to the folder that holds it"),
        ("half:Coin", "the module half cannot be imported: No module named 'a_library_that_is_not_there'"),
        ("coin:Cion", "the module coin has no 'Cion'; did you mean 'Coin'?"),
        (
            "coin:ACCURACY",
            "coin:ACCURACY must give a workload when it is called with the store, but raises TypeError",
        ),
        (
            "coin:broken",
            "coin:broken must give a workload when it is called with the store, but raises RuntimeError",
        ),
        ("coin:Configuration", "when it is called with the store, but raises TypeError"),
        ("coin:Shy", "a workload has rules, configure, pack_key, estimate, run, but coin:Shy lacks estimate"),
        ("coin:Seeds", "a setting must not be called as a column of the results, coin:Seeds has seed"),
        ("coin:Odd", "a setting's default is true or false, a number or text, not so in coin:Odd: C"),
    ],
)
def test_a_workload_that_is_none_is_refused_in_one_line_with_its_place(here, written, message):
    Path("coin.yaml").write_text(changed(COIN, "coin:Coin", written))
    done = idenctl("study", "plan", "coin.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: coin.yaml:3: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("verb", "body", "message"),
    [
        ("configure", "raise KeyError('side')", "coin:Coin: configure raises KeyError: 'side'; mend it, --debug shows"),
        ("pack_key", "return 1 / 0", "coin:Coin: pack_key raises ZeroDivisionError: division by zero; mend it"),
        ("estimate", "raise TypeError('no pack')", "coin:Coin: estimate raises TypeError: no pack; mend it"),
        ("estimate", "pass", "coin:Coin: estimate gives None; let it return what it found"),
    ],
)
def test_a_verb_that_raises_is_told_as_the_workloads_fault_and_not_as_ours(here, verb, body, message):
    with Path("coin.py").open("a") as module:
        module.write(f"\n\ndef odd(self, *_):\n    {body}\n\n\nodd.__name__ = {verb!r}\nCoin.{verb} = odd\n")
    done = idenctl("study", "plan", "coin.yaml")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


@pytest.mark.parametrize("elsewhere", ["installed", "another folder"])
def test_of_two_modules_of_a_name_none_is_guessed(here, tmp_path_factory, monkeypatch, elsewhere):
    folder = tmp_path_factory.mktemp("other")
    (folder / "coin.py").write_text(COIN_MODULE + "# another\n")
    if elsewhere == "installed":
        monkeypatch.syspath_prepend(folder)
    else:
        with monkeypatch.context() as there:
            there.chdir(folder)
            assert idenctl("study", "plan", here / "coin.yaml").returncode == 0
    done = idenctl("study", "plan", "coin.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    hidden = f"{here / 'coin.py'} is hidden by another coin, {folder / 'coin.py'}; rename it, or start Python anew here"
    assert f"error: coin.yaml:3: {hidden}" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset: tosses", "dataset: toses", "4: unknown data set 'toses'; did you mean 'tosses'?"),
        ("[heads, tails]", "[heads, 1]", "6: C must be text, got 1"),
        ("grid: {C:", "grid: {c:", "6: unknown setting 'c'; did you mean 'C'? valid: C"),
        ("report: {by: C", "trunks: {emotion: {epochs: 2}}\nreport: {by: C", "7: the workload has no trunks"),
    ],
)
def test_a_study_may_say_what_its_own_workload_accepts(here, old, new, message):
    Path("coin.yaml").write_text(changed(COIN, old, new))
    done = idenctl("study", "plan", "coin.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: coin.yaml:{message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Lazy", "run must give a result for each of the pack's 4 trials, gave 3"),
        ("Percent", "accuracy must be a share from 0 to 1, got 75.0"),
        ("Curved", "got los, trial_id; leave them out"),
        ("Timeless", "each point of a curve must say its epoch, one does not"),
    ],
)
def test_results_that_cannot_be_fail_the_pack_with_a_reason(here, name, message):
    Path("coin.yaml").write_text(changed(COIN, "coin:Coin", f"coin:{name}"))
    done = idenctl("study", "run", "coin.yaml", "--engine", "inline")
    assert done.returncode == 1
    assert message in done.stderr
    assert Store(Path("runs")).trials().is_empty()


def test_the_example_study_finds_what_scikit_learn_itself_finds(digits):
    pictures, labels = load_digits(return_X_y=True)
    plan = json.loads((digits / "studies/digits/plan.json").read_text())
    trials = Store(digits).trials()
    assert trials.height == 70
    for cell in plan["cells"]:
        settings = {"kernel": "rbf"} | cell["label"]
        folds = KFold(10, shuffle=True, random_state=0)
        expected = cross_val_score(SVC(**settings), pictures, labels, cv=folds)
        own = trials.filter(configuration_id=cell["configuration_id"]).sort("fold")
        assert own["accuracy"].to_list() == expected.tolist()
        assert own["n_test"].to_list() == [len(test) for _, test in folds.split(pictures)]


def test_the_example_study_is_planned_listed_and_reported_like_any_other(digits, tmp_path):
    before = plan_of(DIGITS, tmp_path / "empty")
    assert (before["trials"], before["stored"], len(before["packs"])) == (70, 0, 7)
    assert (plan_of(DIGITS, digits)["stored"], plan_of(DIGITS, digits)["packs"]) == (70, [])
    (listed,) = json.loads(idenctl("study", "list", "--json", "--store", digits).stdout)
    assert (listed["study"], listed["complete"], listed["synthetic"]) == ("digits", 70, False)
    for format in ("terminal", "markdown", "csv", "json"):
        done = idenctl("report", "digits", "--format", format, "--store", digits)
        assert done.returncode == 0, done.stderr
        assert "SYNTHETIC" not in done.stdout
    report = json.loads(done.stdout)
    assert report["provenance"]["workload"] == "examples.sklearn_digits:Digits"
    assert [row["accuracy"]["mean"] for row in report["rows"]] == pytest.approx(
        [
            Store(digits).trials().filter(configuration_id=row["configuration_id"])["accuracy"].mean() * 100
            for row in report["rows"]
        ]
    )


def test_the_frozen_study_and_its_provenance_name_the_workload(digits):
    folder = digits / "studies/digits"
    wanted = runner.load(DIGITS, None, {}, Store(digits))
    assert runner.load(folder / "study.yaml", None, {}, Store(digits)) == wanted
    assert "workload: examples.sklearn_digits:Digits" in (folder / "study.yaml").read_text()
    assert json.loads((folder / "provenance.json").read_text())["workload"] == wanted.workload


def test_a_study_that_names_no_workload_is_of_idennet(trained_store):
    assert runner.load(trained_store / "tiny.yaml", None, {}, Store(trained_store)).workload == IDENNET
    cells = json.loads((trained_store / "studies/tiny/plan.json").read_text())["cells"]
    assert all("workload" not in cell["inputs"] for cell in cells), "stored trials keep their ids"


def test_two_workloads_never_share_a_trial_whatever_they_say(here):
    ids = set()
    for name in ("coin:Coin", "coin:Twin"):
        Path("coin.yaml").write_text(changed(COIN, "coin:Coin", name))
        ids |= {cell["configuration_id"] for cell in plan_of("coin.yaml", "runs")["cells"]}
    assert len(ids) == 4


def test_a_store_of_several_workloads_reads_as_each_alone_though_their_settings_differ_in_type(here, digits):
    alone = {}
    for store in ("apart", "both"):
        assert idenctl("study", "run", "coin.yaml", "--engine", "inline", "--store", store).returncode == 0
        alone["coin"] = alone.get("coin") or idenctl("report", "coin", "--format", "csv", "--store", "apart").stdout
    alone["digits"] = idenctl("report", "digits", "--format", "csv", "--store", digits).stdout
    for folder in ("trials", "curves", "predictions", "studies/digits"):
        (here / "both" / folder).mkdir(exist_ok=True)
        for path in (digits / folder).glob("*.*"):
            (here / "both" / folder / path.name).write_bytes(path.read_bytes())
    for name, expected in alone.items():
        assert idenctl("report", name, "--format", "csv", "--store", "both").stdout == expected
    assert Store(here / "both").trials().height == 74
    assert plan_of(DIGITS, "both")["packs"] == []


def test_a_report_says_why_tables_of_predictions_are_missing(here):
    assert idenctl("study", "run", "coin.yaml", "--engine", "inline").returncode == 0
    for folds in ("[0, 1]", "none"):
        Path("coin.yaml").write_text(changed(COIN, "[0, 1]", folds))
        assert idenctl("study", "run", "coin.yaml", "--engine", "inline").returncode == 0
        said = " ".join(idenctl("report", "coin").stdout.split())
        assert "no predictions of these trials, so these tables are missing: confusion, subjects" in said
        assert "75.00" in said
        assert "25.00" in said


def test_pictures_of_networks_are_refused_where_a_workload_leaves_none(digits, tmp_path):
    done = idenctl("heatmap", "digits", "--out", tmp_path / "maps.png", "--store", digits)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "only IDEnNet's studies leave networks" in done.stderr


def test_workers_of_ray_find_a_workload_in_the_current_folder(here):
    root = str(Path(workload.__file__).parents[1])
    command = [sys.executable, "-m", "orchestrator.cli.app", "study", "run", "coin.yaml", "--store", "runs"]
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert sorted(Store(here / "runs").trials()["accuracy"]) == [0.25, 0.25, 0.75, 0.75]
