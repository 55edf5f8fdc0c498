"""Trunks as tasks of a real Ray, on CPU cores in the place of GPUs."""

import pytest
import torch
from safetensors.torch import load_file

from idennet_core import config, pretraining, sealing
from idennet_core.datasets import oulu_casia, prepared
from idennet_core.datasets.prepared import Face
from idennet_core.ids import content_id
from idennet_core.streams import generator
from orchestrator import trunks
from orchestrator.planning import Capacity
from orchestrator.store import Store

TWO_DEVICES = Capacity("cpu", 2, 1)
ONE_DEVICE = Capacity("cpu", 1, 2)


@pytest.fixture
def stores(tmp_path):
    """Two stores with the same 48 prepared faces of noise."""
    people = [(f"P{i}", label) for i in range(8) for label in oulu_casia.CLASSES]
    rows = [Face(p, label, f"{p}/{label}", "1", "", f"{p}/{label}") for p, label in people]
    pixels = generator("trunk tasks").integers(0, 256, (len(rows), 80, 80), dtype="uint8")
    for name in ("tasks", "threads"):
        prepared.save(tmp_path / name / "data/noise", "noise", oulu_casia.CLASSES, True, pixels, rows, [], {})
    return [Store(tmp_path / name).open() for name in ("tasks", "threads")]


def recipe_of(store, task, **settings):
    data_id = prepared.read_metadata(store.data / "noise")["data_id"]
    wanted = {"dataset": "noise", "epochs": 2, "batch_size": 16} | settings
    return config.trunk_recipe(task, {"depth": 10, "bottleneck": 12, "compression": 1.0}, wanted, data_id)


def test_trunks_trained_as_ray_tasks_equal_those_trained_as_threads_to_the_bit(stores):
    recipes = [recipe_of(stores[0], task) for task in config.TASKS]
    heard: dict[str, pretraining.Progress] = {}
    trunks.train(recipes, stores[0], TWO_DEVICES, lambda progress: heard.update({progress.task: progress}))
    trunks.train(recipes, stores[1], ONE_DEVICE, lambda _: None)
    for recipe in recipes:
        assert heard[recipe["task"]].done == heard[recipe["task"]].total == 6  # 48 pictures, 2 epochs
        trunk_id = content_id(recipe)
        one, other = (load_file(store.trunks / trunk_id / "network.safetensors") for store in stores)
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())
        assert sealing.trunk_facts(stores[0].trunks / trunk_id)["recipe"] == recipe


def test_an_error_in_a_task_is_raised_as_it_was_there(stores):
    with pytest.raises(ValueError, match="must not exceed the training pictures, got 500") as refused:
        trunks.train([recipe_of(stores[0], "emotion", batch_size=500)], stores[0], TWO_DEVICES, lambda _: None)
    assert "\n" not in str(refused.value)
