"""Studies whose answer is known: the analysis must find what is planted, and nothing where nothing is."""

import numpy as np
import pytest
import torch

from benchmarks import known_answer, planted
from benchmarks.known_answer import answers, corrected, p_of
from idennet_core.faces.augmentation import crops, faces_only, views
from idennet_core.streams import generator
from orchestrator.store import Store

WIDTH = 7


def trunk(faces, strength, seed=0):
    return planted.PlantedTrunk(faces, WIDTH, strength, seed).eval()


def test_a_planted_trunk_recognises_each_picture_in_every_view_wherever_it_is_cropped(face_set):
    maps = trunk(face_set, 0.5)
    pictures = views(np.asarray(face_set.faces))[::11]
    offsets = generator("crops of planted pictures").integers(0, 13, (len(pictures), 2))
    found = maps(torch.from_numpy(crops(pictures, offsets)))
    assert found.shape == (len(pictures), WIDTH, 24, 24)
    rows = np.arange(14 * len(face_set.faces))[::11] % len(face_set.faces)
    for row, (top, left), one in zip(rows, offsets, found, strict=True):
        # the grid's values lie 12 pixels apart, from the sixth on; a map's pixel is two of the crop's
        y, x = ((start + 2 * np.arange(24) + 0.5) / 12 - 0.5 for start in (top, left))
        assert np.allclose(one.numpy(), bilinear(maps.maps[row].numpy(), y + 0.5 / 12, x + 0.5 / 12), atol=1e-5)


def bilinear(grid, y, x):
    """Values [C, Y, X] of a grid [C, H, W] between its points, beyond its border those of the border."""
    along = np.stack([[np.interp(x, np.arange(grid.shape[2]), line) for line in channel] for channel in grid])
    across = [[np.interp(y, np.arange(grid.shape[1]), line) for line in channel.T] for channel in along]
    return np.stack(across).transpose(0, 2, 1)


def test_a_crop_of_another_set_is_refused(face_set):
    others = generator("other pictures").integers(0, 256, (3, 60, 60), dtype=np.uint8)
    with pytest.raises(AssertionError, match="another set's picture"):
        trunk(face_set, 0.5)(torch.from_numpy(crops(others, np.full((3, 2), 6))))


def test_at_strength_0_the_maps_say_nothing_of_the_class_and_their_spectrum_is_that_of_every_strength(face_set):
    offsets = np.full((len(face_set.faces), 2), 6)
    images = torch.from_numpy(crops(faces_only(np.asarray(face_set.faces)), offsets))
    shuffled = generator("labels").permutation(face_set.label)
    power = {}
    for strength in (0.0, 1.0):
        maps = planted.PlantedTrunk(face_set, 200, strength, 0)(images).numpy()
        power[strength] = (np.abs(np.fft.fft2(maps)) ** 2).mean((0, 1))
        between = {
            name: np.mean([maps[labels == c].mean(0) ** 2 for c in face_set.classes])
            for name, labels in (("true", face_set.label), ("shuffled", shuffled))
        }
        ratio = between["true"] / between["shuffled"]
        assert ratio == pytest.approx(1, abs=0.1) if strength == 0 else ratio > 3
    strong = power[0.0] > power[0.0].max() / 100
    assert strong.sum() > 10
    assert power[1.0][strong] == pytest.approx(power[0.0][strong], rel=0.15)


def test_what_cannot_matter_is_no_setting_of_a_planted_trial():
    assert "strength" not in planted.canonical({"variant": "original", "strength": 0.5})
    assert "permuted" not in planted.canonical({"variant": "f", "permuted": True})
    assert planted.canonical({"variant": "if", "alpha": 0})["alpha"] == 0, "shown equal to F, not called so"


@pytest.mark.parametrize("wrong", [{"strength": -1}, {"strength": True}, {"permuted": 1}, {"strenght": 1}])
def test_a_wrong_setting_of_the_planted_world_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        planted.complete(wrong, planted.SETTINGS)


@pytest.fixture(scope="module")
def planted_study(tmp_path_factory):
    """The store and the plan of the planted study after its run."""
    store = Store(tmp_path_factory.mktemp("known-answer")).open()
    known_answer.draw_faces(store)
    return store, known_answer.run(store)


@pytest.fixture(scope="module")
def of_f(planted_study):
    """F against Original at each strength and seed."""
    store, plan = planted_study
    found = answers(plan, store.trials(), "f", {"variant": "original"})
    assert len({answer.seed for answer in found}) == 3
    return found


@pytest.mark.slow
def test_f_beats_original_significantly_at_the_stated_strength_with_every_seed(planted_study, of_f):
    _, plan = planted_study
    stated = plan["report"]["baselines"][1]["strength"]
    called = [answer for answer in of_f if answer.label["strength"] >= stated]
    assert len(called) == 6
    for answer in called:
        assert answer.minus.difference.mean > 0
        assert corrected(answer, of_f) < 0.01


@pytest.mark.slow
def test_the_advantage_grows_with_the_strength_with_every_seed(of_f):
    for seed in range(3):
        own = sorted((a.label["strength"], a.minus.difference.mean) for a in of_f if a.seed == seed)
        means = [mean for _, mean in own]
        assert means == sorted(means)
        assert len(set(means)) == len(means) == 4


@pytest.mark.slow
def test_noise_of_the_same_spectrum_is_not_called_with_any_seed(of_f):
    noise = [answer for answer in of_f if answer.label["strength"] == 0]
    assert len(noise) == 3
    assert all(p_of(answer) > 0.05 for answer in noise), "before any correction"


@pytest.mark.slow
def test_with_permuted_identities_the_identity_loss_gains_nothing(planted_study):
    store, plan = planted_study
    found = answers(plan, store.trials(), "if", plan["report"]["baselines"][1])
    permuted = [answer for answer in found if answer.label.get("permuted")]
    assert len(permuted) == 3
    assert not [answer for answer in permuted if answer.minus.difference.mean > 0 and p_of(answer) < 0.05]


@pytest.mark.slow
def test_alpha_0_is_f_to_the_bit(planted_study):
    store, plan = planted_study
    f = plan["report"]["baselines"][1]
    (zero,) = [cell for cell in plan["cells"] if cell["label"].get("alpha") == 0]
    trials = store.trials().filter(configuration_id=zero["configuration_id"])
    assert set(trials["variant"]) == {"if"}, "trained with an identity classifier, not taken for F"
    assert known_answer.equal_to_the_bit(plan, store, f, zero["label"])
    assert not known_answer.equal_to_the_bit(plan, store, f, {"variant": "original"})
