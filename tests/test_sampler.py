"""What is asked of a search's space, and that it follows from the study and its results alone."""

import ast
import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from scipy.stats import qmc
from searching import NUMBERS, SAMPLERS, asked, plan, rows, run, text

from benchmarks.simulated import Simulated
from idennet_core.ids import content_id
from idennet_core.streams import generator
from orchestrator import runner
from orchestrator.planning import Capacity
from orchestrator.search.packs import SearchPacks
from orchestrator.search.sampler import Outcome, Search
from orchestrator.search.space import Parameter
from orchestrator.workload import Context, run_pack


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_was_asked_follows_from_the_study_and_its_results_alone(sampler, tmp_path):
    run(tmp_path, text(sampler))
    before, trained = asked(tmp_path), rows(tmp_path)
    for path in tmp_path.glob("studies/*/asked/*/*/*.json"):
        path.unlink()
    run(tmp_path, text(sampler))
    assert asked(tmp_path) == before
    assert rows(tmp_path).equals(trained), "nothing was trained again"


@pytest.mark.parametrize("sampler", ["tpe", "cma-es", "nsga-ii"])
def test_the_asynchronous_order_on_two_devices_is_built_again_whatever_was_done_first(sampler, tmp_path):
    content = text(sampler, more=", order: asynchronous")
    devices = Capacity("cpu", 2, 1)
    planned = plan(tmp_path, content, devices)
    workload, store, ended = Simulated(planned.search.store), planned.search.store, False
    context = Context(store, "cpu", 1, lambda event: None)
    while not ended:
        packs = SearchPacks(planned.study, store, workload, partial(runner._configure, workload), devices, keeps=True)
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


IMPORTANCE = """
from orchestrator.search.sampler import Outcome, Search
from orchestrator.search.space import Parameter

search = Search({name: Parameter(low=0.0, high=1.0) for name in "wxyz"}, "random", (0,), ["maximize"], 8)
for number, point in enumerate(search.ask(8, str)):
    search.tell(point, Outcome("complete", [float(number > 3)]))
print(list(search.importance().items()))
"""


def test_the_importance_of_parameters_is_the_same_in_every_process():
    said = [
        subprocess.run(
            [sys.executable, "-c", IMPORTANCE], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        for seed in "01"  # whose sets have other orders
    ]
    assert len({done.stdout for done in said}) == 1
    shares = ast.literal_eval(said[0].stdout.decode())
    assert [name for name, _ in shares] == sorted("wxyz", key=lambda name: (-dict(shares)[name], name))
    assert math.fsum(dict(shares).values()) == pytest.approx(1)
