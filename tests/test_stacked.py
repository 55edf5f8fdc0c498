"""Members stacked into one set of tensors, and the kernels: both train as the plain module does alone."""

import copy
import math
import weakref
from threading import Event

import numpy as np
import pytest
import torch
from scipy import stats

from idennet_core import checkpoint, losses, network, packed, stacked
from idennet_core.config import canonical
from idennet_core.network import PretrainedNetwork, Trunk, initialise
from idennet_core.streams import generator
from idennet_core.training import Examples, Member, learning_rate
from orchestrator import stacks as stacks_of
from orchestrator.store import Store
from orchestrator.workload import Context

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SUBJECTS = np.array([f"P{place // 6:02}" for place in range(132)])  # 22 people: folds 0 and 1 have three, others two
LABELS = np.arange(len(SUBJECTS)) % 6
EXAMPLES = Examples(LABELS, SUBJECTS, 6, 1, np.full(len(SUBJECTS), ""))
EMOTION = PretrainedNetwork(6, 16)
initialise(EMOTION, "stacked")
WIDTH = EMOTION.trunk.out_width
BATCH = 10  # folds 0 and 1: 11 steps an epoch; the others: 12
SPECS = [  # settings, fold, seed
    ({}, 0, 0),
    ({"alpha": 3.0, "gamma": 0.5, "lr": 0.2, "dropout": 0.3}, 4, 0),
    ({"id_rate": 0.4, "weight_decay": 0.01, "momentum": 0.5}, 0, 1),
    ({"variant": "f", "dropout": 0.0}, 1, 0),
    ({"gamma": 0.0}, 3, 0),
    ({"alpha": 0.5, "id_rate": 0.2, "lr": 0.02}, 1, 2),
    ({"variant": "f"}, 4, 0),
]


