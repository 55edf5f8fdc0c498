import numpy as np
import pytest
import torch

from idennet_core import batches
from idennet_core.faces import augmentation
from idennet_core.streams import generator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stored():
    """64 stored pictures of noise of every contrast, the first two even."""
    pixels = generator("batches").integers(0, 256, (64, 80, 80)).astype(float)
    pixels = 128 + (pixels - 128) * np.linspace(0, 1, 64)[:, None, None]
    pixels[1] = 0
    return pixels.astype(np.uint8)


def draws(name, count):
    stream = generator(name)
    return stream.integers(0, augmentation.MAX_OFFSET + 1, (count, 2)), stream.random(count) < 0.5


def test_crops_on_the_device_equal_the_banks_crops_of_mirrored_faces(stored):
    """Tolerance: 1e-5 of a standard deviation, the rounding of two ways to a mean."""
    offsets, flips = draws("draws", 64)
    offsets[:4] = [[0, 0], [12, 12], [0, 12], [12, 0]]
    found = batches.crops(torch.from_numpy(stored), torch.from_numpy(offsets), torch.from_numpy(flips))
    faces = augmentation.faces_only(stored)
    mirrored = np.where(flips[:, None, None], faces[:, :, ::-1], faces)
    np.testing.assert_allclose(found.numpy(), augmentation.crops(mirrored, offsets), rtol=0, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.shape == (64, 1, 48, 48)


def test_a_crop_is_where_its_offset_says_pixel_by_pixel(stored):
    offsets, flips = draws("by hand", 64)
    found = batches.crops(torch.from_numpy(stored), torch.from_numpy(offsets), torch.from_numpy(flips)).numpy()
    for place in range(64):
        face = stored[place, 10:70, 10:70].astype(float)
        face = np.fliplr(face) if flips[place] else face
        row, column = offsets[place]
        cut = face[row : row + 48, column : column + 48]
        wanted = (cut - cut.mean()) / max(cut.std(), 1)
        np.testing.assert_allclose(found[place, 0], wanted, rtol=0, atol=1e-5)


def test_centre_crops_are_those_of_testing(stored):
    wanted = augmentation.crops(augmentation.faces_only(stored), np.full((64, 2), 6))
    np.testing.assert_allclose(batches.centre_crops(torch.from_numpy(stored)).numpy(), wanted, rtol=0, atol=1e-5)


def test_the_crops_of_a_step_depend_on_its_name_alone(stored):
    pictures = torch.from_numpy(stored)
    first = batches.random_crops(pictures, "trunk", "crops", 7)
    batches.random_crops(pictures, "trunk", "crops", 6)
    assert torch.equal(batches.random_crops(pictures, "trunk", "crops", 7), first)
    assert not torch.equal(batches.random_crops(pictures, "trunk", "crops", 8), first)


def test_random_crops_use_every_offset_and_flip_half_of_the_pictures(stored):
    """Each crop of one picture, drawn 4000 times, is found among all 338 there are."""
    places = np.array([(row, column, flip) for flip in (0, 1) for row in range(13) for column in range(13)])
    face = augmentation.faces_only(stored[-1:])[0]
    mirrored = np.stack([np.fliplr(face) if flip else face for _, _, flip in places])
    candidates = torch.from_numpy(augmentation.crops(mirrored, places[:, :2])).flatten(1)
    drawn = batches.random_crops(torch.from_numpy(stored[-1:]).expand(4000, -1, -1), "coverage").flatten(1)
    found = (drawn @ candidates.T).argmax(1)
    torch.testing.assert_close(drawn, candidates[found], rtol=0, atol=1e-5)
    assert len(found.unique()) == 338
    assert (found >= 169).double().mean().item() == pytest.approx(0.5, abs=5 * (0.25 / 4000) ** 0.5)


def test_pictures_held_on_the_device_equal_those_read_from_the_file(stored, tmp_path, monkeypatch):
    np.save(tmp_path / "faces.npy", stored)
    mapped = np.load(tmp_path / "faces.npy", mmap_mode="r")
    monkeypatch.setattr(batches, "CHUNK", 7)  # 64 pictures are no whole number of chunks
    rows = generator("rows").permutation(64)[:20]
    held = batches.resident(mapped, CPU)
    read = batches.source(mapped, CPU)(rows)
    assert torch.equal(held[torch.from_numpy(rows)], read)
    assert torch.equal(read, torch.from_numpy(stored[rows]))
