"""The recipe of a small trunk."""

from idennet_core import config
from idennet_core.ids import content_id

ARCHITECTURE = {"depth": 10, "bottleneck": 12, "compression": 1.0}


def recipe_of(task="emotion", data_id="d" * 32, **settings):
    return config.trunk_recipe(task, ARCHITECTURE, {"epochs": 2, "batch_size": 24, "lr": 0.05} | settings, data_id)


TRUNK_ID = content_id(recipe_of())