def member(place, dtype=torch.float64, **settings):
    chosen, fold, seed = SPECS[place % len(SPECS)]
    whole = canonical({"depth": 16, "epochs": 2, "batch_size": BATCH, "lr": 0.05} | chosen | settings)
    trial = Member(whole, fold, seed + place // len(SPECS), EXAMPLES, WIDTH, EMOTION.state_dict(), CPU)
    trial.head.to(dtype)
    return trial


def bank(epoch, dtype=torch.float64):
    drawn = generator("stacked bank", epoch).standard_normal((len(LABELS), 2 * WIDTH, 12, 12))
    return torch.from_numpy(drawn).to(dtype)


def pixels(features):
    return features.flatten(2).transpose(1, 2).contiguous()


def plain(trial, epochs=(0, 1)):
    """The member's own module with autograd and torch's SGD; what it ends with, and its losses."""
    head, settings = copy.deepcopy(trial.head).train(), trial.settings
    optimiser = torch.optim.SGD(
        head.parameters(), lr=1.0, momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )
    found = []
    for epoch in epochs:
        order = generator("order", *trial.stream, epoch).permutation(trial.train_rows)
        for index in range(len(order) // BATCH):
            step = epoch * (len(order) // BATCH) + index
            rows = torch.from_numpy(order[index * BATCH : (index + 1) * BATCH])
            dropout = network.Dropout(settings["dropout"], "dropout", *trial.stream)
            dropout.step = step
            emotion, identity = head(bank(epoch, next(head.parameters()).dtype)[rows], dropout)
            loss = losses.emotion_loss(emotion, trial.labels[rows])
            if identity is not None:
                chosen = trial.identities[rows], trial.supervised, settings["alpha"], settings["gamma"]
                loss = loss + losses.identity_loss(identity, *chosen)
            optimiser.param_groups[0]["lr"] = learning_rate(step, 2 * (len(order) // BATCH), settings["lr"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found.append(loss.item())
    return head, np.reshape(found, (len(epochs), -1)).mean(1)


def stacks(size, dtype=torch.float64):
    return stacked.Stacked(size, CPU, dtype)


def train(heads, members, epoch, dtype=torch.float64):
    features = pixels(bank(epoch, dtype))
    found = {id(m): record for m, record in heads.train_epoch(members, features, features, epoch, Event())}
    return [found[id(m)] for m in members]


def assert_close(trial, head, tolerance):
    for name, value in head.state_dict().items():
        found = trial.head.state_dict()[name]
        assert (found - value).abs().max() <= tolerance * max(value.abs().max().item(), 1.0), name


@pytest.fixture(scope="module")
def alone():
    """What a plain module trained alone comes to, for each kind of member, in double precision."""
    return [plain(member(place)) for place in range(len(SPECS))]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_stacked_members_train_as_plain_modules_do_alone(count, alone):
    members, heads = [member(place) for place in range(count)], stacks(4)
    records = [train(heads, members, epoch) for epoch in range(2)]  # 22 or 24 steps
    for place, trial in enumerate(members):
        head, means = alone[place]
        assert_close(trial, head, 1e-9)
        assert [record[place].loss for record in records] == pytest.approx(means, abs=1e-9)


def test_forty_members_of_many_seeds_train_as_plain_modules_do_alone():
    members, heads = [member(place) for place in range(40)], stacks(16)
    train(heads, members, 0)
    for place in (0, 13, 39):
        assert_close(members[place], plain(member(place), [0])[0], 1e-9)


@pytest.mark.parametrize("place", range(len(SPECS)))
def test_the_kernels_train_as_plain_modules_do_alone(place, alone):
    trial = member(place)
    for epoch in range(2):
        trial.train_epoch(bank(epoch), bank(epoch), epoch, Event())
    assert_close(trial, alone[place][0], 1e-9)


@pytest.mark.parametrize("way", ["stacked", "kernels"])
def test_in_single_precision_both_ways_stay_near_double(way, alone):
    members, heads = [member(place, torch.float32) for place in range(len(SPECS))], stacks(4, torch.float32)
    for epoch in range(2):
        if way == "stacked":
            train(heads, members, epoch, torch.float32)
        else:
            for trial in members:
                trial.train_epoch(bank(epoch, torch.float32), bank(epoch, torch.float32), epoch, Event())
    for trial, (head, _) in zip(members, alone, strict=True):
        assert_close(trial, head, 5e-3)  # 24 steps of rounding, at rates up to 0.2


def test_members_that_leave_change_nothing_for_those_that_stay(alone):
    members, heads = [member(place) for place in range(len(SPECS))], stacks(4)
    train(heads, members, 0)
    train(heads, members[1::2], 1)
    for place in (1, 3, 5):
        assert_close(members[place], alone[place][0], 1e-9)
    assert_close(members[0], plain(member(0), [0])[0], 1e-9)  # it kept what it had when it left


def test_members_go_on_from_their_state_in_another_stack_or_on_the_kernels(alone):
    first = [member(place) for place in range(len(SPECS))]
    train(stacks(4), first, 0)
    again = [member(place) for place in range(len(SPECS))]
    for trial, before in zip(again, first, strict=True):
        trial.load_state({name: value.clone() for name, value in before.state().items()})
    train(stacks(2), again[:5], 1)
    for trial in again[5:]:
        trial.train_epoch(bank(1), bank(1), 1, Event())
    for trial, (head, _) in zip(again, alone, strict=True):
        assert_close(trial, head, 1e-9)


def test_the_state_of_stacked_members_survives_the_disk_to_the_bit(tmp_path):
    members, heads = [member(place) for place in range(3)], stacks(3)
    train(heads, members, 0)
    state = {f"{place}/{name}": value for place, m in enumerate(members) for name, value in m.state().items()}
    checkpoint.save(tmp_path / "pack.safetensors", state, {})
    read, _ = checkpoint.load(tmp_path / "pack.safetensors")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], value) for name, value in state.items())


@pytest.mark.parametrize("lr", [1e30, 1e300])
def test_a_member_whose_loss_is_not_a_number_fails_alone(lr, alone):
    members, heads = [member(place) for place in (0, 1, 2, 3)], stacks(4)
    members.insert(1, member(0, lr=lr))
    train(heads, members, 0)
    assert "epoch 0, step" in members[1].failure
    train(heads, members, 1)  # even if it stays
    for trial, place in zip([members[0], *members[2:]], (0, 1, 2, 3), strict=True):
        assert trial.failure is None
        assert_close(trial, alone[place][0], 1e-9)


def test_a_member_that_starts_with_what_is_not_a_number_reaches_nobody(alone):
    members, heads = [member(place) for place in range(3)], stacks(3)
    with torch.no_grad():
        members[1].head.fusion.weight[0, 0] = math.nan
        members[1].head.block.layers[1].conv2.weight[3] = math.inf
    for epoch in range(2):
        train(heads, members, epoch)
    assert members[1].failure is not None
    for place in (0, 2):
        assert_close(members[place], alone[place][0], 1e-9)


def test_stacked_test_probabilities_are_those_of_the_members_own_modules():
    members, heads = [member(place) for place in range(len(SPECS))], stacks(4)
    train(heads, members, 0)
    found = heads.probabilities(members, pixels(bank(1)))
    for trial, probabilities in zip(members, found, strict=True):
        with torch.no_grad():
            logits, _ = trial.head.eval()(bank(1)[trial.test_rows])
        np.testing.assert_allclose(probabilities, torch.softmax(logits, 1), atol=1e-6)


def test_records_of_stacked_members_are_those_of_the_kernels():
    members, others = ([member(place) for place in range(4)] for _ in range(2))
    records = train(stacks(4), members, 0)
    for trial, record in zip(others, records, strict=True):
        wanted = trial.train_epoch(bank(0), bank(0), 0, Event())
        assert vars(record) == pytest.approx(vars(wanted), rel=1e-9)


def test_a_pack_of_stacked_members_trains_as_the_pack_on_the_kernels(face_set):
    settings = canonical({"depth": 10, "epochs": 2, "batch_size": 16, "augment": False})
    start, examples = PretrainedNetwork(6, 10), packed.examples(face_set, False)
    initialise(start, "stacked pack")
    found = []
    for stack in (None, 2):
        trunks = [Trunk(10), Trunk(10)]
        for number, trunk in enumerate(trunks):
            initialise(trunk, "stacked trunk", number)
        members = [Member(settings, fold, 0, examples, 48, start.state_dict(), CPU) for fold in (0, 1, 4)]
        told = []
        tested, _ = packed.train(
            members, trunks, face_set, first_epoch=0, device=CPU, threads=2, stack=stack,
            on_progress=told.append, on_epoch=lambda *_: None,
        )  # fmt: skip
        assert told[-1].done == told[-1].total
        found.append(tested)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("stack", [None, 2])
def test_a_member_that_fails_gives_the_memory_of_its_head_back(stack, face_set):
    settings = canonical({"depth": 10, "epochs": 2, "batch_size": 16, "augment": False})
    start, examples, trunks = PretrainedNetwork(6, 10), packed.examples(face_set, False), [Trunk(10), Trunk(10)]
    for number, network_ in enumerate((start, *trunks)):
        initialise(network_, "gone", number)
    members = [
        Member(settings | {"lr": lr}, 0, seed, examples, 48, start.state_dict(), CPU)
        for seed, lr in enumerate((0.05, 1e30, 0.05))
    ]
    heads, alive = [weakref.ref(trial.head) for trial in members], []
    packed.train(
        members, trunks, face_set, first_epoch=0, device=CPU, threads=2, stack=stack,
        on_progress=lambda _: None, on_epoch=lambda *_: alive.append([head() is not None for head in heads]),
    )  # fmt: skip
    assert alive == [[True, False, True]] * 2
    members[1].leave()  # as it may at a rung before its failure, when it goes on in a search
    assert members[1].failure is not None


@pytest.mark.parametrize("ended", ["failed", "left"])
@pytest.mark.parametrize("stack", [None, 2])
def test_a_pack_of_which_nobody_is_left_ends_without_probabilities(stack, ended, face_set):
    settings = canonical({"depth": 10, "epochs": 2, "batch_size": 16, "augment": False, "variant": "original"})
    start, examples, trunk = PretrainedNetwork(6, 10), packed.examples(face_set, False), Trunk(10)
    for number, network_ in enumerate((start, trunk)):
        initialise(network_, "nobody", number)
    settings["lr"] = 1e30 if ended == "failed" else 0.05
    members = [Member(settings, 0, seed, examples, 48, start.state_dict(), CPU) for seed in range(3)]
    tested, _ = packed.train(
        members, [trunk], face_set, first_epoch=0, device=CPU, threads=2, stack=stack,
        on_progress=lambda _: None, on_epoch=lambda *_: [trial.leave() for trial in members],
    )  # fmt: skip
    assert tested == [None] * 3
    assert all((trial.failure is not None) == (ended == "failed") for trial in members)


def test_maps_in_bf16_train_beside_parameters_in_single_precision(alone):
    trial, heads = member(0, torch.float32), stacks(1, torch.bfloat16)
    (record,) = train(heads, [trial], 0, torch.bfloat16)
    assert record.loss == pytest.approx(alone[0][1][0], rel=0.05)
    assert {value.dtype for value in trial.head.parameters()} == {torch.float32}


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.999999])
def test_a_stacks_masks_are_those_of_its_members_dropout(rate):
    members = [member(0, dropout=rate), member(2), member(4, dropout=rate)]
    stack = stacked.Stack(members)
    stack.schedule(1)
    stack.at.fill_(3)
    masks = stack.masks(3, torch.float64)
    for place, trial in enumerate(stack.members):
        trial.dropout.step = trial.steps_per_epoch + 3
        for layer in range(2):
            wanted = trial.dropout(torch.ones(BATCH, 12, 12, 12, dtype=torch.float64), layer)
            assert torch.equal(masks[layer][place], wanted.transpose(0, 1).flatten(1))


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(60, 16, [15, 15, 15, 15]), (7, 4, [3, 4]), (1, 16, [1]), (0, 16, [])]
)
def test_a_pack_is_cut_into_stacks_of_even_sizes(count, size, sizes):
    assert [len(part) for part in stacked.parts(list(range(count)), size)] == sizes


