"""The simulated workload draws what its model states, and says that it is drawn."""

import numpy as np
import pytest
from conftest import idenctl

from benchmarks import simulated
from benchmarks.simulated import SETTINGS, Simulated, accuracies, truth
from orchestrator.store import Store
from orchestrator.trial import Configuration, Pack, Trial
from orchestrator.workload import Context, run_pack

DRAWS = 4000
STUDY = """\
name: nothing
question: Is there a difference where there is none?
workload: benchmarks.simulated:Simulated
dataset: simulated
base: {epochs: 3, lag: 40}
design: {grid: {arm: [a, b]}}
report: {by: arm, baselines: [{arm: a}]}
"""


def configuration(**settings):
    return Configuration({**SETTINGS, **settings}, {"recipe": simulated.RECIPE})


def finals(seed=0, **settings):
    """Percent, [draws, folds]."""
    return np.stack([accuracies(configuration(draw=draw, **settings), seed)[:, -1] for draw in range(DRAWS)])


def test_the_folds_of_a_difference_are_correlated_as_stated_and_vary_as_stated():
    # a difference of two independent configurations has twice their variance, and the fold's own effect is gone
    for rho in (0.0, 0.1, 0.5):
        settings = {"rho": rho, "sd": 2.0, "noise": 0.0, "fold_sd": 5.0}
        difference = finals(arm="a", **settings) - finals(arm="b", **settings)
        covariance = np.cov(difference.T)
        assert np.diag(covariance).mean() == pytest.approx(8, rel=0.05)
        between = covariance[~np.eye(10, dtype=bool)].mean() / np.diag(covariance).mean()
        assert between == pytest.approx(rho, abs=0.03)
        assert difference.mean() == pytest.approx(0, abs=4 * np.sqrt(8 / DRAWS))


def test_seeds_draw_the_noise_anew_and_nothing_else():
    one, other = (finals(seed, arm="a", noise=1.5) for seed in (0, 1))
    assert (one - other).std() == pytest.approx(1.5 * np.sqrt(2), rel=0.02)
    assert np.corrcoef((one - other).ravel(), one.ravel())[0, 1] == pytest.approx(
        1.5 / np.sqrt(2) / np.sqrt(one.var()), abs=0.02
    )
    assert np.array_equal(finals(0, arm="a", noise=0.0), finals(1, arm="a", noise=0.0))


def test_the_mean_is_the_truth_and_a_curve_nears_it_with_the_stated_time():
    settings = {"level": 1.5, "x": 0.5, "y": -1.0, "slope": 2.0, "lag": 40.0, "tau": 3.0, "epochs": 12}
    curves = np.stack([accuracies(configuration(draw=draw, **settings), 0) for draw in range(400)]).mean((0, 1))
    assert truth(configuration(**settings).settings) == pytest.approx(80 + 1.5 - 2 * 1.25)
    expected = 79 - 40 * np.exp(-np.arange(1, 13) / 3)
    assert curves == pytest.approx(expected, abs=0.3)


def test_a_trial_is_the_same_in_any_pack(tmp_path):
    store = Store(tmp_path).open()
    trials = [Trial(configuration(arm=arm, epochs=2), fold, seed) for arm in "ab" for fold in (3, 1) for seed in (1, 0)]
    context = Context(store, "cpu", 1, lambda event: None)
    together = Simulated(store).run(Pack(tuple(trials)), context)
    alone = [Simulated(store).run(Pack((trial,)), context)[0] for trial in trials]
    assert together == alone
    assert len({result.accuracy for result in together}) == len(trials)


def test_an_accuracy_that_cannot_be_is_a_failed_trial_with_a_reason(tmp_path):
    store = Store(tmp_path).open()
    trials = tuple(Trial(configuration(mean=mean), 0, 0) for mean in (80.0, 180.0))
    run_pack(Simulated(store), Pack(trials), Context(store, "cpu", 1, lambda event: None))
    rows = store.trials().sort("mean")
    assert rows["state"].to_list() == ["complete", "failed"]
    assert "between 0 and 100%" in rows["reason"][1]


def test_a_simulated_study_runs_through_design_store_and_report_and_says_that_it_is_drawn(tmp_path):
    file, store = tmp_path / "nothing.yaml", tmp_path / "runs"
    file.write_text(STUDY)
    assert idenctl("study", "run", file, "--engine", "inline", "--store", store).returncode == 0
    found = Store(store)
    assert found.trials()["synthetic"].all()
    last = found.curves().filter(epoch=2).join(found.trials(), on="trial_id")
    assert last["test_accuracy"].to_list() == last["accuracy"].to_list()
    said = idenctl("report", "nothing", "--store", store).stdout
    assert "SYNTHETIC (drawn data)" in said


@pytest.mark.parametrize("wrong", ["rho: 1.5", "sd: -1", "epochs: 0", "tau: 0", "draw: -1"])
def test_a_model_without_meaning_is_refused(tmp_path, wrong):
    file = tmp_path / "nothing.yaml"
    file.write_text(STUDY.replace("epochs: 3", wrong))
    done = idenctl("study", "plan", file, "--store", tmp_path / "runs")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"nothing.yaml:5: {wrong.split(':')[0]} must be" in done.stderr
