"""Searches on simulated accuracies: asked, killed, rebuilt, chosen and trained again."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import optuna
import pytest
from scipy.stats import qmc, sem

from benchmarks.search import bias
from benchmarks.simulated import SETTINGS, Simulated
from idennet_core.streams import generator
from idennet_core.training import Examples
from orchestrator import record, runner, study
from orchestrator.cli.screen import screen
from orchestrator.planning import Capacity
from orchestrator.progress import PackDone, PackStarted, PackStopped, Progress
from orchestrator.report import Format, formats
from orchestrator.report import search as search_report
from orchestrator.search.packs import SearchPacks
from orchestrator.search.procedure import dominated, scored_by
from orchestrator.search.sampler import Outcome, Search
from orchestrator.search.space import Parameter
from orchestrator.source import Listed, Stopped, until
from orchestrator.store import Store
from orchestrator.study import Budget
from orchestrator.trial import Configuration, Pack, Trial, content_id
from orchestrator.workload import Context, run_pack

NUMBERS = "{x: {low: -3, high: 3}, y: {low: 0.1, high: 3, log: true}}"
MIXED = "{arm: {choices: [a, b]}, x: {low: -3, high: 3, when: {arm: a}}, y: {low: -2, high: 2, step: 0.5}}"
SAMPLERS = {
    "tpe": MIXED,
    "random": MIXED,
    "qmc": NUMBERS,
    "cma-es": NUMBERS,
    "gp": NUMBERS,
    "nsga-ii": MIXED,
}
STUDY = """
name: top
question: Where is the top?
workload: benchmarks.simulated:Simulated
dataset: simulated
folds: all
base: {{epochs: 9, lag: 10, draw: 3}}
search: {{sampler: {sampler}, space: {space}, configurations: {configurations}, batch: {batch}{more}}}
report: {{by: y}}
"""


CPU, CPU2 = Capacity("cpu", 1, 1), Capacity("cpu", 2, 1)


class Slow(Simulated):
    """Simulated trials that say they took an hour each."""

    def run(self, pack, context):
        return [replace(result, seconds=3600.0) for result in super().run(pack, context)]


class Killed(BaseException):
    """What a process that is killed does to whoever waits for it, within this process."""


def text(sampler="tpe", space=None, configurations=16, batch=4, more=""):
    space = space or SAMPLERS[sampler]
    return STUDY.format(sampler=sampler, space=space, configurations=configurations, batch=batch, more=more)


def plan(root, content, capacity=CPU):
    store = Store(root).open()
    (root / "study.yaml").write_text(content)
    return runner.plan(runner.load(root / "study.yaml", None, {}, store), store, capacity)


def run(root, content, listen=lambda event: None):
    """The plan after the run, whose `search` has gone as far as it can."""
    planned = plan(root, content)
    runner.run_packs(planned, planned.search.store, listen, "inline")
    return plan(root, content)


def run_killed(root, content, moments):
    """Killed when so many packs have started or ended, each time anew; then run to the end."""
    for moment in moments:
        left = [int(moment)]

        def listen(event, left=left):
            left[0] -= isinstance(event, PackStarted | PackDone)
            if left[0] < 0:
                raise Killed

        try:
            run(root, content, listen)
        except Killed:
            continue
    return run(root, content)


@pytest.mark.parametrize("more", ["", ", pruning: {first: 2}", ", select: test"])
def test_a_search_that_goes_on_shows_no_stored_trial_as_waiting(more, tmp_path):
    run(tmp_path, text(configurations=8, more=more))
    planned, said = plan(tmp_path, text(more=more)), io.StringIO()
    stored = runner.accuracies(planned, planned.search.store)
    assert stored
    with screen("top", runner.names(planned, stored), stored, 0, synthetic=True, stream=said) as listen:
        runner.run_packs(planned, planned.search.store, listen, "inline")
    first, *_, last = said.getvalue().splitlines()
    assert first == f"top (synthetic): {len(stored)} trials, {len(stored)} stored, more as it asks"
    assert last.startswith("top (synthetic) finished: trials ")
    assert "waiting" not in last


def test_status_knows_what_the_packs_of_a_search_took(tmp_path):
    planned = plan(tmp_path, text(configurations=4))
    record.freeze(planned, planned.search.store, ["idenctl"])
    run(tmp_path, text(configurations=4))
    times = record.took(planned.search.store, "top")
    assert len(times) == len(planned.packs) > 0
    assert all(time.actual is not None for time in times)


def asked(root):
    batches = sorted(root.glob("studies/*/asked/*/*/*.json"))
    return [(path.parent.name, json.loads(path.read_text())) for path in batches]


def rows(root):
    varying = ["pack_id", "seconds", "started_at", "finished_at", "host"]
    return Store(root).every_trial().drop(varying).sort("trial_id")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_killed_at_any_moment_and_run_again_asks_and_finds_what_the_uninterrupted_search_does(sampler, tmp_path):
    content = text(sampler)
    whole = run(tmp_path / "whole", content)
    moments = generator("search", "moments of death", sampler).integers(0, 4, 4)
    again = run_killed(tmp_path / "again", content, moments)
    assert whole.done
    assert asked(tmp_path / "again") == asked(tmp_path / "whole")
    assert rows(tmp_path / "again").equals(rows(tmp_path / "whole")), "to the bit"
    assert again.search.record() == whole.search.record()
    settings = [point["settings"] for point in whole.search.record()["procedures"][0]["points"] if not point["repeats"]]
    assert len({content_id(point) for point in settings}) == 16, "nothing is suggested twice"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_was_asked_follows_from_the_study_and_its_results_alone(sampler, tmp_path):
    run(tmp_path, text(sampler))
    before, trained = asked(tmp_path), rows(tmp_path)
    for path in tmp_path.glob("studies/*/asked/*/*/*.json"):
        path.unlink()
    run(tmp_path, text(sampler))
    assert asked(tmp_path) == before
    assert rows(tmp_path).equals(trained), "nothing was trained again"


def test_a_driver_killed_with_its_packs_running_comes_to_the_same_answer(tmp_path):
    content = text(more=", pruning: {first: 2}").replace("draw: 3", "draw: 3, takes: 0.005")
    whole = run(tmp_path / "whole", content)
    again = tmp_path / "again"
    Store(again).open()
    (again / "study.yaml").write_text(content)
    arguments = ["study", "run", str(again / "study.yaml"), "--store", str(again), "--engine", "inline"]
    for batches in (1, 2, 3):
        process = subprocess.Popen([sys.executable, "-m", "orchestrator.cli.app", *arguments], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while len(asked(again)) < batches and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert run(again, content).search.record() == whole.search.record()
    assert rows(again).equals(rows(tmp_path / "whole"))


def test_a_search_cuts_its_packs_to_the_memory_and_asks_the_same(tmp_path):
    whole = plan(tmp_path, text())
    small = plan(tmp_path, text(), Capacity("cpu", 1, 1, memory=1))
    assert len(whole.packs) == 1
    assert [len(pack.trials) for pack in small.packs] == [10] * 4
    assert {trial.trial_id for trial in small.trials} == {trial.trial_id for trial in whole.trials}


def test_what_a_search_has_stored_is_neither_waited_for_nor_unaccounted(tmp_path):
    store = Store(tmp_path).open()
    record.freeze(plan(tmp_path, text(more=", pruning: {first: 2}")), store, ["idenctl"])
    after = run(tmp_path, text(more=", pruning: {first: 2}"))
    pruned = {trial_id for trial_id, state in after.states.items() if state == "pruned"}
    assert pruned
    assert runner.accuracies(after, store).keys() == after.states.keys() - pruned
    first, *_ = record.took(store, "top")
    assert first.trials == 40
    assert first.actual is not None


def test_more_configurations_go_on_where_the_search_ended(tmp_path):
    run(tmp_path, text(configurations=8))
    before, trained = asked(tmp_path), rows(tmp_path)
    after = run(tmp_path, text(configurations=12))
    assert asked(tmp_path)[:2] == before
    assert asked(tmp_path) == asked_of(tmp_path / "at once", text(configurations=12))
    assert set(trained["trial_id"]) <= set(rows(tmp_path)["trial_id"])
    assert after.done


def asked_of(root, content):
    run(root, content)
    return asked(root)


def test_the_asynchronous_order_asks_while_packs_run_and_survives_a_kill(tmp_path):
    content = text(more=", order: asynchronous")
    done = run_killed(tmp_path, content, [1, 3, 2])
    assert done.done
    assert len(done.search.procedures[0].configurations) == 16


@pytest.mark.parametrize("sampler", ["tpe", "cma-es", "nsga-ii"])
def test_the_asynchronous_order_on_two_devices_is_built_again_whatever_was_done_first(sampler, tmp_path):
    content = text(sampler, more=", order: asynchronous")
    planned = plan(tmp_path, content, CPU2)
    workload, store, ended = Simulated(planned.search.store), planned.search.store, False
    context = Context(store, "cpu", 1, lambda event: None)
    while not ended:
        packs = SearchPacks(planned.study, store, workload, partial(runner._configure, workload), CPU2, keeps=True)
        taken = []
        for _ in range(3):  # packs ended, the last taken first; then the driver is killed with one at work
            while (pack := packs.next()) is not None:
                taken.append(pack)
            if not taken:
                break
            run_pack(workload, taken[-1], context)
            packs.done(taken.pop().pack_id)
        ended = packs.over and packs.answered
    settings = [p["settings"] for p in packs.record()["procedures"][0]["points"] if p["repeats"] is None]
    assert len(settings) == len({content_id(one) for one in settings}) == 16
    assert len(asked(tmp_path)) == 4


def test_the_asynchronous_order_feeds_every_device_and_the_synchronous_one_spreads_a_batch(tmp_path):
    sizes = {}
    for order in ("asynchronous", "synchronous"):
        planned = plan(tmp_path / order, text(more=f", order: {order}"), Capacity("gpu", 4, 1))
        packs = []
        while (pack := planned.search.next()) is not None:
            packs.append(pack)
        sizes[order] = [len(pack.trials) for pack in packs]
    assert sizes == {"asynchronous": [40] * 4, "synchronous": [10] * 4}


def test_a_space_that_is_used_up_ends_the_search_with_each_configuration_trained_once(tmp_path):
    done = run(tmp_path, text("random", "{arm: {choices: [a, b, c]}}").replace("by: y", "by: arm"))
    points = done.search.record()["procedures"][0]["points"]
    assert sorted(point["settings"]["arm"] for point in points if point["repeats"] is None) == ["a", "b", "c"]
    assert all(point["state"] == "complete" for point in points)
    assert "the sampler finds no others" in done.search.progress
    assert rows(tmp_path).height == 3 * 10 + 10


def test_enqueued_points_come_first(tmp_path):
    done = run(tmp_path, text(space=NUMBERS, more=", enqueue: [{x: 1, y: 2}, {x: -1}]"))
    points = done.search.record()["procedures"][0]["points"]
    assert points[0]["settings"] == {"x": 1, "y": 2}
    assert points[1]["settings"]["x"] == -1


def test_qmc_is_one_sobol_sequence_however_often_the_search_is_built_again():
    space = {"x": Parameter(low=0.0, high=1.0), "y": Parameter(low=0.0, high=1.0)}
    points, batches = [], []
    for _ in range(4):
        search = Search(space, "qmc", (0,), ["maximize"], 4)
        for batch in batches:
            search.restore(batch, str)
            for point in batch:
                search.tell(point, Outcome("complete", [0.5]))
        batches.append(search.ask(4, str))
        points += [[point.settings["x"], point.settings["y"]] for point in batches[-1]]
    # the first point of a study is drawn apart; the sequence is equidistributed whatever its scrambling
    discrepancy = qmc.discrepancy(np.array(points[1:]))
    uniform = generator("search", "uniform").random((200, 15, 2))
    assert discrepancy < np.quantile([qmc.discrepancy(sample) for sample in uniform], 0.05)


def test_a_searched_point_neither_learns_from_nor_is_scored_by_the_fold_it_is_tested_on():
    configuration = Configuration({"x": 1}, {})
    trials = scored_by(configuration, range(10), [0], "validation", None)
    assert [(trial.without, trial.fold) for trial in trials] == [(i, (i + 1) % 10) for i in range(10)]
    inner = scored_by(configuration, range(10), [0, 1], "validation", 3)
    assert {trial.without for trial in inner} == {3}
    assert sorted({trial.fold for trial in inner}) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_the_subjects_of_a_held_out_fold_are_neither_trained_on_nor_scored():
    subjects = np.array([f"S{i % 30:02}" for i in range(60)])
    examples = Examples(np.zeros(60, dtype=np.int64), subjects, 1, 1, np.full(60, ""))
    train, scored = examples.rows(4, 3)
    tested = set(subjects[examples.rows(3)[1]])
    assert not tested & (set(subjects[train]) | set(subjects[scored]))
    assert set(subjects[scored]) == set(subjects[examples.rows(4)[1]])
    assert set(subjects[train]) | set(subjects[scored]) | tested == set(subjects)


def test_the_ids_of_ordinary_trials_are_those_of_before_searches():
    trial = Trial(Configuration({"x": 1}, {}), 2, 0)
    assert trial.trial_id == content_id([trial.configuration.configuration_id, 2, 0])
    assert len({Trial(trial.configuration, 2, 0, without).trial_id for without in (None, 0, 1)}) == 3


def test_validation_accuracies_are_in_no_table_of_tested_trials(tmp_path):
    done = run(tmp_path, text())
    store = Store(tmp_path)
    chosen = {trial.trial_id for trial in done.search.procedures[0].refit()}
    assert set(store.trials()["trial_id"]) == chosen
    searched = store.every_trial().filter(fold=1, without=0)
    assert searched["accuracy"].null_count() == searched.height == 16
    assert searched["validation_accuracy"].null_count() == 0
    assert store.predictions(store.every_trial()).is_empty()


def test_a_nested_search_never_lets_an_outer_fold_into_its_procedure(tmp_path):
    done = run(tmp_path, text(configurations=8, more=", nested: true"))
    outer = done.search.procedures[1:]
    assert [procedure.outer for procedure in outer] == list(range(10))
    for procedure in outer:
        trials = [trial for c in procedure.configurations.values() for trial in procedure.trials(c)]
        assert all(trial.without == procedure.outer != trial.fold for trial in trials)
        assert [(trial.fold, trial.without) for trial in procedure.refit()] == [(procedure.outer, None)]
    asked_first = {str(dict(procedure.search.points[0].settings)) for procedure in outer}
    assert len(asked_first) > 1, "each has a sampler of its own"
    assert done.done


def test_the_pareto_set_is_that_of_optuna():
    values = generator("search", "pareto").random((60, 2)).round(1).tolist()
    known = optuna.create_study(directions=["maximize", "minimize"])
    for index, value in enumerate(values):
        known.add_trial(optuna.create_trial(values=value, user_attrs={"index": index}))
    best = {trial.user_attrs["index"] for trial in known.best_trials}
    assert {index for index, value in enumerate(values) if not dominated(value, values, [1, -1])} == best


def test_two_objectives_choose_all_that_is_not_dominated(tmp_path):
    done = run(tmp_path, text("nsga-ii", more=", objectives: [accuracy, cost]"))
    points = done.search.record()["procedures"][0]["points"]
    chosen = done.search.procedures[0].chosen()
    assert chosen
    for number in chosen:
        accuracy, cost = points[number]["values"]
        assert not any(a > accuracy and c <= cost for a, c in (p["values"] for p in points))


WRONG = {
    "empty space": ("space: {}", "space must name a setting to vary"),
    "inverted range": ("space: {x: {low: 3, high: 1}}", "must have low below high, got {'low': 3, 'high': 1}"),
    "empty range": ("space: {x: {low: 1, high: 1}}", "must have low below high, got {'low': 1, 'high': 1}"),
    "log through zero": ("space: {x: {low: -1, high: 1, log: true}}", "must have low above 0"),
    "no range": ("space: {x: {low: 1}}", "must have low and high, or choices"),
    "unknown setting": ("space: {z: {low: 0, high: 1}}", "unknown setting 'z'"),
    "odd steps": ("space: {x: {low: 0, high: 1, step: 0.3}}", "high a whole number of steps above low"),
    "fraction of an integer": ("space: {epochs: {low: 1.5, high: 4}}", "epochs must be an integer"),
    "sampler": ("space: {x: {low: 0, high: 1}}, sampler: tpu", "'tpe', 'random', 'qmc', 'cma-es', 'gp' or 'nsga-ii'"),
    "when": ("space: {x: {low: 0, high: 1, when: {ann: a}}}", "when names no other parameter of the space, got 'ann'"),
    "when never": (
        "space: {arm: {choices: [a]}, x: {low: 0, high: 1, when: {arm: b}}}",
        "arm never is 'b', so x would never count",
    ),
    "circle": (
        "space: {y: {choices: [1.0], when: {x: 1.0}}, x: {choices: [1.0], when: {y: 1.0}}}",
        "the conditions of y, x go in a circle",
    ),
    "enqueue outside": (
        "space: {x: {low: 0, high: 1}}, enqueue: [{x: 2}]",
        "the enqueued x 2 lies outside of the space",
    ),
    "enqueue unknown": ("space: {x: {low: 0, high: 1}}, enqueue: [{y: 1}]", "got 'y'; remove it"),
    "objective": ("space: {x: {low: 0, high: 1}}, objectives: [accuracy, speed]", "'speed' is not in the results"),
    "conditional": (
        "space: {arm: {choices: [a]}, x: {low: 0, high: 1, when: {arm: a}}}, sampler: qmc",
        "qmc cannot sample conditional parameters, got x",
    ),
    "cma-es": ("space: {arm: {choices: [a, b]}, x: {low: 0, high: 1}}, sampler: cma-es", "samples numbers alone"),
    "enqueue too many": (
        "space: {x: {low: 0, high: 99}}, enqueue: [" + ", ".join(f"{{x: {x}}}" for x in range(17)) + "]",
        "a search asks for 16 configurations, got 17 points to ask first; raise configurations",
    ),
    "rungs twice": (
        "space: {x: {low: 0, high: 1}}, pruning: {first: 1, rungs: [2]}",
        "search.pruning must have rungs or first, not both",
    ),
    "unknown key": ("space: {x: {low: 0, hihg: 1}}", "unknown key 'search.space.x.hihg'; did you mean 'high'?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_search_is_refused_in_one_line_with_its_place(case, tmp_path):
    section, said = WRONG[case]
    content = text("tpe", "{}").replace("sampler: tpe, space: {}", section)
    with pytest.raises(ValueError, match=r"study\.yaml:8: ") as refused:
        plan(tmp_path, content.replace("by: y", "by: x"))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_range_between_whose_ends_a_value_is_refused_says_what_to_do(tmp_path):
    content = text("tpe", "{depth: {low: 16, high: 40}}").replace("by: y", "by: depth")
    content = content.replace("workload: benchmarks.simulated:Simulated\n", "").replace("simulated", "oulu-casia")
    content = content.replace("epochs: 9, lag: 10, draw: 3", "epochs: 9")
    with pytest.raises(ValueError, match=r"such as 16, 22 or 40, got 17; set step, or list choices$"):
        plan(tmp_path, content)


def test_a_frozen_search_is_the_study_that_was_run(tmp_path):
    content = text(more=", nested: true, pruning: {first: 2}, enqueue: [{arm: b}]")
    whole = plan(tmp_path, content).study
    (tmp_path / "frozen.yaml").write_text(study.dump(whole))
    assert runner.load(tmp_path / "frozen.yaml", None, {}, Store(tmp_path)) == whole


def test_a_profile_changes_a_search_key_by_key(tmp_path):
    content = text() + "profiles: {quick: {search: {configurations: 3, space: {y: {high: 1}}}}}\n"
    (tmp_path / "study.yaml").write_text(content)
    quick = runner.load(tmp_path / "study.yaml", "quick", {}, Store(tmp_path)).search
    assert quick.configurations == 3
    assert (quick.space["y"].low, quick.space["y"].high, len(quick.space)) == (-2, 1, 3)
    (tmp_path / "study.yaml").write_text(content.replace("configurations: 3", "configurations: 0"))
    with pytest.raises(ValueError, match="configurations"):
        runner.load(tmp_path / "study.yaml", "quick", {}, Store(tmp_path))


def test_a_study_has_a_design_or_a_search(tmp_path):
    neither = "\n".join(line for line in text().splitlines() if "search:" not in line)
    for content in (text() + "design: {grid: {x: [1]}}\n", neither):
        with pytest.raises(ValueError, match="a study has a design or a search"):
            plan(tmp_path, content)


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


def test_a_report_says_how_the_point_was_chosen_and_on_whom(tmp_path):
    content = text(space=NUMBERS, more=", nested: true").replace("by: y", "by: [x, y]")
    run(tmp_path, content)
    found = reported(tmp_path, content)
    (number,) = found.searched.chosen
    points = found.searched.points
    assert found.rows[0].configuration_id == done_point(tmp_path, number)["configuration_id"]
    assert found.rows[0].label == "x {x:.4g}, y {y:.4g}".format(**points[number].settings)
    assert points[number].accuracy == max(point.accuracy for point in points if point.accuracy is not None)
    assert points[-1].best_so_far == points[number].accuracy
    assert sum(map(sum, found.searched.surface.counts)) == 16
    assert sum(found.searched.importance.values()) == pytest.approx(1)
    assert "selection saw these subjects" in " ".join(found.notes)
    assert "SYNTHETIC" in found.title
    outer = Store(tmp_path).trials()
    nested = [p["refit"][0] for p in kept(tmp_path)["procedures"][1:]]
    accuracies = [
        outer.filter(configuration_id=one["configuration_id"], fold=one["fold"])["accuracy"].item() for one in nested
    ]
    assert found.searched.nested.mean == pytest.approx(100 * np.mean(accuracies))


def test_a_report_of_a_selection_on_test_folds_says_so_in_its_title(tmp_path):
    content = text(space=NUMBERS, more=", select: test")
    run(tmp_path, content)
    assert reported(tmp_path, content).title.startswith("SELECTED ON TEST FOLDS")
    assert Store(tmp_path).every_trial()["without"].null_count() == 160


def test_a_report_of_a_search_that_is_not_over_chooses_nothing(tmp_path):
    content = text(space=NUMBERS)

    def listen(event):
        if isinstance(event, PackDone):
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, content, listen)
    found = reported(tmp_path, content)
    assert not found.rows
    assert "The search is not over" in " ".join(found.notes)
    assert formats.render([found], Format.MARKDOWN).count("\n# ") == 0


def test_what_pruning_saves_is_counted_in_epochs_of_trials(tmp_path):
    content = text(space=NUMBERS, more=", pruning: {first: 2, reduction: 2}")
    run(tmp_path, content)
    found = reported(tmp_path, content).searched
    pruned = [point for point in found.points if point.state == "pruned"]
    assert pruned
    assert found.whole_epochs == 16 * 10 * 9
    assert found.trained_epochs <= found.whole_epochs


def reported(root, content):
    planned = plan(root, content)
    record.freeze(planned, Store(root), ["idenctl", "study", "run", "study.yaml"])
    planned.search.write()
    frozen = json.loads((root / "studies/top/plan.json").read_text())
    return search_report.build(frozen, kept(root), Store(root).trials())


def kept(root):
    return json.loads((root / "studies/top/search.json").read_text())


def done_point(root, number):
    return kept(root)["procedures"][0]["points"][number]


@pytest.mark.slow
def test_the_best_of_arms_that_are_all_the_same_looks_better_than_it_is_and_nested_does_not():
    chosen, nested, truth = bias(draws=12)
    assert np.mean(chosen) > truth + 3 * sem(chosen)
    assert abs(np.mean(nested) - truth) < 3 * sem(nested)