def test_the_size_of_stacks_is_measured_once_and_ends_where_memory_does(tmp_path, monkeypatch):
    context = Context(Store(tmp_path).open(), "gpu", 1, lambda event: None)
    members, measured = [member(place, torch.float32) for place in (0, 1, 4, 0, 1, 4, 0, 1)], []
    before, advance = copy.deepcopy([m.state() for m in members]), stacked.Stack.advance

    def within_memory(stack, features, count):
        measured.append(count)
        if count > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        advance(stack, features, count)

    monkeypatch.setattr(stacked.Stack, "advance", within_memory)
    assert stacks_of.chosen(context, members) in (1, 2)
    assert set(measured) == {1, 2, 4}
    assert stacks_of.size(context.store, members[0].settings) == stacks_of.chosen(context, members)
    assert measured.count(4) == 1
    for was, trial in zip(before, members, strict=True):
        assert all(torch.equal(value, trial.state()[name]) for name, value in was.items()), "nobody was trained"


def test_the_size_of_stacks_is_measured_on_those_that_train(tmp_path):
    context = Context(Store(tmp_path).open(), "gpu", 1, lambda event: None)
    members = [member(place, torch.float32) for place in (0, 1, 4)]
    members[0].leave()
    assert stacks_of.chosen(context, members) in (1, 2)
    gone = [member(3, variant="original")]  # another kind of head, of which nobody is left to measure
    for trial in gone:
        trial.leave()
    assert stacks_of.chosen(context, gone) == stacks_of.UNMEASURED


