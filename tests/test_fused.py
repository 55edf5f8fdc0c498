"""The hand-written kernels against the plain modules: the same numbers, the same gradients, the same statistics."""

import copy

import pytest
import torch
from torch.nn import functional as F

from idennet_core import fused
from idennet_core.network import DenseBlock, Dropout, Head, PretrainedNetwork, initialise

SHAPES = [
    dict(depth=40),
    dict(depth=16, bottleneck=48),
    dict(depth=10, bottleneck=5, compression=0.37),  # widths that no vector divides
]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}


def shaken(network, dtype=torch.float64):
    """The network with weights, biases and running statistics that are nowhere 0 or 1."""
    initialise(network, "fused")
    torch.manual_seed(0)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return network.to(dtype)


def assert_close(found, wanted, what):
    assert (found - wanted).abs().max() < TOLERANCE[wanted.dtype] * wanted.abs().max(), what


def outcome(network, run):
    """Logits, gradients and running statistics of one training step, in double precision."""
    logits = run(network)
    F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    found = {f"gradient of {name}": parameter.grad for name, parameter in network.named_parameters()}
    return {
        name: value.detach().double() for name, value in {"logits": logits, **found, **network.state_dict()}.items()
    }


def assert_same_step(network, plain, fast):
    """`plain` and `fast` run a network in a given type; in single precision an activation near 0 may fall otherwise."""
    truth = outcome(copy.deepcopy(network), lambda n: plain(n, torch.float64))
    found = outcome(copy.deepcopy(network), lambda n: fast(n, torch.float64))
    single = outcome(copy.deepcopy(network).float(), lambda n: fast(n, torch.float32))
    for name, value in truth.items():
        size = max(value.abs().max().item(), 1e-2)  # a bias before a batch norm has no gradient but rounding
        assert (found[name] - value).abs().max().item() < 1e-11 * size, name
        assert (single[name] - value).norm().item() < 1e-2 * max(value.norm().item(), 1e-2), name


@pytest.mark.parametrize("shape", SHAPES)
def test_a_training_step_of_a_head_is_that_of_the_plain_module(shape):
    torch.manual_seed(1)
    bank, rows, dropout = torch.randn(9, 48, 12, 12), torch.tensor([3, 0, 8, 3, 5]), Dropout(0.5, "masks")
    assert_same_step(
        shaken(Head(24, 2, 6, 7, **shape)),
        lambda head, dtype: torch.cat(head(bank.to(dtype)[rows], dropout), 1),
        lambda head, dtype: torch.cat(fused.head(head, bank.to(dtype), rows, dropout), 1),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_training_step_of_a_pretrained_network_is_that_of_the_plain_module(shape):
    torch.manual_seed(1)
    images = torch.randn(4, 1, 48, 48)
    assert_same_step(
        shaken(PretrainedNetwork(5, **shape)),
        lambda network, dtype: network(images.to(dtype)),
        lambda network, dtype: fused.pretrained(network, images.to(dtype)),
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_in_eval_mode_the_running_statistics_are_used_and_kept(dtype):
    head, network = shaken(Head(24, 1, 6, 0, 16), dtype).eval(), shaken(PretrainedNetwork(5, 16), dtype).eval()
    before = copy.deepcopy(dict(network.named_buffers()))
    bank, images = torch.randn(3, 24, 12, 12, dtype=dtype), torch.randn(3, 1, 48, 48, dtype=dtype)
    with torch.inference_mode():
        assert_close(fused.head(head, bank, torch.tensor([2, 0]), None)[0], head(bank[[2, 0]])[0], "head")
        assert_close(fused.trunk(network.trunk, images).transpose(0, 1), network.trunk(images), "trunk")
        assert_close(fused.pretrained(network, images), network(images), "network")
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_the_gradient_of_a_dense_block_is_its_slope():
    block = shaken(DenseBlock(5, 16, 3), torch.float64)
    maps = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    # fresh statistics at every look: they do not enter in training
    assert torch.autograd.gradcheck(lambda maps: fused.dense_block(block, maps, Dropout(0.5, "masks")), maps)


def test_what_is_not_a_number_stays_so():
    head = shaken(Head(24, 1, 6, 0, 16), torch.float32)
    bank = torch.randn(4, 24, 12, 12)
    with torch.no_grad():
        head.block.layers[0].conv1.weight[0, 0] = torch.nan
    assert fused.head(head, bank, torch.arange(4), None)[0].isnan().all()
    assert fused.head(head.eval(), bank, torch.arange(4), None)[0].isnan().all()


def test_a_picture_alone_has_the_maps_it_has_among_others():
    trunk = shaken(PretrainedNetwork(5, 16), torch.float32).trunk.eval()
    images = torch.randn(16, 1, 48, 48)
    with torch.inference_mode():
        together = fused.trunk(trunk, images)
        for place in (0, 7, 15):
            assert_close(fused.trunk(trunk, images[place : place + 1])[:, 0], together[:, place], place)
