"""One trial: what its settings, seed and fold decide, and what reaches it of its test fold, which is nothing."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from threading import Event

import numpy as np
import pytest
import torch
from small_packs import F_, ID, IF, ORIGINAL, WIDTH, same

from idennet_core import packed
from idennet_core.config import HEAD_DEFAULTS
from idennet_core.datasets.folds import fold_of
from idennet_core.streams import generator
from idennet_core.training import Examples, learning_rate, supervised_identities

pytestmark = pytest.mark.usefixtures("one_thread")


# settings


def test_the_defaults_are_the_papers():
    paper = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 128}
    paper |= {"dropout": 0.5, "alpha": 0.1, "gamma": 15}
    assert {name: HEAD_DEFAULTS[name] for name in paper} == paper


def test_a_batch_size_above_the_training_pictures_is_refused(member):
    with pytest.raises(ValueError, match="batch_size must not exceed the training pictures, got 133 for 132"):
        member(IF | {"batch_size": 133})


def test_the_learning_rate_is_divided_by_10_at_half_and_again_at_three_quarters_of_the_steps():
    rates = [learning_rate(step, 100, 0.5) for step in range(100)]
    assert rates == pytest.approx([0.5] * 50 + [0.05] * 25 + [0.005] * 25, rel=1e-12)
    assert [learning_rate(step, 5, 1.0) for step in range(5)] == pytest.approx([1, 1, 1, 0.1, 0.01])


# common random numbers


def masks(trial, step, layer):
    trial.dropout.step = step
    return trial.dropout(torch.ones(16, 12, 12, 12), layer)


def order_of(trial, epoch):
    """The rows in the order in which the trial asks its head for them."""
    noise = torch.from_numpy(generator("order of rows").standard_normal((1, 1, 12, 12), dtype="float32"))
    noise = noise.expand(len(trial.labels), trial.head.fusion.weight.shape[1], 12, 12)
    ask, seen = trial._logits, []
    trial._logits = lambda bank, rows, dropout=None: seen.append(rows) or ask(bank, rows, dropout)
    trial.train_epoch(noise, noise, epoch, Event())
    trial._logits = ask
    return torch.cat(seen[: trial.steps_per_epoch]).tolist()


@pytest.mark.parametrize(
    "other",
    [
        IF | {"alpha": 9.0},
        IF | {"gamma": 0.0, "id_rate": 0.3, "lr": 1e-3, "weight_decay": 0.1},
        F_,
        ORIGINAL,
        ID,
    ],
    ids=["alpha", "others", "f", "original", "i"],
)
def test_trials_of_one_seed_and_fold_share_weights_batch_order_and_dropout_masks(other, member):
    one, two = member(IF, 3, 7), member(other, 3, 7)
    for name, value in two.head.named_parameters():
        if value.shape == one.head.get_parameter(name).shape:
            assert torch.equal(value, one.head.get_parameter(name)), name
    assert torch.equal(one.head.fusion.weight[:, :WIDTH], two.head.fusion.weight[:, :WIDTH])
    assert torch.equal(masks(one, 5, 0), masks(two, 5, 0))
    assert order_of(one, 2) == order_of(two, 2)


@pytest.mark.parametrize(("fold", "seed"), [(3, 8), (4, 7)], ids=["seed", "fold"])
def test_trials_of_another_seed_or_fold_share_none_of_them(fold, seed, member):
    one, two = member(IF, 3, 7), member(IF, fold, seed)
    assert not torch.equal(one.head.emotion.weight, two.head.emotion.weight)
    assert not torch.equal(masks(one, 5, 0), masks(two, 5, 0))
    assert one.supervised.all()
    few, other_few = (member(IF | {"id_rate": 0.3}, *place) for place in ((3, 7), (fold, seed)))
    assert not torch.equal(few.supervised, other_few.supervised)
    rows, other_rows = order_of(one, 2), order_of(two, 2)
    assert np.mean(np.array(rows) == np.array(other_rows)) < 0.1


def test_each_epoch_reads_other_rows_first_and_each_row_at_most_once(member):
    trial = member(IF, 3, 7)
    orders = [order_of(trial, epoch) for epoch in range(2)]
    for order in orders:
        assert len(set(order)) == len(order) == 16 * trial.steps_per_epoch
        assert set(order) <= set(trial.train_rows.tolist())
    assert orders[0] != orders[1]


# supervised identities


def test_supervised_identities_are_counted_round_half_up_and_at_least_two():
    for count in (9, 10, 18, 50, 70, 72):
        subjects = [f"P{i:03d}" for i in range(count)]
        for percent in range(1, 101):
            chosen = sum(supervised_identities(subjects, percent / 100, 0, 0))
            wanted = max(2, math.floor(Fraction(percent, 100) * count + Fraction(1, 2)))
            assert chosen == wanted, f"{percent}% of {count}"


def test_a_larger_share_of_supervised_identities_holds_the_smaller_one():
    subjects = [f"P{i:03d}" for i in range(72)]
    chosen = [set(np.flatnonzero(supervised_identities(subjects, r / 20, 1, 2))) for r in range(1, 21)]
    assert all(small <= large for small, large in itertools.pairwise(chosen))
    assert chosen[-1] == set(range(72))
    assert chosen[9] != set(np.flatnonzero(supervised_identities(subjects, 0.5, 2, 2)))
    assert chosen[9] != set(np.flatnonzero(supervised_identities(subjects, 0.5, 1, 3)))


def test_a_subjects_rank_does_not_depend_on_the_others():
    subjects = [f"P{i:03d}" for i in range(40)]
    half = {s for s, yes in zip(subjects, supervised_identities(subjects, 0.5, 0, 0), strict=True) if yes}
    shuffled = subjects[::-1]
    again = {s for s, yes in zip(shuffled, supervised_identities(shuffled, 0.5, 0, 0), strict=True) if yes}
    assert again == half


def test_every_image_trains_the_expression_loss_whoever_is_supervised(member):
    few, all_ = member(IF | {"id_rate": 0.1}), member(IF)
    assert np.array_equal(few.train_rows, all_.train_rows)
    assert (few.supervised.sum(), len(few.supervised)) == (2, 18)
    assert few.head.identity.weight.shape == all_.head.identity.weight.shape


# the test fold


@pytest.mark.parametrize("fold", range(10))
def test_no_picture_of_a_test_subject_is_trained_on_in_any_view(fold, face_set, member):
    views = 3
    number = {name: i for i, name in enumerate(face_set.classes)}
    labels = np.array([number[name] for name in face_set.label.tolist()])
    trial = member(IF, fold, examples=Examples(labels, face_set.subject, 6, views, face_set.split))
    folds = fold_of(face_set.subject.tolist())
    trained = {face_set.subject[row % 156] for row in trial.train_rows}
    tested = {face_set.subject[row] for row in trial.test_rows}
    assert tested == {subject for subject, its_fold in folds.items() if its_fold == fold}
    assert trained == set(folds) - tested
    assert len(trial.train_rows) == len(set(trial.train_rows)) == views * (156 - len(trial.test_rows))
    assert np.array_equal(trial.labels.numpy()[trial.train_rows], labels[trial.train_rows % 156])


def test_nothing_in_the_test_fold_touches_training(face_set, member):
    """Test rows that are not numbers, and other test labels, leave the trained state as it is."""
    labels = packed.examples(face_set, False).labels
    features = torch.from_numpy(generator("bank").standard_normal((156, 2 * WIDTH, 12, 12), dtype="float32"))
    sound = member(IF)
    changed, poisoned = labels.copy(), features.clone()
    changed[sound.test_rows] = (changed[sound.test_rows] + 1) % 6
    poisoned[sound.test_rows] = math.nan
    other = member(IF, examples=Examples(changed, face_set.subject, 6, 1, face_set.split))
    record = sound.train_epoch(features, features, 0, Event())
    other_record = other.train_epoch(poisoned, features, 0, Event())
    same(sound, other)
    assert replace(record, test_accuracy=0.0) == replace(other_record, test_accuracy=0.0)
