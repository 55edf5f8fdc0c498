import itertools

import pytest

from orchestrator.design import cells, describe
from orchestrator.study import Study


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
    ("listed", "grid"),
    [
        ([{"alpha": 0.2}, {"alpha": 0.2}], {}),
        ([{"alpha": 0.2}], {"alpha": [0.1, 0.2]}),
        ([{"variant": "if"}, {}], {}),  # the base says the same
    ],
)
def test_two_cells_with_the_same_settings_are_refused(listed, grid):
    with pytest.raises(ValueError, match="are the same configuration; remove one"):
        cells(study({"variant": "if"}, listed, grid))


def test_labels_that_train_to_the_same_result_are_two_cells():
    # without supervised identities `if` is `f`, yet a study may hold both labels
    assert len(cells(study({}, [{"variant": "f"}, {"variant": "if", "id_rate": 0}], {}))) == 2
