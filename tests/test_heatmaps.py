"""Class-activation maps are exact, and a figure shows each of faces that its networks never saw."""

import cv2
import numpy as np
import polars as pl
import pytest
import torch
from conftest import idenctl
from test_inference import load, refused, trial_of

from idennet_core import heatmaps, inference
from idennet_core.datasets import oulu_casia, prepared
from idennet_core.datasets.folds import fold_of
from idennet_core.heatmaps import TILE, Block, Reading
from idennet_core.streams import generator
from orchestrator.cli.heatmap import sitters_of, trials_of
from orchestrator.cli.network import find_plan
from orchestrator.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = oulu_casia.CLASSES


@pytest.fixture
def exact(trained_store):
    """A network in float64 with some images for it."""
    network = load(trained_store, trial_of(trained_store, "if")).double()
    faces = prepared.load(trained_store / "data/oulu-casia").faces[:5]
    return network, inference.images_of(np.asarray(faces)).double()


def test_the_mean_of_a_map_plus_the_bias_is_the_logit(exact):
    network, images = exact
    maps = heatmaps.class_maps(network, images)
    assert maps.shape == (5, len(CLASSES), 12, 12)
    logits = maps.mean((2, 3)) + network.head.emotion.bias
    torch.testing.assert_close(logits, network(images), atol=1e-12, rtol=0)


def test_a_share_is_what_the_logit_loses_when_the_place_falls_silent(exact):
    network, images = exact
    after, shares = network.maps(images), heatmaps.class_maps(network, images)
    for row, column in [(0, 0), (5, 7), (11, 11)]:
        silent = after.clone()
        silent[:, :, row, column] = 0
        lost = network(images) - network.head.emotion(silent.mean((2, 3)))
        torch.testing.assert_close(shares[:, :, row, column] / 144, lost, atol=1e-12, rtol=0)


def test_a_reading_holds_the_stored_prediction_and_the_map_asked_for(trained_store):
    network = load(trained_store, trial_of(trained_store, "f"))
    stored = np.asarray(prepared.load(trained_store / "data/oulu-casia").faces[:12])
    labels = [CLASSES[index % 6] for index in range(12)]
    probabilities = inference.probabilities(network, stored)
    maps = heatmaps.class_maps(network, inference.images_of(stored)).numpy()
    for of_label in (False, True):
        readings = heatmaps.read(network, stored, CLASSES, labels, of_label)
        for index, (reading, label) in enumerate(zip(readings, labels, strict=True)):
            best = probabilities[index].argmax()
            assert reading.predicted == CLASSES[best]
            assert reading.probability == pytest.approx(probabilities[index, best], abs=1e-5)
            assert reading.right is (CLASSES[best] == label)
            shown = CLASSES.index(label) if of_label else best
            assert np.array_equal(reading.map, maps[index, shown])


