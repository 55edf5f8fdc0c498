import itertools

import pytest

from idennet_core.config import canonical
from orchestrator.design import cells, describe, same
from orchestrator.study import Study
from orchestrator.trial import Configuration


def study(base, listed, grid):
    design = {"cells": listed, "grid": grid}
    content = {"name": "s", "question": "?", "dataset": "d", "base": base, "design": design}
    return Study.model_validate(content | {"report": {"by": "alpha"}})


def test_listed_cells_come_first_then_the_grid_with_its_last_setting_moving_fastest():
    made = cells(study({}, [{"variant": "f"}], {"alpha": [0.1, 0.2], "depth": [16, 22, 40]}))
    points = [{"alpha": a, "depth": d} for a, d in itertools.product([0.1, 0.2], [16, 22, 40])]
    assert [cell.label for cell in made] == [{"variant": "f"}, *points]


def test_a_label_holds_what_the_design_says_and_settings_hold_the_base_under_it():
    (cell,) = cells(study({"variant": "if", "alpha": 0.1}, [{"variant": "f"}], {}))
    assert cell.label == {"variant": "f"}
    assert cell.settings == {"variant": "f", "alpha": 0.1}


def test_any_setting_can_be_a_grid_axis_also_text_and_truth():
    made = cells(study({}, [], {"variant": ["i", "if"], "augment": [True, False]}))
    assert [describe(cell.label) for cell in made] == [
        "variant=i, augment=True",
        "variant=i, augment=False",
        "variant=if, augment=True",
        "variant=if, augment=False",
    ]


def test_an_empty_cell_is_the_base_itself():
    (cell,) = cells(study({"alpha": 0.1}, [{}], {}))
    assert cell.settings == {"alpha": 0.1}
    assert describe(cell.label) == "base"


@pytest.mark.parametrize(
    ("listed", "grid", "first", "again"),
    [
        ([{"alpha": 0.2}, {"alpha": 0.2}], {}, {"alpha": 0.2}, {"alpha": 0.2}),
        ([{"alpha": 0.2}], {"alpha": [0.1, 0.2]}, {"alpha": 0.2}, {"alpha": 0.2}),
        ([{"variant": "if"}, {}], {}, {"variant": "if"}, {}),  # the base says the same
    ],
)
def test_what_a_design_says_twice_is_one_cell_that_says_so(listed, grid, first, again):
    made = cells(study({"variant": "if"}, listed, grid))
    assert len(made) == len(listed) + len(grid.get("alpha", [])) - 1
    assert (made[0].label, made[0].also) == (first, (again,))
    assert all(cell.also == () for cell in made[1:])


def design(base, **sections):
    content = {"name": "s", "question": "?", "dataset": "d", "base": base, "design": sections}
    return cells(Study.model_validate(content | {"report": {"by": "alpha"}}))


def test_zip_pairs_the_values_of_its_lists():
    made = design({}, zip={"alpha": [0.1, 0.2, 0.4], "gamma": [15, 5, 2]})
    assert [cell.label for cell in made] == [{"alpha": a, "gamma": g} for a, g in ((0.1, 15), (0.2, 5), (0.4, 2))]


def test_one_at_a_time_is_the_base_and_the_base_with_one_setting_changed():
    base = {"alpha": 0.1, "gamma": 15}
    made = design(base, one_at_a_time={"alpha": [0.05, 0.1, 0.2], "gamma": [5, 15]})
    assert [cell.label for cell in made] == [{}, {"alpha": 0.05}, {"alpha": 0.2}, {"gamma": 5}]
    assert made[0].also == ({"alpha": 0.1}, {"gamma": 15})  # levels that are the base's
    for cell in made:
        changed = {name for name in base if cell.settings[name] != base[name]}
        assert changed == set(cell.label)


PARTS = {
    "fusion": {"on": {"variant": "if"}, "off": {"variant": "i"}},
    "loss": {"on": {"alpha": 0.1}, "off": {"alpha": 0}},
    "flips": {"on": {"augment": True}, "off": {"augment": False}},
}


def switched(cell):
    """Which components are on, read back from the settings."""
    return {name for name, part in PARTS.items() if part["on"].items() <= cell.settings.items()}


def test_leave_one_out_switches_one_component_off_and_add_one_in_one_on():
    made = design({"depth": 16}, components=PARTS, leave_one_out="all", add_one_in=["loss", "flips"])
    assert {cell.label["components"]: switched(cell) for cell in made} == {
        "all": set(PARTS),
        "all but fusion": {"loss", "flips"},
        "all but loss": {"fusion", "flips"},
        "all but flips": {"fusion", "loss"},
        "none": set(),
        "only loss": {"loss"},
        "only flips": {"flips"},
    }
    assert all(cell.settings["depth"] == 16 for cell in made)


def test_of_two_components_all_but_one_is_only_the_other_and_run_once():
    two = {name: PARTS[name] for name in ("fusion", "loss")}
    made = design({}, components=two, leave_one_out="all", add_one_in="all")
    said = [(cell.label["components"], [label["components"] for label in cell.also]) for cell in made]
    assert said == [("all", []), ("all but fusion", ["only loss"]), ("all but loss", ["only fusion"]), ("none", [])]


def test_the_parts_of_a_design_follow_each_other():
    made = design({}, cells=[{"alpha": 9}], grid={"alpha": [1, 2]}, zip={"alpha": [3]}, one_at_a_time={"alpha": [4]})
    assert [cell.label for cell in made] == [{"alpha": 9}, {"alpha": 1}, {"alpha": 2}, {"alpha": 3}, {}, {"alpha": 4}]


def test_cells_that_are_one_configuration_are_named_together():
    made = design({"variant": "if"}, cells=[{"variant": "f"}, {"alpha": 0}, {}, {"variant": "if"}])
    trained = [Configuration(canonical(cell.settings), {}) for cell in made]
    assert same(made, trained) == ["variant=f; alpha=0", "base; variant=if"]


def test_labels_that_train_to_the_same_result_are_two_cells():
    # without supervised identities `if` is `f`, yet a study may hold both labels
    assert len(cells(study({}, [{"variant": "f"}, {"variant": "if", "id_rate": 0}], {}))) == 2
