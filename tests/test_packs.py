import itertools
import math
from dataclasses import replace
from fractions import Fraction
from threading import Event

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from idennet_core import bank, checkpoint, metrics, packed
from idennet_core.config import HEAD_DEFAULTS, canonical
from idennet_core.datasets.folds import fold_of
from idennet_core.network import Head, PretrainedNetwork, Trunk, initialise, start_from, trunk_state
from idennet_core.streams import generator
from idennet_core.training import Examples, Member, learning_rate, single_threads, supervised_identities

CPU = torch.device("cpu")
DEPTH, WIDTH = 10, 48  # one layer a block: 24 + 12 maps, + 12
SMALL = {"depth": DEPTH, "epochs": 2, "batch_size": 16, "lr": 0.05, "augment": False}
IF, ID, F_, ORIGINAL = ({"variant": variant} for variant in ("if", "i", "f", "original"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def networks(face_set):
    """The state dicts of an emotion and an identity network whose running statistics have seen the faces."""
    states = []
    for task in ("emotion", "identity"):
        network = PretrainedNetwork(6, DEPTH)
        initialise(network, "test trunk", task)
        offsets = bank.centre_offsets(64)
        images = bank.crops(np.ascontiguousarray(face_set.faces[:64, 10:70, 10:70]), offsets)
        with torch.no_grad():
            network.train()(torch.from_numpy(images))
        states.append(network.state_dict())
    return states


def trunks_of(networks, count=2):
    trunks = [Trunk(DEPTH) for _ in range(count)]
    for trunk, state in zip(trunks, networks, strict=False):
        trunk.load_state_dict(trunk_state(state))
    return trunks


@pytest.fixture
def member(face_set, networks):
    """A function from settings, fold and seed to a new member."""

    def new(settings, fold=0, seed=0, examples=None):
        whole = canonical(SMALL | settings)
        if examples is None:
            examples = packed.examples(face_set, whole["augment"])
        return Member(whole, fold, seed, examples, WIDTH, networks[0], CPU)

    return new


@pytest.fixture
def train(face_set, networks):
    """A function that trains a pack: its members' test probabilities and their curves."""

    def run(
        members,
        threads=2,
        first_epoch=0,
        trunks=None,
        faces=face_set,
        on_progress=lambda _: None,
        on_epoch=lambda *_: None,
    ):
        curves = [[] for _ in members]

        def note(epoch, records):
            for place, record in records.items():
                curves[place].append(record)
            on_epoch(epoch, records)

        streams = 2 if members[0].settings["variant"] in ("f", "if") else 1
        tested, _ = packed.train(
            members,
            trunks or trunks_of(networks, streams),
            faces,
            first_epoch=first_epoch,
            device=CPU,
            threads=threads,
            on_progress=on_progress,
            on_epoch=note,
        )
        return tested, curves

    return run


def same(one, other):
    """Equal to the bit: weights, statistics and momenta; also where both are not numbers."""
    state, other_state = one.state(), other.state()
    assert state.keys() == other_state.keys()
    for name, value in state.items():
        assert torch.equal(value, other_state[name]), name


def outcome(member, tested, curve):
    return member.state(), tested, curve


def same_outcome(one, other):
    (member, tested, curve), (other_member, other_tested, other_curve) = one, other
    same(member, other_member)
    assert np.array_equal(tested, other_tested)
    assert curve == other_curve


MATES = [  # settings, fold, seed; folds 0 and 1 test 24 pictures, the others 12
    (IF, 0, 0),
    (IF | {"alpha": 3.0, "gamma": 0.5, "lr": 0.2}, 4, 0),
    (IF | {"id_rate": 0.4, "weight_decay": 0.01}, 0, 1),
    (F_ | {"dropout": 0.0}, 1, 0),
]


@pytest.fixture(scope="module")
def pack(face_set, networks):
    """Four unlike trials trained in one pack: each one's member, test probabilities and curve."""
    torch.set_num_threads(1)
    members = [
        Member(canonical(SMALL | s), fold, seed, packed.examples(face_set, False), WIDTH, networks[0], CPU)
        for s, fold, seed in MATES
    ]
    curves = [[] for _ in members]
    tested, _ = packed.train(
        members,
        trunks_of(networks),
        face_set,
        first_epoch=0,
        device=CPU,
        threads=2,
        on_progress=lambda _: None,
        on_epoch=lambda _, records: [curves[place].append(record) for place, record in records.items()],
    )
    return list(zip(members, tested, curves, strict=True))


# packs


@pytest.mark.parametrize("place", range(len(MATES)))
def test_a_trial_in_a_pack_equals_the_trial_alone(place, pack, member, train):
    alone = member(*MATES[place])
    tested, curves = train([alone], threads=1)
    same_outcome((alone, tested[0], curves[0]), pack[place])
    assert [record.epoch for record in curves[0]] == [0, 1]
    untrained = member(*MATES[place])
    assert not torch.equal(alone.head.emotion.weight, untrained.head.emotion.weight)


def test_a_pack_trains_to_the_same_bits_on_any_number_of_threads_and_in_any_order(pack, member, train):
    order = [2, 0, 3, 1]
    members = [member(*MATES[place]) for place in order]
    torch.set_num_threads(2)  # of the caller, which is none of the pack's business
    try:
        tested, curves = train(members, threads=3)
    finally:
        torch.set_num_threads(1)
    for found, place in zip(zip(members, tested, curves, strict=True), order, strict=True):
        same_outcome(found, pack[place])


def test_a_pack_of_one_stream_holds_the_same_guarantee(member, train):
    mates = [(ID, 0, 0), (ORIGINAL, 4, 0), (ID | {"gamma": 1.0}, 0, 0)]
    together = [member(*mate) for mate in mates]
    tested, curves = train(together, threads=3)
    for place, mate in enumerate(mates):
        alone = member(*mate)
        (tested_alone,), (curve,) = train([alone], threads=1)
        same_outcome((alone, tested_alone, curve), (together[place], tested[place], curves[place]))


class Killed(BaseException):
    pass


def test_a_pack_interrupted_after_an_epoch_and_resumed_in_other_packs_equals_the_uninterrupted(
    pack, member, train, tmp_path
):
    members = [member(*mate) for mate in MATES]
    past = [[] for _ in members]

    def save(epoch, records):
        for place, mate in enumerate(members):
            past[place].append(records[place])
            checkpoint.save(tmp_path / f"{place}.safetensors", mate.state(), {"epoch": str(epoch)})

    def kill(progress):
        if progress.epoch == 1 and progress.stage == "heads":
            raise Killed

    with pytest.raises(Killed):
        train(members, on_progress=kill, on_epoch=save)

    for places in ([3, 0, 2], [1]):
        resumed = [member(*MATES[place]) for place in places]
        for mate, place in zip(resumed, places, strict=True):
            state, metadata = checkpoint.load(tmp_path / f"{place}.safetensors")
            assert metadata == {"epoch": "0"}
            mate.load_state(state)
        tested, curves = train(resumed, first_epoch=1)
        for mate, place, probabilities, curve in zip(resumed, places, tested, curves, strict=True):
            same_outcome((mate, probabilities, past[place] + curve), pack[place])


def test_what_a_member_gives_as_its_state_survives_the_disk_to_the_bit(pack, tmp_path):
    state = pack[0][0].state()
    checkpoint.save(tmp_path / "member.safetensors", state, {})
    read, _ = checkpoint.load(tmp_path / "member.safetensors")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in state.items())


def test_one_members_nan_is_a_failure_with_a_reason_and_reaches_no_mate(pack, member, train):
    broken = member(IF | {"lr": 1e30}, 0, 0)
    members = [member(*MATES[0]), broken, *(member(*mate) for mate in MATES[1:])]
    tested, curves = train(members)
    assert broken.failure is not None
    assert "epoch 0" in broken.failure
    assert tested[1] is None
    assert curves[1] == []
    for found, wanted in zip([0, 2, 3, 4], pack, strict=True):
        assert members[found].failure is None
        same_outcome((members[found], tested[found], curves[found]), wanted)


def test_a_member_whose_test_probabilities_are_not_numbers_is_a_failure_too(member, train):
    """A training loss stays finite where running statistics overflow, and none follows the last step."""
    one_step = {"epochs": 1, "batch_size": 132}
    sound, broken = member(IF | one_step), member(IF | one_step | {"lr": 1e10})
    tested, curves = train([sound, broken])
    assert sound.failure is None
    assert np.isfinite(tested[0]).all()
    assert broken.failure is not None
    assert tested[1] is None
    assert curves[1] == []


def test_a_pack_of_folds_of_unequal_size_trains_each_for_its_own_number_of_steps(pack):
    sizes = [(member.train_size, len(member.test_rows), member.steps_per_epoch) for member, _, _ in pack]
    assert sizes == [
        (132, 24, 8),
        (144, 12, 9),
        (132, 24, 8),
        (132, 24, 8),
    ]  # 132 // 16: a partial batch dropped
    for member, tested, _ in pack:
        assert tested.shape == (len(member.test_rows), 6)
        np.testing.assert_allclose(tested.sum(1), 1, rtol=1e-5)
        before = 1  # of the pre-trained network
        assert member.head.norm.num_batches_tracked - before == 2 * member.steps_per_epoch


def test_a_batch_size_above_the_training_pictures_is_refused(member):
    with pytest.raises(ValueError, match="batch_size must not exceed the training pictures, got 133 for 132"):
        member(IF | {"batch_size": 133})


# trunks and banks


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


def crops_by_hand(faces, offsets):
    cut = np.stack([face[r : r + 48, c : c + 48] for face, (r, c) in zip(faces, offsets, strict=True)])
    cut = cut.astype(np.float64)
    cut = (cut - cut.mean((1, 2), keepdims=True)) / cut.std((1, 2), keepdims=True)
    return torch.from_numpy(cut[:, None])


def maps_by_hand(face_set, networks, offsets):
    """The unpooled maps [N, 2 * D, 24, 24] of the faces cropped at `offsets`."""
    images = crops_by_hand(face_set.faces[:, 10:70, 10:70], offsets).float()
    with torch.no_grad():
        return torch.cat([trunk.eval()(images) for trunk in trunks_of(networks)], 1)


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


# against a plain training loop


@pytest.fixture(scope="module")
def maps(face_set, networks):
    """What the trunks make of each epoch's crops and of the centre crops, unpooled, for the plain loop."""
    offsets = [bank.random_offsets(156, face_set.data_id, 0, epoch) for epoch in range(2)]
    return [maps_by_hand(face_set, networks, chosen) for chosen in [*offsets, np.full((156, 2), 6)]]


def plain_loop(settings, fold, seed, face_set, networks, maps):
    """The usual way, in double precision: fuse, pool, step. Gives the head and its test probabilities."""
    folds = {subject: i % 10 for i, subject in enumerate(sorted(set(face_set.subject.tolist())))}
    test = np.array([folds[subject] == fold for subject in face_set.subject.tolist()])
    train = np.flatnonzero(~test)
    people = sorted(set(face_set.subject[train].tolist()))
    labels = torch.tensor([face_set.classes.index(label) for label in face_set.label.tolist()])
    identity = torch.tensor([people.index(s) if s in people else -1 for s in face_set.subject.tolist()])
    rate = settings.get("id_rate")
    head = Head(WIDTH, 2, 6, len(people) if rate else 0, DEPTH)
    initialise(head, "weights", seed, fold)
    start_from(head, networks[0])
    head.double().train()
    if rate:
        columns = torch.tensor(supervised_identities(people, rate, seed, fold)).nonzero()[:, 0]
    optimiser = torch.optim.SGD(
        head.parameters(), lr=settings["lr"], momentum=0.9, weight_decay=settings["weight_decay"]
    )
    steps = len(train) // 16

    def forward(unpooled, step=None):
        x = F.avg_pool2d(head.fusion(unpooled.double()), 2)
        new = head.block.layers[0](x)
        if step is not None and settings["dropout"]:
            raw = generator("dropout", seed, fold, step, 0).bit_generator.random_raw(len(x) * 12 * 144 // 4)
            words = np.stack([raw >> (16 * quarter) & 0xFFFF for quarter in range(4)], 1)  # low bits first
            keep = torch.from_numpy(words.reshape(len(x), 12, 12, 12) >= settings["dropout"] * 65536)
            new = new * keep / (1 - settings["dropout"])
        return torch.relu(head.norm(torch.cat([x, new], 1))).mean((2, 3))

    for step in range(2 * steps):
        epoch, index = divmod(step, steps)
        order = generator("order", seed, fold, epoch).permutation(train)
        rate_now = settings["lr"] * (1 if step < steps else 0.1 if step < 1.5 * steps else 0.01)
        optimiser.param_groups[0]["lr"] = rate_now
        rows = order[16 * index : 16 * index + 16]
        features = forward(maps[epoch][rows], step)
        loss = F.cross_entropy(head.emotion(features), labels[rows])
        if rate:
            p = torch.softmax(head.identity(features)[:, columns], 1)
            hits = (identity[rows][:, None] == columns).nonzero()
            if len(hits):
                p = p[hits[:, 0], hits[:, 1]]
                loss = loss + (settings["alpha"] * (1 - p) ** settings["gamma"] * -torch.log(p)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    head.eval()
    with torch.no_grad():
        return head, torch.softmax(head.emotion(forward(maps[2][test])), 1).numpy()


@pytest.mark.parametrize("place", range(len(MATES)))
def test_a_member_trains_as_a_plain_loop_does_that_fuses_before_it_pools(place, pack, maps, face_set, networks, member):
    """Tightly in double precision, where only a real difference shows; loosely as packs train, in single."""
    settings, fold, seed = MATES[place]
    trial = member(settings, fold, seed)
    trial.head.double()
    banks = [F.avg_pool2d(unpooled.double(), 2) for unpooled in maps]
    for epoch in range(2):
        record = trial.train_epoch(banks[epoch], banks[2], epoch, Event())
    head, tested = plain_loop(trial.settings, fold, seed, face_set, networks, maps)
    for name, value in head.state_dict().items():
        torch.testing.assert_close(trial.head.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name)
    np.testing.assert_allclose(trial.probabilities(banks[2]), tested, rtol=1e-7, atol=1e-9)
    assert record.lr == pytest.approx(trial.settings["lr"] * 0.01)

    _, single, curve = pack[place]
    np.testing.assert_allclose(single, tested, atol=1e-3)
    assert curve[1].loss == pytest.approx(record.loss, abs=1e-3)


# the curve


def test_a_curve_row_holds_means_over_the_epochs_samples_and_their_sum(pack, face_set):
    for trial, tested, curve in pack:
        labels = np.array([face_set.classes.index(label) for label in face_set.label.tolist()])[trial.test_rows]
        assert curve[-1].test_accuracy == pytest.approx(metrics.accuracy(tested, labels))
        for record in curve:
            assert record.loss == pytest.approx(record.emotion_loss + record.identity_loss, rel=1e-5)
            assert (record.identity_loss > 0) == (trial.settings["variant"] == "if")
            seen = 16 * trial.steps_per_epoch
            assert (record.train_accuracy * seen) == pytest.approx(round(record.train_accuracy * seen), abs=1e-6)
    first = pack[0][2][0]
    assert 1.0 < first.emotion_loss < 3.0  # ln 6 = 1.79 for a guess


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
    noise = torch.randn(1, 1, 12, 12).expand(len(trial.labels), trial_width(trial), 12, 12)
    ask, seen = trial._logits, []
    trial._logits = lambda bank, rows, dropout=None: seen.append(rows) or ask(bank, rows, dropout)
    trial.train_epoch(noise, noise, epoch, Event())
    trial._logits = ask
    return torch.cat(seen[: trial.steps_per_epoch]).tolist()


def trial_width(trial):
    return trial.head.fusion.weight.shape[1]


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
    record, other_record = sound.train_epoch(features, features, 0, Event()), None
    other_record = other.train_epoch(poisoned, features, 0, Event())
    same(sound, other)
    assert replace(record, test_accuracy=0.0) == replace(other_record, test_accuracy=0.0)


# measures


def test_accuracy_counts_frames_and_sequence_accuracy_the_argmax_of_the_mean_probability():
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.0, 1.0], [0.3, 0.7], [0.9, 0.1]])
    labels = np.array([1, 1, 1, 0, 0])
    sequences = np.array(["b", "b", "b", "a", "a"])
    # frames: only 3 and 5 are right; means: b (0.4, 0.6) right, a (0.6, 0.4) right
    assert metrics.accuracy(probabilities, labels) == pytest.approx(2 / 5)
    assert metrics.sequence_accuracy(probabilities, labels, sequences) == 1.0
    assert metrics.sequence_accuracy(probabilities, np.array([0, 0, 0, 0, 0]), sequences) == 0.5


def test_the_defaults_are_the_papers():
    paper = {
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "batch_size": 128,
        "dropout": 0.5,
        "alpha": 0.1,
    }
    assert {name: HEAD_DEFAULTS[name] for name in paper} == paper
    assert HEAD_DEFAULTS["gamma"] == 15
