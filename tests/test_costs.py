"""What a study will take: counted as it is done, measured here, frozen at its run, held against what it took."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import ray
from conftest import TINY_STUDY, changed, idenctl

from orchestrator import calibration, costs, runner, stacks, strict_yaml
from orchestrator.idennet import Idennet
from orchestrator.planning import Capacity, Estimate
from orchestrator.prices import device_price
from orchestrator.progress import Progress
from orchestrator.store import Store, this_host
from orchestrator.trial import Configuration, Pack, Trial
from orchestrator.workload import Context

CLUSTER = """\
cluster_name: small
provider: {type: aws, region: eu-west-1}
head_node_type: head
available_node_types:
  head: {node_config: {InstanceType: m5.large}, resources: {CPU: 2}, labels: {price-per-hour: "0.1"}}
  gpus: {node_config: {InstanceType: p5}, resources: {CPU: 96, GPU: 8}, labels: {price-per-hour: "40"}}
"""


def estimates(*seconds, measured=True):
    return [Estimate(one, 0, measured) for one in seconds]


def trial(depth, fold=0, seed=0):
    return Trial(Configuration({"depth": depth}, {}), fold, seed)


@pytest.fixture
def store(trained_store, tmp_path):
    shutil.copytree(trained_store, tmp_path / "store")
    return tmp_path / "store"


def plan(store, *options, study=None):
    done = idenctl("study", "plan", study or store / "tiny.yaml", "--json", "--store", store, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def variation(store, old, new):
    path = store / "other.yaml"
    path.write_text(changed(TINY_STUDY, old, new))
    return path


def test_trunks_share_one_device_and_are_spread_over_several():
    one = costs.cost(estimates(10, 20), estimates(4, 6), Capacity("cpu", 1, 2))
    assert (one.seconds, one.device_seconds) == (6 + 30, 6 + 30)
    several = costs.cost(estimates(10, 20), estimates(4, 6), Capacity("gpu", 2, 8))
    assert (several.seconds, several.device_seconds) == (6 + 20, 10 + 30)
    assert costs.cost(estimates(1, measured=False), estimates(1), Capacity("cpu", 1, 2)).guesses == 1
    assert costs.cost([], [], Capacity("cpu", 1, 2)).seconds == 0


def test_stored_trials_are_counted_for_each_study_that_holds_them():
    ids = {depth: trial(depth).configuration.configuration_id for depth in (10, 16)}
    plans = {
        "one": {"cells": [{"configuration_id": ids[10]}], "folds": [0, 1], "seeds": [0]},
        "both": {"cells": [{"configuration_id": i} for i in ids.values()], "folds": [1], "seeds": [0, 1]},
        "neither": {"cells": [{"configuration_id": "other"}], "folds": [0, 1], "seeds": [0]},
    }
    stored = [trial(10, 0), trial(10, 1), trial(16, 1), trial(16, 1, seed=1)]
    stored.append(Trial(trial(10).configuration, 1, 0, without=0))
    assert costs.shared(stored, plans) == {"one": 2, "both": 3}


def test_a_run_again_keeps_what_was_expected_of_the_trials_that_are_stored():
    first, second = Pack((trial(10), trial(10, 1))), Pack((trial(16),))
    before = costs.predicted([first, second], estimates(5, 7), estimates(3, 7), {"t": Estimate(3, 0, False)}, {})
    after = costs.predicted([second], estimates(9), estimates(9), {}, before)
    rows = [(trial(10).trial_id, "file 1", 2.0), (trial(10, 1).trial_id, "file 1", 2.5)]
    found = costs.took(json.loads(json.dumps(after)), rows, {"t": 4.0})
    assert [(t.trials, t.predicted, t.actual, t.measured) for t in found] == [
        (0, 3, 4.0, False),
        (2, 5, 4.5, True),
        (1, 9, None, True),
    ]
    assert costs.packing(after) == (2 * 3 + 9, 5 + 9)
    assert costs.packing({"packs": [{"seconds": 5}]}) is None


def test_the_work_of_a_pack_is_what_its_training_does(store):
    events, place = [], Store(store)
    planned = runner.plan(runner.load(store / "tiny.yaml", None, {"epochs": "3"}, place), place, Capacity("cpu", 1, 2))
    pack = max(planned.packs, key=lambda pack: len(pack.trials))
    Idennet(place).run(pack, Context(place, "cpu", 2, events.append))
    total = next(event.total_steps for event in events if isinstance(event, Progress))
    work = calibration._pack_work(pack, place, together=1)
    pictures = 20 * 6 * 2
    tested = len(pack.trials) * 3 * (pictures // 10) / 3
    assert work["head"] - tested == total * 16
    assert work["trunk"] == pictures * (3 + 1)


@pytest.mark.parametrize("settings", [{"epochs": 5}, {"augment": True}])
def test_work_grows_with_epochs_and_views(store, settings):
    def of(**more):
        whole = {"dataset": "oulu-casia", "variant": "f", "epochs": 1, "augment": False, "batch_size": 16} | more
        trials = tuple(Trial(Configuration(whole, {}), fold, 0) for fold in range(5))
        return calibration._pack_work(Pack(trials), Store(store), together=2)

    base, more = of(), of(**settings)
    times = settings.get("epochs", 14)
    assert more["trunk"] == pytest.approx(base["trunk"] * (times + 1) / 2)
    assert more["head"] == pytest.approx(base["head"] * times, rel=0.05)
    assert base["head"] == 3 * (208 + 24 / 3), "five heads, two at a time, are three rounds of 13 batches of 16"


def test_a_plan_is_a_guess_until_it_is_calibrated_for_its_own_networks(store):
    shutil.rmtree(store / "calibration")
    study = variation(store, "epochs: 2, batch_size: 16, lr: 0.1", "epochs: 4, batch_size: 24, lr: 0.1")
    before = plan(store, study=study)
    assert before["guesses"] == len(before["packs"]) == 2
    assert not (store / "calibration").exists()
    after = plan(store, "--calibrate", "--price-per-hour", 2.5, study=study)
    assert after["guesses"] == 0
    assert all(pack["measured"] for pack in after["packs"])
    assert after["seconds"] == pytest.approx(sum(pack["seconds"] for pack in after["packs"]))
    assert after["money"] == pytest.approx(2.5 * after["seconds"] / 3600)
    assert plan(store, study=study)["seconds"] == after["seconds"], "kept in the store"
    twice = variation(store, "epochs: 2, batch_size: 16, lr: 0.1", "epochs: 8, batch_size: 24, lr: 0.1")
    assert 1.7 < plan(store, study=twice)["seconds"] / after["seconds"] < 2
    other = variation(store, "epochs: 2, batch_size: 16, lr: 0.1", "epochs: 4, batch_size: 25, lr: 0.1")
    assert plan(store, study=other)["guesses"] == 2, "another batch size is another pace"


def test_trunks_to_train_count_too(store):
    shutil.rmtree(store / "trunks")
    study = variation(store, "folds: [0, 3]", "folds: [1, 5]")
    before, after = plan(store, study=study), plan(store, "--calibrate", study=study)
    assert len(before["trunks_to_train"]) == 2
    assert (before["guesses"], after["guesses"]) == (2, 0), "the packs' pace is known from those that ran"
    assert after["seconds"] > sum(pack["seconds"] for pack in after["packs"])


def test_a_plan_says_in_which_studies_its_stored_trials_are(store):
    study = variation(store, "folds: [0, 3]", "folds: [0, 3, 5]")
    study.write_text(study.read_text().replace("name: tiny", "name: other"))
    found = plan(store, study=study)
    assert (found["stored"], found["trials"], found["stored_by_study"]) == (8, 12, {"tiny": 8})
    said = " ".join(idenctl("study", "plan", study, "--store", store).stdout.split())
    assert "12 trials (3 folds x 1 seed a configuration), 8 of them stored, 4 to train" in said
    assert "stored trials by study: 8 in tiny" in said


def test_a_damaged_plan_in_the_store_is_named_and_mended_by_its_own_run(store):
    damaged = store / "studies/tiny/plan.json"
    damaged.write_text("{")
    for command in (["list"], ["status", "tiny"], ["plan", store / "tiny.yaml"]):
        done = idenctl("study", *command, "--store", store)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"{damaged} is not JSON" in done.stderr
        assert "run the study again: idenctl study run FILE" in done.stderr
    again = idenctl("study", "run", store / "tiny.yaml", "--store", store, "--engine", "inline")
    assert again.returncode == 0, again.stderr
    assert "8 of 8 trials complete" in idenctl("study", "status", "tiny", "--store", store).stdout


def test_status_holds_what_was_predicted_against_what_the_store_says_it_took(store):
    done = idenctl("study", "status", "tiny", "--json", "--store", store)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert (status["complete"], status["trials"]) == (8, 8)
    frozen = json.loads((store / "studies/tiny/plan.json").read_text())["predicted"]
    packs = [time for time in status["times"] if time["trials"]]
    assert sum(time["trials"] for time in packs) == 8
    assert sum(time["actual"] for time in packs) == pytest.approx(Store(store).trials()["seconds"].sum())
    assert [time["predicted"] for time in packs] == [pack["seconds"] for pack in frozen["packs"]]
    assert all(time["actual"] > 0 for time in status["times"]), "trunks too"
    assert len(status["times"]) == len(packs) + 2
    said = " ".join(idenctl("study", "status", "tiny", "--store", store).stdout.split())
    assert "8 of 8 trials complete" in said
    assert "(a guess)" in said


def test_status_of_a_study_that_is_not_there_names_those_that_are(store):
    done = idenctl("study", "status", "tyni", "--store", store)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean 'tiny'?" in done.stderr


def test_a_workload_that_measures_nothing_refuses_to_be_calibrated(tmp_path):
    digits = Path(__file__).parent.parent / "examples" / "digits.yaml"
    done = idenctl("study", "plan", digits, "--calibrate", "--store", tmp_path / "runs")
    assert done.returncode == 2
    assert "examples.sklearn_digits:Digits measures nothing beforehand; leave out --calibrate" in done.stderr
    said = idenctl("study", "plan", digits, "--store", tmp_path / "runs").stdout
    assert "guesses" in said
    assert "--calibrate" not in said


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "3", '{"pace": 3}', '{"pace": {}}', '{"if": 3}', '{"if": {"a": 1}}']
)
def test_damaged_measurements_are_as_good_as_none(store, content):
    for path in (store / "calibration").iterdir():
        path.write_text(content)
    packs = plan(store, study=variation(store, "folds: [0, 3]", "folds: [1, 2]"))["packs"]
    assert {pack["measured"] for pack in packs} == {False}
    (store / "calibration" / f"stacks-{this_host()}.json").write_text(content)
    settings = {"variant": "if", "depth": 16, "bottleneck": 12, "compression": 1.0}
    assert stacks.size(Store(store), settings) == stacks.UNMEASURED


def test_a_price_is_read_from_a_cluster_file_that_ray_accepts(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER)
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(strict_yaml.read(CLUSTER, "cluster")[0], schema)
    assert device_price(file, "gpu") == 40 / 8
    assert device_price(file, "cpu") == 0.1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('labels: {price-per-hour: "40"}', "labels: {}", "one gpu price must be stated as the label price-per-hour"),
        ('"40"', '"much"', ":6: price-per-hour must be a number of at least 0, such as '2.50', got 'much'"),
        ('"40"', '"-1"', ":6: price-per-hour must be a number of at least 0, such as '2.50', got '-1'"),
        ('"40"', "[40]", ":6: price-per-hour must be a number of at least 0, such as '2.50', got '[40]'"),
        ('{price-per-hour: "40"}', "[cheap]", "one gpu price must be stated as the label price-per-hour"),
        ("resources: {CPU: 96, GPU: 8}", "resources: 8", "got none"),
        ("GPU: 8", "GPU: many", ":6: GPU must be a whole number, got 'many'"),
        ("available_node_types", "node_types", "a Ray cluster file has available_node_types"),
        ("resources: {CPU: 2}", "resources: {GPU: 2}", "got head 0.05, gpus 5"),
    ],
)
def test_a_cluster_file_without_one_price_is_refused(tmp_path, old, new, message):
    (tmp_path / "cluster.yaml").write_text(changed(CLUSTER, old, new))
    with pytest.raises(ValueError, match=re.escape(message)):
        device_price(tmp_path / "cluster.yaml", "gpu")


def test_two_sources_of_a_price_are_refused(tmp_path):
    arguments = ["--price-per-hour", 1, "--cluster", tmp_path / "none.yaml", "--store", tmp_path / "runs"]
    done = idenctl("study", "plan", Path(__file__).parent.parent / "examples" / "digits.yaml", *arguments)
    assert done.returncode == 2
    assert "exclude each other" in done.stderr