def test_colour_lies_over_the_place_it_belongs_to():
    face = np.full((48, 48), 120, np.uint8)
    for sign, strong, weak in [(1.0, 2, 0), (-1.0, 0, 2)]:  # red channel, blue channel
        map_ = np.zeros((12, 12), np.float32)
        map_[2, 9] = sign
        tile = heatmaps.overlay(face, map_).astype(int)
        row, column = np.unravel_index((tile[..., strong] - tile[..., weak]).argmax(), (TILE, TILE))
        assert (row * 12 // TILE, column * 12 // TILE) == (2, 9)
        assert (tile[TILE // 2 :, : TILE // 2] == 120).all(), "where nothing speaks the face is grey"


def test_a_map_of_nothing_leaves_the_face_as_it_is():
    face = generator("overlay").integers(0, 256, (48, 48), dtype=np.uint8)
    tile = heatmaps.overlay(face, np.zeros((12, 12), np.float32))
    enlarged = cv2.resize(face, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
    assert np.abs(tile.astype(int) - enlarged[..., None]).max() == 0


@pytest.mark.parametrize("right", [True, False])
def test_a_wrong_prediction_alone_is_marked(right):
    face = np.full((48, 48), 120, np.uint8)
    reading = Reading(np.zeros((12, 12), np.float32), "fear", 0.5, right)
    sheet = heatmaps.figure(("title",), ("fear",), [Block(("P1",), [face], [(("F",), [reading])])], ())
    marked = (sheet == heatmaps.WRONG).all(2).any()
    assert marked == (not right)


def test_a_picture_that_is_not_there_leaves_its_place_white():
    face = np.full((48, 48), 120, np.uint8)
    reading = Reading(np.ones((12, 12), np.float32), "fear", 0.5, True)
    row = (("F",), [reading, None])
    half = heatmaps.figure(("title",), ("fear", "anger"), [Block(("P1",), [face, None], [row])], ())
    right_column = half[60:-60, -TILE:]
    assert (right_column == 255).all()


def drawn(trained_store, out, *options):
    ended = idenctl("heatmap", "tiny", "--out", out, *options, "--store", trained_store)
    assert ended.returncode == 0, ended.stderr
    picture = cv2.imread(str(out))
    assert picture is not None
    return picture, ended.stderr


def test_the_command_draws_a_row_a_variant_and_a_block_a_person(trained_store, tmp_path):
    one, said = drawn(trained_store, tmp_path / "one.png")
    assert "P00" in said
    two, said = drawn(trained_store, tmp_path / "two.png", "--people", 2)
    assert "P00, P10" in said
    named, _ = drawn(trained_store, tmp_path / "named.png", "--subject", "P00", "--subject", "P10")
    assert np.array_equal(two, named)
    cell, _ = drawn(trained_store, tmp_path / "cell.png", "--cell", "variant=f")
    true, _ = drawn(trained_store, tmp_path / "true.png", "--class", "true")
    row = (one.shape[0] - cell.shape[0]) / 2  # three variants, one variant
    assert row > TILE
    assert two.shape[0] - one.shape[0] > 3 * row
    assert true.shape == one.shape
    assert not np.array_equal(true, one)
    assert one.shape[1] > 6 * TILE


def test_everybody_shown_is_tested_by_the_networks_beside(trained_store):
    store = Store(trained_store)
    _, plan = find_plan(store, "tiny")
    cells = trials_of(plan, store.trials(), [])
    assert [label[0] for label in cells] == ["Original", "IDEnNet-F", "IDEnNet-IF"]
    assert [label[1:] for label in cells] == [(), (), ("id_rate 1.0",)], "the last of each variant"
    everybody = prepared.load(trained_store / "data/oulu-casia").subject.tolist()
    folds = fold_of(everybody)
    names = [name for name in sorted(set(everybody)) if folds[name] in (0, 3)]
    sitters = sitters_of(store.predictions(), list(cells.values()), names, 1)
    assert [sitter.name for sitter in sitters] == names
    for sitter in sitters:
        assert sitter.fold == folds[sitter.name]
        assert sitter.frames == {label: (sitter.name, f"{sitter.name}/{label}", "2") for label in CLASSES}, "the last"
        for trials in cells.values():
            assert trials[sitter.fold]["fold"] == folds[sitter.name]


def predictions(*rows):
    """Test frames (subject, sequence, frame, label) of the trial `t`."""
    return pl.DataFrame(
        [dict(zip(("subject", "sequence", "frame", "label"), row, strict=True)) | {"trial_id": "t"} for row in rows]
    )


def test_the_person_with_the_most_expressions_is_chosen():
    frames = predictions(
        ("A", "A/1", "1", "fear"),
        ("B", "B/1", "1", "fear"),
        ("B", "B/2", "1", "anger"),
        ("B", "B/1", "2", "fear"),
        ("C", "C/1", "1", "anger"),
    )
    cells = [{4: {"trial_id": "t"}}]
    (chosen,) = sitters_of(frames, cells, [], 1)
    assert (chosen.name, chosen.fold) == ("B", 4)
    assert chosen.frames == {"fear": ("B", "B/1", "2"), "anger": ("B", "B/2", "1")}
    assert [sitter.name for sitter in sitters_of(frames, cells, [], 3)] == ["B", "A", "C"]


def test_without_subjects_each_picture_is_somebody_else():
    frames = predictions(("", "b", "", "fear"), ("", "a", "", "fear"), ("", "c", "", "anger"), ("", "d", "", "anger"))
    first, second = sitters_of(frames, [{0: {"trial_id": "t"}}], [], 2)
    assert first.frames == {"fear": ("", "a", ""), "anger": ("", "c", "")}
    assert second.frames == {"fear": ("", "b", ""), "anger": ("", "d", "")}


def test_wrong_requests_are_one_line_and_draw_nothing(trained_store, tmp_path):
    out = tmp_path / "maps.png"
    request = ("heatmap", "tiny", "--store", trained_store, "--out")
    assert "'P01'; they test P00, P03" in refused(*request, out, "--subject", "P01")
    assert "it has variant=original; variant=f; id_rate=0.5" in refused(*request, out, "--cell", "variant=i")
    assert "at most 2" in refused(*request, out, "--people", 3)
    assert "exclude each other" in refused(*request, out, "--people", 2, "--subject", "P00")
    assert "existing folder" in refused(*request, tmp_path / "none" / "maps.png")
    assert "end in .png" in refused(*request, tmp_path / "maps.jpg")
    assert "no study 'tinny'" in refused("heatmap", "tinny", "--store", trained_store, "--out", out)
    assert "no study" in refused("heatmap", "tiny", "--store", tmp_path / "nowhere", "--out", out)
    assert not out.exists()
