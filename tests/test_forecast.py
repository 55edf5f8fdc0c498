"""The time left, held against simulated runs whose end is known; the leader against scipy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from idennet_core.streams import generator
from orchestrator import forecast
from orchestrator.progress import (
    Asked,
    Foreseen,
    PackCut,
    PackDone,
    PackFailed,
    PackStarted,
    Progress,
    RunState,
)

TENTH = 0.1
STEPS = 60


def began(packs, slots=1):
    """A run of packs, by name the trials and the seconds that each was foreseen to take."""
    trials = {name: tuple(f"{name}-{n}" for n in range(count)) for name, (count, _) in packs.items()}
    foreseen = {name: Foreseen(trials[name], seconds) for name, (_, seconds) in packs.items()}
    return RunState(
        "s", {i: "cell" for ids in trials.values() for i in ids}, {}, len(packs), foreseen=foreseen, slots=slots
    )


def simulated(state, took, start):
    """The events of the run and its end: a pack takes `took` seconds after `start`, on the device that is free."""
    free, events = [0.0] * state.slots, []
    for name, foreseen in state.foreseen.items():
        device = free.index(min(free))
        at = free[device]
        events.append((at, PackStarted(name, foreseen.trial_ids)))
        for step in range(STEPS):
            then = at + start + took[name] * step / STEPS
            events.append((then, Progress(name, step, STEPS, 1 if step else 0, 1, "", {})))
        free[device] = at + start + took[name]
        events.append((free[device], PackDone(name, dict.fromkeys(foreseen.trial_ids, 0.5), {})))
    return sorted(events, key=lambda pair: pair[0]), max(free)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_after_a_tenth_of_the_work_the_time_left_is_within_a_fifth(slots, factor, seed):
    """Packs of unequal size and kind, foreseen wrong by one factor and each by up to 15% more, that start in 5 s."""
    random = generator("test forecast", seed)
    packs = {f"p{n}": (int(random.integers(2, 40)), float(random.uniform(30, 300))) for n in range(12)}
    took = {name: factor * seconds * random.uniform(0.85, 1.15) for name, (_, seconds) in packs.items()}
    state = began(packs, slots)
    events, end = simulated(state, took, start=5.0)
    checked = 0
    for at, event in events:
        state = state.apply(event, at)
        if TENTH <= at / end <= 0.9:
            assert forecast.seconds_left(state, at) == pytest.approx(end - at, rel=0.2), f"at {at / end:.0%}"
            checked += 1
    assert checked > 50


def test_packs_of_other_sizes_and_kinds_are_not_taken_for_those_that_ran():
    """Ten small trials of 1 s, then two large of 100 s: a trial is not a trial, so a mean over trials is far off."""
    state = began({"small": (10, 10.0), "large": (2, 200.0)})
    events, end = simulated(state, {"small": 20.0, "large": 400.0}, start=0.0)
    for at, event in events:
        state = state.apply(event, at)
        if 10 < at < end:
            assert forecast.seconds_left(state, at) == pytest.approx(end - at, rel=0.01)
            assert forecast.share(state) == pytest.approx(at / end, abs=0.01)


def test_parts_foreseen_wrong_by_factors_of_their_own_are_known_of_packs_that_have_not_begun():
    """Banks take a third of what was foreseen, head steps twice; one pack is nearly all banks, the other all heads."""
    parts = {"banks": {"trunk": 90.0, "head": 10.0}, "heads": {"trunk": 10.0, "head": 90.0}}
    takes = {name: {"trunk": each["trunk"] / 3, "head": each["head"] * 2} for name, each in parts.items()}
    state = began({name: (2, 100.0) for name in parts})
    state = replace(state, foreseen={name: replace(pack, parts=parts[name]) for name, pack in state.foreseen.items()})
    first, second = (sum(each.values()) for each in takes.values())
    state = state.apply(PackStarted("banks", ("banks-0", "banks-1")), 0.0)
    state = state.apply(Progress("banks", 0, 10, 0, 10, "bank", share=0.0), 0.0)
    assert forecast.seconds_left(state, 0.0) == pytest.approx(200), "the plan is what there is"
    state = state.apply(Progress("banks", 1, 10, 0, 10, "heads", share=0.1, takes=takes["banks"]), 0.1 * first)
    assert forecast.seconds_left(state, 0.1 * first) == pytest.approx(0.9 * first + second)
    state = state.apply(Progress("banks", 10, 10, 9, 10, "heads", share=1.0, takes=takes["banks"]), first)
    state = state.apply(PackDone("banks", {"banks-0": 0.5, "banks-1": 0.5}, {}), first)
    assert forecast.seconds_left(state, first) == pytest.approx(second)


def test_the_share_that_a_workload_knows_better_than_by_steps_counts():
    state = began({"p": (1, 10.0)}).apply(PackStarted("p", ("p-0",)), 0.0)
    state = state.apply(Progress("p", 0, 10, 0, 10, "bank", share=0.0), 0.0)
    state = state.apply(Progress("p", 1, 10, 0, 10, "heads", share=0.5), 8.0)
    assert forecast.seconds_left(state, 8.0) == pytest.approx(8.0)
    assert forecast.seconds_left(state, 10.0) == pytest.approx(6.0), "the time goes on between two reports"


def test_a_pack_that_does_not_know_its_own_pace_yet_goes_on_all_the_same():
    state = began({"p": (1, 40.0)}).apply(PackStarted("p", ("p-0",)), 0.0)
    for at in (0.0, 3.0, 9.0):
        state = state.apply(Progress("p", 0, 10, 0, 10, "bank", share=0.0), at)
    assert forecast.seconds_left(state, 10.0) == pytest.approx(30.0)


def test_when_trials_leave_less_is_left():
    state = began({"p": (2, 100.0)}).apply(PackStarted("p", ("p-0", "p-1")), 0.0)
    state = state.apply(Progress("p", 0, 100, 1, 10, ""), 0.0).apply(Progress("p", 20, 100, 1, 10, ""), 10.0)
    assert forecast.seconds_left(state, 10.0) == pytest.approx(40)  # 80 steps at 2 a second
    state = state.apply(Progress("p", 20, 60, 1, 10, "", pruned={"p-1": "below"}), 10.0)
    assert forecast.seconds_left(state, 10.0) == pytest.approx(20)


def test_before_anything_is_measured_the_plan_is_what_there_is():
    state = began({"a": (5, 50.0), "b": (5, 70.0)}, slots=2)
    assert forecast.seconds_left(state, 0.0) == pytest.approx(70.0)
    assert forecast.seconds_left(RunState("s", {"t": "c"}, {}, 1), 0.0) is None


@pytest.mark.parametrize(("ends", "left"), [(PackFailed("a", (), "gone"), 40.0), (PackCut("a", "too large", ()), 80.0)])
def test_a_pack_that_failed_is_not_waited_for_and_halves_of_one_that_was_cut_are(ends, left):
    state = began({"a": (4, 40.0), "b": (4, 40.0)}).apply(PackStarted("a", tuple(f"a-{n}" for n in range(4))), 0.0)
    assert forecast.seconds_left(state.apply(ends, 0.0), 0.0) == pytest.approx(left)


def test_trials_that_a_search_may_still_ask_for_are_part_of_the_time_left():
    state = began({"a": (4, 40.0)}, slots=2).apply(Asked({}, 0, to_come=36), 0.0)
    assert forecast.seconds_left(state, 0.0) == pytest.approx((40 + 360) / 2)
    assert forecast.share(state) == 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_leaders_interval_is_students_with_the_corrected_variance(seeds):
    random = generator("test leader", seeds)
    values = random.uniform(0.6, 0.9, (7, seeds))
    cells = {f"{fold}-{seed}": "good" for fold in range(7) for seed in range(seeds)} | {"bad": "bad", "later": "good"}
    folds = {trial: int(trial[0]) for trial in cells if "-" in trial}
    state = RunState("s", cells, {"bad": 0.1}, 1, folds=folds, test_to_train=1 / 9)
    state.accuracies.update({f"{f}-{s}": values[f, s] for f in range(7) for s in range(seeds)})
    found = forecast.leader(state)
    means = 100 * values.mean(1)
    half = stats.t.ppf(0.975, 6) * means.std(ddof=1) * np.sqrt(1 / 7 + 1 / 9)  # Nadeau & Bengio 2003
    assert (found.cell, found.seen, found.trials) == ("good", 7 * seeds, 7 * seeds + 1)
    assert found.accuracy.mean == pytest.approx(means.mean())
    assert found.accuracy.half_width == pytest.approx(half)


def test_a_cell_on_one_fold_or_without_folds_has_no_interval():
    state = RunState("s", {"t": "c"}, {"t": 0.5}, 1, folds={"t": 3}, test_to_train=1 / 9)
    assert forecast.leader(state).accuracy.half_width is None
    whole = RunState("s", {"t": "c"}, {"t": 0.5}, 1, folds={"t": None})
    assert forecast.leader(whole).accuracy.half_width is None
