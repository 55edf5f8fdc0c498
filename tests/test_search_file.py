"""The section `search` of a study file."""

import pytest
from searching import plan, text

from orchestrator import runner, study
from orchestrator.search.pruning import Pruning
from orchestrator.store import Store

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
    "enqueue unknown": ("space: {x: {low: 0, high: 1}}, enqueue: [{y: 1}]", "got 'y'; valid: x"),
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
    "rung at the end": (
        "space: {x: {low: 0, high: 1}}, pruning: {first: 9}",
        "a rung must come before the last of 9 epochs, got 9; set an earlier one",
    ),
    "rung after the end": (
        "space: {x: {low: 0, high: 1}}, pruning: {rungs: [2, 12]}",
        "a rung must come before the last of 9 epochs, got 12; set an earlier one",
    ),
    "rungs that fall": (
        "space: {x: {low: 0, high: 1}}, pruning: {rungs: [4, 2]}",
        "search.pruning.rungs must be numbers of epochs of at least 1, each above the one before, got [4, 2]",
    ),
    "reduction": (
        "space: {x: {low: 0, high: 1}}, pruning: {reduction: 1}",
        "search.pruning.reduction must be an integer of at least 2: one of so many configurations goes on, got 1",
    ),
    "level": (
        "space: {x: {low: 0, high: 1}}, pruning: {level: 0.5}",
        "search.pruning.level must be above 0 and below 0.5, got 0.5",
    ),
    "unknown key of pruning": (
        "space: {x: {low: 0, high: 1}}, pruning: {redaction: 4}",
        "unknown key 'search.pruning.redaction'; did you mean 'reduction'",
    ),
    "pruning of varying epochs": (
        "space: {x: {low: 0, high: 1}, epochs: {low: 5, high: 9}}, pruning: {}",
        "pruning compares after equal epochs, they must not vary; remove one",
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
    content = content.replace(", lag: 10, draw: 3, takes: 0.0", "")
    with pytest.raises(ValueError, match=r"such as 16, 22 or 40, got 17; set step, or list choices$"):
        plan(tmp_path, content)


def test_pruning_of_a_workload_without_epochs_is_refused(tmp_path):
    content = text("tpe", "{C: {low: 1, high: 9}}", more=", pruning: {}").replace("by: y", "by: C")
    content = content.replace("benchmarks.simulated:Simulated", "examples.sklearn_digits:Digits")
    content = content.replace("simulated", "digits").replace("epochs: 9, lag: 10, draw: 3, takes: 0.0", "")
    said = "pruning stops trials between epochs, the workload has none; remove pruning"
    with pytest.raises(ValueError, match=rf"study\.yaml:8: {said}"):
        plan(tmp_path, content)


def test_pruning_has_defaults(tmp_path):
    assert plan(tmp_path, text(more=", pruning: {}")).study.search.pruning == Pruning()


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
    with pytest.raises(ValueError, match=r"search\.configurations should be greater than or equal to 1, got 0"):
        runner.load(tmp_path / "study.yaml", "quick", {}, Store(tmp_path))


def test_a_study_has_a_design_or_a_search(tmp_path):
    neither = "\n".join(line for line in text().splitlines() if "search:" not in line)
    for content, got in ((text() + "design: {grid: {x: [1]}}\n", "both"), (neither, "none")):
        with pytest.raises(ValueError, match=f"a study has a design or a search, got {got}"):
            plan(tmp_path, content)
