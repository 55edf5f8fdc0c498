import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from idennet_core import cost
from idennet_core.config import ARCHITECTURE, canonical
from idennet_core.network import Dropout, Head, PretrainedNetwork, Trunk, initialise, start_from, trunk_state
from idennet_core.streams import generator

pytestmark = pytest.mark.usefixtures("one_thread")
# By hand. A layer that reads w maps has BN 2w, conv1x1 12w, BN 2 * 12 and conv3x3 9 * 12 * 12: 14w + 1320.
BLOCK1 = {
    16: 14 * (24 + 36) + 2 * 1320,  # to 48 maps
    22: 14 * (24 + 36 + 48) + 3 * 1320,  # to 60
    40: 14 * (24 + 36 + 48 + 60 + 72 + 84) + 6 * 1320,  # to 96
}
TRANSITION1 = {16: 2 * 48 + 48 * 48, 22: 2 * 60 + 60 * 60, 40: 2 * 96 + 96 * 96}  # BN, 1x1 without bias
BLOCK2 = {
    16: 14 * (48 + 60) + 2 * 1320,  # to 72
    22: 14 * (60 + 72 + 84) + 3 * 1320,  # to 96
    40: 14 * (96 + 108 + 120 + 132 + 144 + 156) + 6 * 1320,  # to 168
}
TRANSITION2 = {16: 72 * 72 + 72, 22: 96 * 96 + 96, 40: 168 * 168 + 168}  # 1x1 with bias, one stream
FUSION_OF_TWO = {16: 144 * 72 + 72, 22: 192 * 96 + 96, 40: 336 * 168 + 168}
BLOCK3 = {
    16: 14 * (72 + 84) + 2 * 1320,  # to 96
    22: 14 * (96 + 108 + 120) + 3 * 1320,  # to 132
    40: 14 * (168 + 180 + 192 + 204 + 216 + 228) + 6 * 1320,  # to 240
}
NORM = {16: 2 * 96, 22: 2 * 132, 40: 2 * 240}
WIDTH, FEATURES = {16: 72, 22: 96, 40: 168}, {16: 96, 22: 132, 40: 240}
TRUNK = {depth: 9 * 24 + BLOCK1[depth] + TRANSITION1[depth] + BLOCK2[depth] for depth in (16, 22, 40)}
DEPTHS = (16, 22, 40)


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def drawn(network, *names):
    """The network in float64 with weights, scales, shifts and running statistics none of which is 0 or 1."""
    generator_ = generator("network", *names)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                draws = torch.from_numpy(generator_.standard_normal(tuple(value.shape)))
                spread = (2 / max(1, value[0].numel())) ** 0.5 if value.ndim > 1 else 0.3
                one = "norm" in name and name.endswith(("weight", "running_var"))
                value.copy_(torch.exp(0.3 * draws) if one else spread * draws)
    return network.double()


def images_of(*names, batch=5):
    return torch.from_numpy(generator("images", *names).standard_normal((batch, 1, 48, 48)))


