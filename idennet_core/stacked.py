"""Members that train as one: K heads in one set of tensors, a step of all of them without a launch for each.

A member's parameters, statistics and momenta become rows of the stack's, so that its state is its own at any time, and
a stack can be built anew when somebody leaves. Batch order, dropout masks and schedule are the member's own streams.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idennet_core import batched, philox
from idennet_core.config import GROWTH
from idennet_core.faces.augmentation import Pictures
from idennet_core.losses import emotion_losses, identity_losses
from idennet_core.network import MOMENTUM, Trunk
from idennet_core.resident import MAPS, Bank
from idennet_core.training import EpochRecord, Member, Probabilities

WARM_UP = 3  # steps before a CUDA graph is captured; they leave no trace
MOST, TIMED, NOISE = 64, 10, 2048  # of the measurement of stack sizes: the largest, its steps, its bank's pictures


class Stack:
    """Members of one pack, longest epoch first, that take their steps together on their device.

    Those with fewer steps an epoch idle in the last ones. Maps have the bank's type; parameters, momenta and statistics
    keep the heads'.
    """

    def __init__(self, members: Sequence[Member], pool: Any = None) -> None:
        """`pool`: of memory for captured steps, which stacks that never train at once share."""
        self.members = sorted(members, key=lambda member: -member.steps_per_epoch)
        first = self.members[0]
        self.device, self.batch = first.device, first.settings["batch_size"]
        self.labels = first.labels  # of all rows of a bank, the same for everybody
        self.identities = torch.stack([member.identities for member in self.members])
        kept = next(first.head.parameters()).dtype
        self.values, self.parameters = self._adopt_parameters(kept)
        self.momenta = self._adopt_momenta()
        self.means, self.variances, self.counts = self._adopt_statistics(kept)

        def each(name: str) -> Tensor:
            chosen = [member.settings.get(name, 0.0) for member in self.members]
            return torch.tensor(chosen, dtype=kept, device=self.device)

        self.alpha, self.gamma, self.decay, self.momentum = map(each, ("alpha", "gamma", "weight_decay", "momentum"))
        self.supervised = torch.zeros(len(members), self._identities(), dtype=torch.bool, device=self.device)
        for place, member in enumerate(self.members):
            if member.head.identity is not None:
                self.supervised[place, : len(member.supervised)] = member.supervised
        names = list(dict.fromkeys(member.dropout.stream for member in self.members))
        self.streams = names  # of dropout: members of one fold and seed share their masks
        self.stream_of = torch.tensor([names.index(m.dropout.stream) for m in self.members], device=self.device)
        rates = [member.dropout.rate for member in self.members]
        self.dropping = any(rates)
        self.threshold = torch.tensor([round(rate * 65536) for rate in rates], dtype=torch.int32, device=self.device)
        self.gain = torch.tensor([1 / (1 - rate) for rate in rates], dtype=kept, device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.pool = pool
        self.captured = 0  # where the bank lies that the graph reads

    def train_epoch(
        self, pixels: Tensor, centre: Tensor, epoch: int, stop: Event
    ) -> Iterator[tuple[Member, EpochRecord]]:
        """One pass of everybody over their rows of a bank's pixels [rows, 144, C], then a look at the test folds.

        A loss that is not finite ends that member's trial alone; `stop` ends the pass early, with records of no use.
        """
        self.schedule(epoch)
        step = 0
        for count, steps in self._stretches():
            while step < steps and not stop.is_set():
                self.advance(pixels, count)
                step += 1
        measured = self.measured.cpu().numpy().astype(np.float64)
        for place, (member, tested) in enumerate(zip(self.members, self.probabilities(centre), strict=True)):
            yield member, member.record(epoch, measured[: member.steps_per_epoch, place], tested)

    @torch.inference_mode()
    def probabilities(self, centre: Tensor) -> list[Probabilities]:
        """Each member's class probabilities [n_test, classes] from the pixels of the bank of centre crops."""
        sizes = [len(member.test_rows) for member in self.members]
        rows = np.zeros((len(self.members), max(sizes)), np.int64)
        for place, member in enumerate(self.members):
            rows[place, : sizes[place]] = member.test_rows
        means, variances = self._by_norm(self.means), self._by_norm(self.variances)
        found = []
        for chunk in torch.split(torch.from_numpy(rows).to(self.device), self.batch, 1):
            maps = batched.fuse(self._gathered(centre, chunk), self.parameters)
            features = batched.test_features(maps, self.parameters, means, variances)
            found.append(torch.softmax(self._classified(features, self.parameters, "emotion"), 2))
        whole = torch.cat(found, 1).float().cpu().numpy()
        return [whole[place, :size] for place, size in enumerate(sizes)]

    def _identities(self) -> int:
        heads = [member.head.identity for member in self.members]
        return max((identity.out_features for identity in heads if identity is not None), default=0)

    def _adopt_parameters(self, kept: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
        """All parameters in one [K, total], and views of it by name; narrower classifiers are followed by zeros."""
        shapes: dict[str, tuple[int, ...]] = {}
        for member in self.members:
            for name, parameter in member.head.named_parameters():
                shapes[name] = max(shapes.get(name, ()), tuple(parameter.shape))
        self.shapes = shapes
        values = torch.zeros(len(self.members), sum(map(_size, shapes.values())), dtype=kept, device=self.device)
        parameters = self._by_name(values)
        for place, member in enumerate(self.members):
            for name, parameter in member.head.named_parameters():
                row = parameters[name][place, : len(parameter)]
                parameter.data = row.copy_(parameter.data)
        return values, parameters

    def _adopt_momenta(self) -> Tensor:
        """As the parameters."""
        momenta = torch.zeros_like(self.values)
        views = self._by_name(momenta)
        for place, member in enumerate(self.members):
            member.begin()
            for index, (name, parameter) in enumerate(member.head.named_parameters()):
                member.momenta[index] = views[name][place, : len(parameter)].copy_(member.momenta[index])
        return momenta

    def _adopt_statistics(self, kept: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Running means and variances [K, S] and how many batches each batch norm has seen [K, norms]."""
        names = batched.norm_names(batched.layers(self.parameters))
        modules = [dict(member.head.named_modules()) for member in self.members]
        self.widths = {name: modules[0][name].num_features for name in names}
        size = len(self.members), sum(self.widths.values())
        means, variances = (torch.zeros(size, dtype=kept, device=self.device) for _ in range(2))
        counts = torch.zeros(len(self.members), len(names), dtype=torch.int64, device=self.device)
        for statistics, buffer in ((means, "running_mean"), (variances, "running_var")):
            for name, rows in self._by_norm(statistics).items():
                for row, module in zip(rows, modules, strict=True):
                    setattr(module[name], buffer, row.copy_(getattr(module[name], buffer)))
        for column, name in enumerate(names):
            for row, module in zip(counts, modules, strict=True):
                module[name].num_batches_tracked = row[column].copy_(module[name].num_batches_tracked)
        return means, variances, counts

    def _by_name(self, values: Tensor) -> dict[str, Tensor]:
        parts = torch.split(values, [_size(shape) for shape in self.shapes.values()], 1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _by_norm(self, statistics: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.widths, torch.split(statistics, list(self.widths.values()), 1), strict=True))

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """How many members take the steps up to which one: everybody first, then those with longer epochs."""
        steps = [member.steps_per_epoch for member in self.members]
        for last, _ in groupby(reversed(steps)):
            yield sum(own >= last for own in steps), last

    def schedule(self, epoch: int) -> None:
        """Put an epoch's rows, rates and dropout keys on the device, where a step counter picks them."""
        longest = self.members[0].steps_per_epoch
        rows = np.zeros((longest, len(self.members), self.batch), np.int64)
        rates = np.zeros((longest, len(self.members)))
        keys = torch.zeros(longest, len(self.streams), batched.layers(self.parameters), 2, dtype=torch.int64)
        for place, member in enumerate(self.members):
            steps = member.steps_per_epoch
            rows[:steps, place] = member.order(epoch)[: steps * self.batch].reshape(steps, self.batch)
            rates[:steps, place] = [member.rate(epoch * steps + index) for index in range(steps)]
            stream = self.streams.index(member.dropout.stream)
            if self.dropping and not keys[0, stream].any():
                steps_and_layers = [(epoch * steps + i, layer) for i in range(steps) for layer in range(keys.shape[2])]
                named = philox.keys((*member.dropout.stream, *which) for which in steps_and_layers)
                keys[:steps, stream] = named.view(steps, -1, 2)
        new = torch.from_numpy(rows), torch.from_numpy(rates).to(self.values.dtype), keys
        if not hasattr(self, "rows"):
            self.rows, self.rates, self.keys = (part.to(self.device) for part in new)
            self.at = torch.zeros(1, dtype=torch.int64, device=self.device)
            self.measured = torch.zeros(*rates.shape, 4, dtype=self.values.dtype, device=self.device)
        for held, part in zip((self.rows, self.rates, self.keys), new, strict=True):
            held.copy_(part)  # in place: a captured graph reads them where they are
        self.at.zero_()

    def advance(self, pixels: Tensor, count: int) -> None:
        """A step of the first `count` members; of all of them on a GPU as one captured graph."""
        if self.device.type != "cuda" or count < len(self.members):
            self._step(pixels, count)
            return
        if self.graph is None or self.captured != pixels.data_ptr():
            self._capture(pixels)
        assert self.graph is not None
        self.graph.replay()

    def _capture(self, pixels: Tensor) -> None:
        """Record a step as a CUDA graph; what the warm-up steps changed, statistics too, is put back."""
        changed = (self.values, self.momenta, self.means, self.variances, self.counts, self.at, self.measured)
        before = [tensor.clone() for tensor in changed]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.at.zero_()
                self._step(pixels, len(self.members))
        torch.cuda.current_stream().wait_stream(side)
        self.graph, self.captured = torch.cuda.CUDAGraph(), pixels.data_ptr()
        with torch.cuda.graph(self.graph, pool=self.pool):
            self._step(pixels, len(self.members))
        for tensor, kept in zip(changed, before, strict=True):
            tensor.copy_(kept)

    def _step(self, pixels: Tensor, count: int) -> None:
        """Forward, backward and SGD of the first `count` members at the step that `at` says, which then moves on."""
        rows = self.rows.index_select(0, self.at)[0, :count]
        leaves = {name: value[:count].detach().requires_grad_() for name, value in self.parameters.items()}
        maps = batched.fuse(self._gathered(pixels, rows), leaves)
        features, mean, variance = batched.train_features(maps, leaves, self.masks(count, maps.dtype))
        logits = self._classified(features, leaves, "emotion")
        labels = self.labels[rows]
        emotion = emotion_losses(logits, labels)
        loss, identity = emotion, torch.zeros_like(emotion)
        if self.supervised.shape[1]:
            wanted = self.identities[:count].gather(1, rows)
            found = self._classified(features, leaves, "identity")
            identity = identity_losses(found, wanted, self.supervised[:count], self.alpha[:count], self.gamma[:count])
            loss = emotion + identity
        gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))  # a sum: nobody's depends on the others
        with torch.no_grad():
            gradient = torch.cat([part.flatten(1) for part in gradients], 1)
            values, momenta = self.values[:count], self.momenta[:count]
            gradient.addcmul_(values, self.decay[:count, None])
            momenta.mul_(self.momentum[:count, None]).add_(gradient)
            values.addcmul_(momenta, self.rates.index_select(0, self.at)[0, :count, None], value=-1)
            self.means[:count].lerp_(mean, MOMENTUM)
            self.variances[:count].lerp_(variance, MOMENTUM)
            self.counts[:count] += 1
            hits = (logits.argmax(2) == labels).sum(1)
            measured = torch.stack([loss, emotion, identity, hits.to(loss.dtype)], 1)
            self.measured[:, :count].index_copy_(0, self.at, measured[None])
            self.at += 1

    def _gathered(self, pixels: Tensor, rows: Tensor) -> Tensor:
        """Rows [K, B] of a bank's pixels [rows, 144, C] as [K, B * 144, C]."""
        return pixels.index_select(0, rows.flatten()).view(len(rows), -1, pixels.shape[2])

    def _classified(self, features: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
        weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        return torch.baddbmm(bias[:, None], features, weight.transpose(1, 2))

    def masks(self, count: int, dtype: torch.dtype) -> list[Tensor]:
        """What each layer's new maps are multiplied with, [K, 12, P]: the bits of `network.Dropout`."""
        if not self.dropping:
            return []
        shape = self.batch, GROWTH, batched.PIXELS
        drawn = philox.raw_words(self.keys.index_select(0, self.at)[0], -(-_size(shape) // 4))
        draws = (drawn.view(torch.int16)[..., : _size(shape)] ^ -32768).index_select(0, self.stream_of[:count])
        kept = draws >= self.threshold[:count, None, None] - 32768  # unsigned, as signed numbers
        scaled = kept.view(count, -1, *shape).permute(1, 0, 3, 2, 4) * self.gain[:count, None, None, None].to(dtype)
        return list(scaled.flatten(3).unbind(0))


class Stacked:
    """The members of a pack on one device, in stacks of at most `size`, built anew when who trains has changed."""

    def __init__(self, size: int, device: torch.device, maps: torch.dtype) -> None:
        self.size, self.device, self.maps = size, device, maps
        self.stacks: list[Stack] = []
        self.training: list[Member] = []

    def bank(self, pictures: Pictures, trunks: Sequence[Trunk]) -> Callable[[np.ndarray], Tensor]:
        """What makes a bank of the pictures cropped at given offsets, where the last one was."""
        return Bank(pictures, trunks, self.device, self.maps).fill

    def train_epoch(
        self, members: Sequence[Member], pixels: Tensor, centre: Tensor, epoch: int, stop: Event
    ) -> Iterator[tuple[Member, EpochRecord]]:
        """An epoch of these members, one stack after the other, from banks' pixels [N, 144, C]."""
        for stack in self._stacks(members):
            yield from stack.train_epoch(pixels, centre, epoch, stop)

    def probabilities(self, members: Sequence[Member], centre: Tensor) -> list[Probabilities]:
        """Class probabilities [n_test, classes] of each member's test fold."""
        found: dict[int, Probabilities] = {}
        for stack in self._stacks(members):
            found |= {id(m): tested for m, tested in zip(stack.members, stack.probabilities(centre), strict=True)}
        return [found[id(member)] for member in members]

    def _stacks(self, members: Sequence[Member]) -> list[Stack]:
        if self.training != list(members):
            self.training = list(members)
            self.stacks = []  # frees the old ones before the new ones come
            pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
            self.stacks = [Stack(part, pool) for part in parts(members, self.size)]
        return self.stacks


def parts(members: Sequence[Member], size: int) -> list[Sequence[Member]]:
    """The members in as few parts of at most `size` as there can be, of even sizes; nobody is in no part."""
    count = -(-len(members) // size)
    cuts = [len(members) * place // max(count, 1) for place in range(count + 1)]
    return [members[start:end] for start, end in pairwise(cuts)]


def speeds(members: Sequence[Member]) -> dict[int, float]:
    """Member-steps a second of stacks of 1, 2, 4, … of copies of these members, on a bank of noise.

    Ends at `MOST`, at the members there are, or where the device is full, at which the speed is 0.
    """
    device, maps, found = members[0].device, MAPS[members[0].settings.get("precision", "fp32")], {}
    pixels = torch.randn(NOISE, batched.PIXELS, members[0].head.fusion.in_channels, device=device).to(maps)
    for size in (2**power for power in range(MOST.bit_length())):
        if size > len(members):
            break
        try:
            stack = Stack(copy.deepcopy(members[:size]))
            stack.schedule(0)
            stack.rows.remainder_(NOISE)
            stack.advance(pixels, size)
            finish(device)
            began = time.perf_counter()
            for _ in range(TIMED):
                stack.at.zero_()
                stack.advance(pixels, size)
            finish(device)
        except torch.OutOfMemoryError:
            found[size] = 0.0
            break
        found[size] = TIMED * size / (time.perf_counter() - began)
    return found


def finish(device: torch.device) -> None:
    """Wait for what was asked of the device: a clock that stops earlier measures launches."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _size(shape: Sequence[int]) -> int:
    return int(np.prod(shape))