@pytest.mark.slow
def test_accuracies_over_folds_do_not_tell_the_kernels_or_the_stack_from_plain_modules():
    """Twenty trials on pictures that can be learned in part, in single precision: paired differences around zero."""
    drawn = generator("learnable")
    prototypes = drawn.standard_normal((6, 2 * WIDTH, 1, 1))
    noise = [drawn.standard_normal((len(LABELS), 2 * WIDTH, 12, 12)) for _ in range(3)]
    banks = [torch.from_numpy(0.2 * prototypes[LABELS] + part).float() for part in noise]

    def trials():
        settings = canonical({"depth": 16, "epochs": 2, "batch_size": BATCH, "lr": 0.05})
        places = [(fold, seed) for fold in range(10) for seed in range(2)]
        return [Member(settings, *place, EXAMPLES, WIDTH, EMOTION.state_dict(), CPU) for place in places]

    def accuracy(trial, probabilities):
        return (probabilities.argmax(1) == LABELS[trial.test_rows]).mean()

    plain_ones, kernels, heads = [], [], stacks(20, torch.float32)
    for trial in trials():
        head, settings = trial.head.train(), trial.settings
        optimiser = torch.optim.SGD(head.parameters(), lr=1.0, momentum=0.9, weight_decay=settings["weight_decay"])
        for step in range(2 * trial.steps_per_epoch):
            epoch, index = divmod(step, trial.steps_per_epoch)
            rows = torch.from_numpy(trial.order(epoch)[index * BATCH : (index + 1) * BATCH])
            trial.dropout.step = step
            emotion, identity = head(banks[epoch][rows], trial.dropout)
            chosen = trial.identities[rows], trial.supervised, settings["alpha"], settings["gamma"]
            loss = losses.emotion_loss(emotion, trial.labels[rows]) + losses.identity_loss(identity, *chosen)
            optimiser.param_groups[0]["lr"] = trial.rate(step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            plain_ones.append(accuracy(trial, head.eval()(banks[2][trial.test_rows])[0].numpy()))
    for trial in trials():
        for epoch in range(2):
            trial.train_epoch(banks[epoch], banks[2], epoch, Event())
        kernels.append(accuracy(trial, trial.probabilities(banks[2])))
    stack_members = trials()
    for epoch in range(2):
        list(heads.train_epoch(stack_members, pixels(banks[epoch]), pixels(banks[2]), epoch, Event()))
    found = heads.probabilities(stack_members, pixels(banks[2]))
    stacked_ones = [accuracy(trial, probabilities) for trial, probabilities in zip(stack_members, found, strict=True)]
    assert 1.5 / 6 < np.mean(plain_ones) < 0.95  # neither chance nor certainty
    print("mean accuracies:", *(np.mean(ones) for ones in (plain_ones, kernels, stacked_ones)))
    for others in (kernels, stacked_ones):
        differences = np.subtract(others, plain_ones)
        assert abs(differences.mean()) < 0.01
        spread = differences.std(ddof=1)
        assert spread == 0 or stats.ttest_1samp(differences, 0).pvalue > 0.05