class Functional:
    """A second DenseNet: the text of the paper in functional calls on a state dict, one map list a block."""

    def __init__(self, state, training, masks=None):
        self.state = {name: value.clone() for name, value in state.items()}
        self.training, self.masks = training, masks

    def norm(self, name, x):
        s = self.state
        mean, variance = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        weight, bias = s[f"{name}.weight"], s[f"{name}.bias"]
        if self.training:
            s[f"{name}.num_batches_tracked"] += 1
        return F.batch_norm(x, mean, variance, weight, bias, self.training, 0.1, 1e-5)

    def block(self, name, x, depth):
        maps = [x]
        for i in range((depth - 4) // 6):
            layer = f"{name}.layers.{i}"
            y = torch.relu(self.norm(f"{layer}.norm1", torch.cat(maps, 1)))
            y = F.conv2d(y, self.state[f"{layer}.conv1.weight"])
            y = torch.relu(self.norm(f"{layer}.norm2", y))
            y = F.conv2d(y, self.state[f"{layer}.conv2.weight"], padding=1)
            maps.append(y if self.masks is None else y * self.masks[i])
        return torch.cat(maps, 1)

    def trunk(self, x, depth, prefix=""):
        x = F.conv2d(x, self.state[f"{prefix}stem.weight"], padding=1)
        x = torch.relu(self.norm(f"{prefix}norm", self.block(f"{prefix}block1", x, depth)))
        x = F.avg_pool2d(F.conv2d(x, self.state[f"{prefix}transition.weight"]), 2, 2)
        return self.block(f"{prefix}block2", x, depth)

    def rest(self, maps, fusion, classifiers, depth):
        """Fuse, then pool (the paper's order), then dense block 3 and one linear classifier a name."""
        s = self.state
        x = F.avg_pool2d(F.conv2d(maps, s[f"{fusion}.weight"], s[f"{fusion}.bias"]), 2, 2)
        x = torch.relu(self.norm("norm", self.block("block", x, depth)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return [F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"]) for name in classifiers]


def same_state(network, functional):
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, functional.state[name], rtol=1e-10, atol=1e-12, msg=name)


# sizes


@pytest.mark.parametrize("depth", DEPTHS)
def test_trunk_and_pretrained_network_have_the_parameters_counted_by_hand(depth):
    assert TRUNK == {16: 10248, 22: 16392, 40: 40584}
    assert size(Trunk(depth)) == TRUNK[depth]
    classifier = 8 * FEATURES[depth] + 8
    assert size(PretrainedNetwork(8, depth)) == (
        TRUNK[depth] + TRANSITION2[depth] + BLOCK3[depth] + NORM[depth] + classifier
    )


@pytest.mark.parametrize("identities", [0, 72])
@pytest.mark.parametrize("depth", DEPTHS)
def test_heads_have_the_parameters_counted_by_hand(depth, identities):
    classifiers = (6 + identities) * (FEATURES[depth] + 1)
    for streams, fusion in ((1, TRANSITION2), (2, FUSION_OF_TWO)):
        head = Head(WIDTH[depth], streams, 6, identities, depth)
        assert size(head) == fusion[depth] + BLOCK3[depth] + NORM[depth] + classifiers


def test_depth_40_is_24_96_96_168_168_240_channels_wide():
    network, seen = PretrainedNetwork(6, 40), []
    for name in ("trunk.stem", "trunk.block1", "trunk.transition", "trunk.block2", "transition", "block"):
        network.get_submodule(name).register_forward_hook(lambda module, given, maps: seen.append(maps.shape))
    network(torch.zeros(2, 1, 48, 48))
    assert [tuple(shape) for shape in seen] == [
        (2, 24, 48, 48), (2, 96, 48, 48), (2, 96, 24, 24),
        (2, 168, 24, 24), (2, 168, 12, 12), (2, 240, 12, 12),
    ]  # fmt: skip


def test_compression_narrows_both_transitions_and_bottleneck_the_inner_maps():
    network = PretrainedNetwork(6, 16, bottleneck=20, compression=0.5)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["trunk.block1.layers.1.conv1.weight"] == (20, 36, 1, 1)
    assert shapes["trunk.block1.layers.1.conv2.weight"] == (12, 20, 3, 3)
    assert shapes["trunk.transition.weight"] == (24, 48, 1, 1)
    assert shapes["transition.weight"] == (24, 48, 1, 1)  # 24 + 24 maps after block 2
    assert shapes["classifier.weight"] == (6, 48)


# values


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("depth", [16, 22])
def test_the_pretrained_network_computes_what_a_functional_densenet_computes(depth, training):
    network = drawn(PretrainedNetwork(6, depth), depth).train(training)
    other, images = Functional(network.state_dict(), training), images_of(depth)
    maps = other.trunk(images, depth, "trunk.")
    torch.testing.assert_close(
        network(images), other.rest(maps, "transition", ["classifier"], depth)[0], rtol=1e-10, atol=1e-10
    )
    same_state(network, other)


def test_the_trunk_in_a_pretrained_network_computes_the_maps_before_its_transition_2():
    network = drawn(PretrainedNetwork(6, 16), "part").eval()
    trunk = Trunk(16).double().eval()
    trunk.load_state_dict(trunk_state(network.state_dict()))
    images = images_of("part")
    maps = Functional(network.state_dict(), False).trunk(images, 16, "trunk.")
    assert maps.shape == (5, 72, 24, 24)
    torch.testing.assert_close(trunk(images), maps, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("streams", [1, 2])
def test_a_head_on_pooled_features_computes_what_the_paper_computes_on_unpooled_ones(streams, training):
    head = drawn(Head(72, streams, 6, 9, 16), streams).train(training)
    other = Functional(head.state_dict(), training)
    maps = torch.from_numpy(generator("maps", streams).standard_normal((5, streams * 72, 24, 24)))
    emotion, identity = other.rest(maps, "fusion", ["emotion", "identity"], 16)
    found = head(F.avg_pool2d(maps, 2))
    torch.testing.assert_close(found, (emotion, identity), rtol=1e-10, atol=1e-10)
    same_state(head, other)


def test_pooled_then_fused_equals_fused_then_pooled():
    fusion = drawn(Head(168, 2, 6, 0, 40), "fusion").fusion
    maps = torch.from_numpy(generator("maps").standard_normal((3, 336, 24, 24)))
    difference = fusion(F.avg_pool2d(maps, 2)) - F.avg_pool2d(fusion(maps), 2)
    assert difference.abs().max() < 1e-12


# dropout


def test_dropout_acts_on_each_layers_new_maps_as_the_same_masks_in_a_functional_densenet():
    head = drawn(Head(72, 1, 6, 0, 16), "dropout").train()
    ones = torch.ones(5, 12, 12, 12, dtype=torch.float64)
    dropout = Dropout(0.25, "masks", 3)
    other = Functional(head.state_dict(), True, masks=[dropout(ones, layer) for layer in range(2)])
    maps = torch.from_numpy(generator("maps").standard_normal((5, 72, 24, 24)))
    emotion, none = head(F.avg_pool2d(maps, 2), dropout)
    assert none is None
    torch.testing.assert_close(emotion, other.rest(maps, "fusion", ["emotion"], 16)[0], rtol=1e-10, atol=1e-10)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    out = Dropout(0.25, "share")(torch.ones(64, 12, 12, 12), 0)
    assert sorted(out.unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert (out == 0).double().mean().item() == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / out.numel()) ** 0.5)


def test_a_dropout_mask_depends_on_stream_step_and_layer_and_on_nothing_drawn_before():
    ones = torch.ones(4, 12, 12, 12)

    def mask(name, step, layer, before=0):
        dropout = Dropout(0.5, name)
        for _ in range(before):
            dropout(ones, layer)
        dropout.step = step
        return dropout(ones, layer)

    first = mask("a", 1, 0)
    assert torch.equal(first, mask("a", 1, 0, before=3))
    for another in (mask("b", 1, 0), mask("a", 2, 0), mask("a", 1, 1), mask("a", 0, 1)):
        share = (first == another).double().mean().item()
        assert share == pytest.approx(0.5, abs=5 * 0.5 / ones.numel() ** 0.5)


def test_a_dropout_of_0_changes_nothing():
    maps = torch.randn(2, 12, 12, 12)
    assert torch.equal(Dropout(0.0, "none")(maps, 0), maps)


# the start


def test_weights_are_drawn_with_the_spread_of_densenet_and_norms_and_biases_start_at_1_and_0():
    network = PretrainedNetwork(200, 40)
    initialise(network, "spread")
    spread = {
        "trunk.block2.layers.5.conv2.weight": (2 / (9 * 12)) ** 0.5,
        "trunk.transition.weight": (2 / 96) ** 0.5,
        "classifier.weight": (1 / 240) ** 0.5,
    }
    parameters = dict(network.named_parameters())
    for name, wanted in spread.items():
        value = parameters[name]
        sigma = value.numel() ** -0.5
        assert value.std().item() == pytest.approx(wanted, rel=5 * sigma)
        assert abs(value.mean().item()) < 5 * wanted * sigma
    for name, value in parameters.items():
        if value.ndim == 1:
            assert (value == (1 if "norm" in name and name.endswith("weight") else 0)).all(), name


def test_two_networks_share_the_initial_values_of_every_parameter_they_both_have():
    one, two, other = Head(72, 1, 6, 0, 16), Head(72, 1, 6, 9, 16), Head(72, 1, 6, 9, 16)
    initialise(one, "weights", 0, 3)
    initialise(two, "weights", 0, 3)
    initialise(other, "weights", 0, 4)
    for name, value in one.named_parameters():
        assert torch.equal(value, two.get_parameter(name))
        assert value.ndim == 1 or not torch.equal(value, other.get_parameter(name))


def start(streams, network, *names):
    head = Head(72, streams, 6, 0, 16)
    initialise(head, *names)
    start_from(head, network.state_dict())
    return head.double().eval()


def test_f_starts_with_the_logits_of_original_whatever_the_identity_features_are():
    network = drawn(PretrainedNetwork(8, 16), "emotion").eval()
    original, f = (start(streams, network, "weights", 0, 0) for streams in (1, 2))
    emotion, identity = (
        torch.from_numpy(generator("pooled", task).standard_normal((5, 72, 12, 12))) for task in ("e", "i")
    )
    wanted = original(emotion)[0]
    assert wanted.std() > 0.1
    torch.testing.assert_close(f(torch.cat([emotion, identity], 1))[0], wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(f(torch.cat([emotion, 1e3 * identity], 1))[0], wanted, rtol=1e-12, atol=1e-12)


def test_original_starts_as_the_pretrained_emotion_network_under_a_new_classifier():
    network = drawn(PretrainedNetwork(6, 16), "under").eval()
    original, images = start(1, network, "weights", 0, 0), images_of("under")
    assert not torch.equal(original.emotion.weight, network.classifier.weight)
    network.classifier.load_state_dict(original.emotion.state_dict())
    pooled = F.avg_pool2d(network.trunk(images), 2)
    torch.testing.assert_close(original(pooled)[0], network(images), rtol=1e-10, atol=1e-12)


# cost


def convolutions(run):
    """Floating-point operations of the convolutions in `run`, forward and backward, counted by PyTorch."""
    with FlopCounterMode(display=False) as counter:
        run()
    counts = counter.get_flop_counts()["Global"]
    return sum(number for operator, number in counts.items() if "convolution" in str(operator))


ARCHITECTURES = [(16, 12, 1.0), (22, 12, 1.0), (40, 12, 1.0), (22, 48, 0.5)]


def test_the_least_compression_that_a_study_may_ask_for_leaves_every_network_a_channel():
    with pytest.raises(ValueError, match=r"compression must be a share from 0\.1 to 1, got 0\.05"):
        canonical({"compression": 0.05})
    settings = canonical({"depth": 10, "compression": 0.1})
    architecture = {name: settings[name] for name in ARCHITECTURE}
    network = PretrainedNetwork(6, **architecture)
    assert network(torch.rand(2, 1, 60, 60)).shape == (2, 6)
    head = Head(network.trunk.out_width, 2, 6, 9, **architecture)
    assert head(torch.rand(2, 2 * network.trunk.out_width, 12, 12))[0].shape == (2, 6)


@pytest.mark.parametrize(("depth", "bottleneck", "compression"), ARCHITECTURES)
def test_the_cost_of_trunk_and_head_is_what_pytorch_counts(depth, bottleneck, compression):
    architecture = {"depth": depth, "bottleneck": bottleneck, "compression": compression}
    trunk = Trunk(depth, bottleneck, compression)
    with torch.no_grad():
        assert cost.trunk_flops(architecture) == convolutions(lambda: trunk(torch.zeros(1, 1, 48, 48)))
    assert cost.trunk_width(architecture) == trunk.out_width
    for streams in (1, 2):
        head = Head(trunk.out_width, streams, 6, 9, depth, bottleneck, compression)
        pooled = torch.zeros(1, streams * trunk.out_width, 12, 12)
        counted = convolutions(lambda head=head, pooled=pooled: head(pooled)[0].sum().backward())
        assert sum(cost.head_flops(architecture, streams)) == counted
        with torch.no_grad():
            whole = streams * cost.trunk_flops(architecture) + convolutions(
                lambda head=head, pooled=pooled: head(pooled)
            )
        assert cost.inference_flops(architecture, streams) == whole


def test_the_bytes_of_a_bank_are_those_of_its_tensor():
    bank = torch.empty(7, 2 * 168, 12, 12)
    architecture = {"depth": 40, "bottleneck": 12, "compression": 1.0}
    assert cost.bank_bytes(architecture, 2, 7) == bank.numel() * bank.element_size()


@pytest.mark.parametrize("depth", [10, 40])
def test_the_memory_model_counts_a_heads_values(depth):
    head = Head(cost.trunk_width({"depth": depth, "bottleneck": 12, "compression": 0.5}), 2, 6, 80, depth, 12, 0.5)
    parameters = sum(value.numel() for value in head.parameters())
    statistics = sum(value.numel() for value in head.buffers() if value.is_floating_point())
    architecture = {"depth": depth, "bottleneck": 12, "compression": 0.5}
    assert cost.head_values(architecture, 2, 6 + 80) == (parameters, statistics)


def test_the_knee_is_the_fewest_members_that_are_nearly_as_fast_as_the_best():
    assert cost.knee({1: 10.0, 2: 19.0, 4: 30.0, 8: 31.0, 16: 25.0}) == 4
    assert cost.knee({1: 10.0}) == 1


def test_the_precision_is_part_of_a_configuration_only_where_it_is_not_the_default():
    assert "precision" not in canonical({"precision": "fp32"})
    assert canonical({"precision": "fp32"}) == canonical({})
    assert canonical({"precision": "bf16"})["precision"] == "bf16"
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16"):
        canonical({"precision": "fp16"})
