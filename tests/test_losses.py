import math

import pytest
import torch
from torch.nn import functional as F

from idennet_core.losses import emotion_loss, identity_loss, identity_losses
from idennet_core.streams import generator

pytestmark = pytest.mark.usefixtures("one_thread")
GAMMAS = [0.0, 0.5, 1.0, 2.0, 15.0]
EVERYONE = torch.ones(7, dtype=torch.bool)
SOME = torch.tensor([True, False, True, True, False, False, True])


def logits_of(*names, batch=12, identities=7):
    draws = torch.from_numpy(generator("logits", *names).standard_normal((batch, identities)))
    return draws.requires_grad_()


def identities_of(*names, batch=12, identities=7):
    return torch.from_numpy(generator("identities", *names).integers(0, identities, batch))


def naive(logits, identities, supervised, alpha, gamma):
    """Paper Eq. 4 sample by sample, with a softmax over the supervised columns cut out."""
    columns = supervised.nonzero()[:, 0].tolist()
    losses = []
    for row, identity in zip(logits, identities.tolist(), strict=True):
        if identity in columns:
            p = torch.softmax(row[columns], 0)[columns.index(identity)]
            losses.append(-alpha * (1 - p) ** gamma * torch.log(p))
    return torch.stack(losses).mean()


def value_and_gradient(loss, logits):
    value = loss(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("supervised", [EVERYONE, SOME], ids=["everyone", "some"])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_identity_loss_and_its_gradient_are_those_of_the_formula(gamma, supervised):
    logits, identities = logits_of(gamma), identities_of(gamma)
    value, slope = value_and_gradient(lambda x: identity_loss(x, identities, supervised, 0.3, gamma), logits)
    wanted, wanted_slope = value_and_gradient(lambda x: naive(x, identities, supervised, 0.3, gamma), logits)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, wanted_slope, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_gradient_of_the_identity_loss_is_its_slope(gamma):
    identities = identities_of("slope")
    assert torch.autograd.gradcheck(
        lambda x: identity_loss(x, identities, SOME, 0.7, gamma), logits_of("slope"), rtol=1e-6, atol=1e-9
    )


def test_with_gamma_0_and_alpha_1_the_identity_loss_is_cross_entropy_over_the_supervised_classes():
    logits, identities = logits_of("plain"), identities_of("plain")
    rows, columns = SOME[identities], SOME.nonzero()[:, 0]
    number = {identity: place for place, identity in enumerate(columns.tolist())}
    targets = torch.tensor([number[identity] for identity in identities[rows].tolist()])
    wanted = value_and_gradient(lambda x: F.cross_entropy(x[rows][:, columns], targets), logits)
    found = value_and_gradient(lambda x: identity_loss(x, identities, SOME, 1.0, 0.0), logits)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)


def test_unsupervised_identities_are_neither_in_the_softmax_nor_in_the_mean():
    logits, identities = logits_of("mask").detach(), identities_of("mask")
    rows = SOME[identities]
    assert 0 < rows.sum() < len(rows)
    loss = identity_loss(logits, identities, SOME, 1.0, 2.0)

    shouting = logits.clone()
    shouting[:, ~SOME] = 1e6  # columns of the unsupervised
    shouting[~rows] = -3e5  # rows of the unsupervised
    assert identity_loss(shouting, identities, SOME, 1.0, 2.0) == loss
    assert identity_loss(logits[rows], identities[rows], SOME, 1.0, 2.0) == loss

    slope = torch.autograd.grad(identity_loss(logits.requires_grad_(), identities, SOME, 1.0, 2.0), logits)[0]
    assert torch.equal(slope[~rows], torch.zeros_like(slope[~rows]))
    assert torch.equal(slope[:, ~SOME], torch.zeros_like(slope[:, ~SOME]))
    assert (slope[rows][:, SOME] != 0).all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_batch_without_a_supervised_sample_has_loss_0_and_gradient_0(gamma):
    logits = logits_of("nobody")
    identities = torch.full((12,), 4)  # not in SOME
    value, slope = value_and_gradient(lambda x: identity_loss(x, identities, SOME, 0.1, gamma), logits)
    assert value == 0
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 15.0])
def test_at_p_1_value_and_gradient_are_0(gamma, dtype):
    logits = torch.full((3, 7), -2000.0, dtype=dtype)
    identities = torch.tensor([0, 2, 3])
    logits[torch.arange(3), identities] = 2000.0
    logits.requires_grad_()
    value, slope = value_and_gradient(lambda x: identity_loss(x, identities, SOME, 1.0, gamma), logits)
    assert value == 0
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 15.0])
def test_from_p_0_to_p_1_the_value_is_right_in_single_precision_and_the_gradient_finite(gamma):
    for gap in [*range(-200, 201, 3), 16.6, 17.3, 88.0, 103.9]:
        logits = torch.tensor([[float(gap), 0.0, 0.0]], requires_grad=True)
        loss = identity_loss(logits, torch.tensor([0]), torch.tensor([True, False, True]), 1.0, gamma)
        minus_log_p = math.log1p(math.exp(-abs(gap))) + max(-gap, 0)
        rest = 1 / (1 + math.exp(gap))
        assert loss.item() == pytest.approx(rest**gamma * minus_log_p, rel=1e-4, abs=1e-6)
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_the_strength_of_the_identity_loss_does_not_shrink_with_the_share_of_supervised_identities():
    logits, identities = torch.zeros(40, 20), torch.arange(40) % 20
    for count in (2, 5, 20):  # each supervised sample: p = 1 / count
        supervised = torch.arange(20) < count
        value = identity_loss(logits, identities, supervised, 0.1, 1.0)
        assert value.item() == pytest.approx(0.1 * (1 - 1 / count) * math.log(count), rel=1e-5)


def test_the_identity_loss_is_proportional_to_alpha():
    logits, identities = logits_of("alpha"), identities_of("alpha")
    one, three = (identity_loss(logits, identities, SOME, alpha, 2.0) for alpha in (1.0, 3.0))
    torch.testing.assert_close(three, 3 * one, rtol=1e-14, atol=0)


def test_the_emotion_loss_is_the_mean_of_minus_log_p():
    logits, labels = logits_of("emotion", identities=6), identities_of("emotion", identities=6)
    p = torch.softmax(logits.detach(), 1)
    wanted = -sum(math.log(p[i, label]) for i, label in enumerate(labels.tolist())) / len(labels)
    assert emotion_loss(logits, labels).item() == pytest.approx(wanted, rel=1e-12)


def test_losses_of_several_members_are_those_of_each():
    torch.manual_seed(0)
    logits = torch.randn(3, 8, 5, dtype=torch.float64, requires_grad=True)
    identities = torch.randint(0, 5, (3, 8))
    supervised = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    alpha, gamma = torch.tensor([0.1, 2.0, 1.0]).double(), torch.tensor([15.0, 0.0, 1.0]).double()
    together = identity_losses(logits, identities, supervised, alpha, gamma)
    (slope,) = torch.autograd.grad(together.sum(), logits)
    for place in range(3):
        own = logits[place].detach().requires_grad_()
        loss = identity_loss(own, identities[place], supervised[place], alpha[place].item(), gamma[place].item())
        assert together[place].item() == pytest.approx(loss.item(), abs=1e-12)
        assert torch.allclose(slope[place], torch.autograd.grad(loss, own)[0], atol=1e-12)
