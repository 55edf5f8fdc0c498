"""Budgets of time: a run ends with them, and the next one goes on."""

import time
from dataclasses import replace

import pytest
from searching import CPU, plan, run, text

from benchmarks.simulated import SETTINGS, Simulated
from orchestrator import runner
from orchestrator.progress import PackStarted, PackStopped, Progress
from orchestrator.source import Listed, Stopped, until
from orchestrator.store import Store
from orchestrator.study_sections import Budget
from orchestrator.trial import Configuration, Pack, Trial


class Slow(Simulated):
    """Simulated trials that say they took an hour each."""

    def run(self, pack, context):
        return [replace(result, seconds=3600.0) for result in super().run(pack, context)]


def test_a_budget_ends_a_run_and_the_next_one_goes_on(tmp_path):
    budget = text().replace("report:", "budget: {wall_clock_hours: 1.0e-9}\nreport:")
    stopped = run(tmp_path, budget)
    assert not stopped.done
    whole = run(tmp_path, text())
    assert whole.done
    assert whole.search.record() == run(tmp_path / "whole", text()).search.record()


def test_device_hours_are_used_up_by_what_the_trials_took_and_not_before(tmp_path):
    content = text(configurations=4).replace("workload: benchmarks.simulated:Simulated", f"workload: {__name__}:Slow")
    run(tmp_path, content)
    trials = Store(tmp_path).every_trial()
    for hours, used_up in ((trials.height, True), (trials.height + 0.1, False)):
        planned = plan(tmp_path, content.replace("report:", f"budget: {{device_hours: {hours}}}\nreport:"))
        assert runner.used_up(planned, Store(tmp_path)) is used_up


def test_a_pack_whose_time_is_up_stops_when_an_epoch_is_done():
    heard = []
    tell = until(0.0, heard.append)
    for epoch in (3, 3):
        tell(Progress("pack", 1, 10, epoch, 9, "heads"))
    with pytest.raises(Stopped):
        tell(Progress("pack", 2, 10, 4, 9, "bank"))
    assert len(heard) == 3
    until(None, heard.append)(Progress("pack", 2, 10, 4, 9, "bank"))


def test_a_run_ends_at_the_earlier_of_its_budgets():
    assert runner.deadline(Budget(), 0, 1, 50) is None
    assert runner.deadline(Budget(wall_clock_hours=1), 0, 4, 50) == 3650
    assert runner.deadline(Budget(device_hours=2), 3600, 4, 50) == 50 + 900
    assert runner.deadline(Budget(wall_clock_hours=1, device_hours=2), 3600, 4, 50) == 950


@pytest.mark.slow
def test_packs_that_wait_on_ray_when_the_time_is_up_do_not_begin(tmp_path):
    from orchestrator import tune_engine

    settings = {"dataset": "simulated", **SETTINGS, "epochs": 1, "takes": 0.4}
    packs = [
        Pack(tuple(Trial(Configuration(settings, {"data": str(place)}), fold, 0) for fold in range(10)))
        for place in range(8)  # of four seconds
    ]
    heard, store, ends = [], Store(tmp_path).open(), time.time() + 16

    def listen(event):
        heard.append((type(event), time.time()))

    tune_engine.run(Listed(packs), Simulated(store), store, CPU, listen, ends)
    assert all(at < ends + 1 for kind, at in heard if kind is PackStarted)
    assert PackStopped in dict(heard), "the time was up before all packs had run"
