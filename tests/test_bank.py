"""The bank that a pack's trials train on: what is in it, and that no training step runs or changes a trunk."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_packs import CPU, MATES, ORIGINAL, WIDTH, maps_by_hand, trunks_of
from torch.nn import functional as F

from idennet_core import bank, packed
from idennet_core.network import trunk_state
from idennet_core.training import single_threads

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("count", [1, 4])
def test_no_training_step_runs_a_trunk_or_changes_it_whatever_the_number_of_members(
    count, networks, member, train, face_set
):
    trunks, seen = trunks_of(networks), {0: [], 1: []}
    for place, trunk in enumerate(trunks):
        trunk.stem.register_forward_hook(lambda _, images, maps, place=place: seen[place].append(len(images[0])))
    train(
        [member(settings | {"epochs": 1}, fold, seed) for settings, fold, seed in MATES[:count]],
        trunks=trunks,
    )
    chunks = math.ceil(len(face_set.faces) / bank.CHUNK["cpu"])
    assert chunks > 1
    for sizes in seen.values():
        assert len(sizes) == chunks * (1 + 1)  # one epoch, and the centre crops
        assert sum(sizes) == 156 * (1 + 1)
    for trunk, before in zip(trunks, networks, strict=True):
        assert all(parameter.grad is None for parameter in trunk.parameters())
        for name, value in trunk_state(before).items():
            assert torch.equal(trunk.state_dict()[name], value), name


def test_with_augmentation_an_epoch_runs_each_of_14_views_once_through_the_trunk(networks, member, train, face_set):
    (trunk,), seen = trunks_of(networks, 1), []
    trunk.stem.register_forward_hook(lambda _, images, maps: seen.append(len(images[0])))
    first = slice(None, None, 6)  # 26 pictures
    faces = replace(face_set, faces=face_set.faces[first], label=face_set.label[first], subject=face_set.subject[first])
    settings = ORIGINAL | {"augment": True, "epochs": 1}
    trial = member(settings, 5, examples=packed.examples(faces, True))
    train([trial], trunks=[trunk], faces=faces)
    size = bank.CHUNK["cpu"]
    assert (len(seen), sum(seen)) == (math.ceil(26 / size) + math.ceil(14 * 26 / size), 26 + 14 * 26)
    assert trial.train_size == 26 - len(trial.test_rows) == 24
    assert trial.steps_per_epoch == 14 * 24 // 16


def test_a_bank_holds_the_pooled_maps_of_both_trunks_side_by_side(face_set, networks):
    offsets = bank.random_offsets(156, face_set.data_id, 0, 1)
    with single_threads(2) as pool:
        trunks = [trunk.eval() for trunk in trunks_of(networks)]
        features = bank.fill(face_set.faces[:, 10:70, 10:70], offsets, trunks, CPU, pool)
    assert features.shape == (156, 2 * WIDTH, 12, 12)
    wanted = F.avg_pool2d(maps_by_hand(face_set, networks, offsets), 2)
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)


def test_crops_lie_inside_the_face_and_depend_on_data_bank_seed_and_epoch():
    offsets = bank.random_offsets(2000, "data", 0, 0)
    assert np.array_equal(offsets, bank.random_offsets(2000, "data", 0, 0))
    assert np.array_equal(np.unique(offsets), np.arange(13))  # 60 - 48 = 12
    for other in (("other", 0, 0), ("data", 1, 0), ("data", 0, 1)):
        assert (offsets == bank.random_offsets(2000, *other)).mean() < 0.15  # by chance 1 / 13
    assert (bank.centre_offsets(3) == 6).all()
