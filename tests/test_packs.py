"""Packs: each trial comes to the bits that it comes to alone, and those are what a plain training loop gives."""

from threading import Event

import numpy as np
import pytest
import torch
from small_packs import DEPTH, ID, IF, MATES, ORIGINAL, WIDTH, maps_by_hand, same
from torch.nn import functional as F

from idennet_core import bank, checkpoint, metrics
from idennet_core.network import Head, initialise, start_from
from idennet_core.packed import Progress, Seconds
from idennet_core.streams import generator
from idennet_core.training import supervised_identities

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pack(one_thread, member, train):
    """Four unlike trials trained in one pack: each one's member, test probabilities and curve."""
    members = [member(*mate) for mate in MATES]
    return list(zip(members, *train(members), strict=True))


def same_outcome(one, other):
    (member, tested, curve), (other_member, other_tested, other_curve) = one, other
    same(member, other_member)
    assert np.array_equal(tested, other_tested)
    assert curve == other_curve


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
    assert sizes == [(132, 24, 8), (144, 12, 9), (132, 24, 8), (132, 24, 8)]  # 132 // 16: a partial batch dropped
    for member, tested, _ in pack:
        assert tested.shape == (len(member.test_rows), 6)
        np.testing.assert_allclose(tested.sum(1), 1, rtol=1e-5)
        before = 1  # of the pre-trained network
        assert member.head.norm.num_batches_tracked - before == 2 * member.steps_per_epoch


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


@pytest.mark.parametrize("member_steps", [1, 7])
def test_a_packs_own_clock_knows_what_its_banks_and_its_heads_take_whatever_one_costs_beside_the_other(member_steps):
    """Four epochs, a bank of 5 s and ten steps of 2 s each, after a first bank of centre crops of 5 s."""
    epochs, banks, heads = 4, 5 + 4 * 5, 4 * 10 * 2
    seconds, steps = Seconds(trunks=5.0), 0
    for epoch in range(epochs):
        seconds.trunks, seconds.bank = seconds.trunks + 5.0, 5.0
        for step in range(1, 11):
            done = steps + step * member_steps
            whole = seconds.whole(2.0 * step, done, epochs * 10 * member_steps - done, epochs - epoch - 1, "heads")
            assert whole == pytest.approx((banks, heads))
        steps, seconds.heads = steps + 10 * member_steps, seconds.heads + 20.0
    assert Seconds(25.0, 60.0, 5.0).whole(3.0, 30, 10, 1, "bank") == pytest.approx((30.0, 80.0))
    assert Seconds(25.0, 60.0, 5.0).whole(9.0, 30, 10, 1, "bank") == pytest.approx((34.0, 80.0)), "slower than the last"
    assert Seconds(trunks=5.0).whole(3.0, 0, 40, 4, "bank") == (0, 0), "nothing is known before a step is done"
    assert Progress(10, 40, 1, "heads", 5.0).share == 0
    assert Progress(10, 40, 1, "heads", 26.25, banks, heads).share == 0.25
