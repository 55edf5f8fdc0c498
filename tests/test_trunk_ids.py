"""What identifies a trunk, and which configurations name one."""

import json

import pytest
from trunk_recipes import TRUNK_ID, recipe_of

from idennet_core import config
from idennet_core.ids import content_id

SETTINGS = {"epochs": 3, "batch_size": 25, "lr": 0.06, "seed": 1, "dataset": "other", "precision": "bf16"}
PARTS = {"task": "identity", "data_id": "e" * 32, "depth": 16, "bottleneck": 48, "compression": 0.5, "recipe": 0}


def test_a_trunks_id_depends_on_every_part_of_recipe_and_data():
    others = SETTINGS | PARTS
    assert others.keys() == recipe_of().keys()
    assert all(recipe_of(**{name: value}) == recipe_of() | {name: value} for name, value in SETTINGS.items())
    assert recipe_of(data_id="e" * 32) == recipe_of() | {"data_id": "e" * 32}
    ids = {TRUNK_ID, *(content_id(recipe_of() | {name: value}) for name, value in others.items())}
    ids.add(content_id(recipe_of("identity")))  # of another data set too
    assert len(ids) == 2 + len(others)
    assert all(len(trunk_id) == 32 and int(trunk_id, 16) >= 0 for trunk_id in ids)


def test_a_trunks_id_depends_on_nothing_else():
    reverse = dict(reversed(recipe_of().items()))
    assert list(reverse) != list(recipe_of())
    assert content_id(reverse) == TRUNK_ID
    assert content_id(json.loads(json.dumps(recipe_of()))) == TRUNK_ID
    whole = config.canonical({"depth": 10, "alpha": 3, "lr": 1, "bank_seed": 5, "epochs": 7})
    settings = {"lr": 0.05, "batch_size": 24, "epochs": 2, "seed": 0}
    assert content_id(config.trunk_recipe("emotion", whole, settings, "d" * 32)) == TRUNK_ID
    assert content_id(recipe_of(lr=1)) == content_id(recipe_of(lr=1.0))


@pytest.mark.parametrize("settings", [{"identity_trunk": "trained"}, {"variant": "i", "identity_trunk": "untrained"}])
def test_a_trained_identity_trunk_and_one_that_no_stream_reads_are_named_in_no_configuration(settings):
    plain = {name: value for name, value in settings.items() if name != "identity_trunk"}
    assert config.canonical(settings) == config.canonical(plain)
    assert config.canonical({"variant": "f", "identity_trunk": "untrained"})["identity_trunk"] == "untrained"


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, got 'fp16'"):
        recipe_of(precision="fp16")
