"""Small trials on pictures of noise, alone and in packs, and what packs are made of."""

import numpy as np
import torch

from idennet_core import bank, packed
from idennet_core.config import canonical
from idennet_core.network import PretrainedNetwork, Trunk, initialise, trunk_state
from idennet_core.training import Member

CPU = torch.device("cpu")
DEPTH, WIDTH = 10, 48  # one layer a block: 24 + 12 maps, + 12
SMALL = {"depth": DEPTH, "epochs": 2, "batch_size": 16, "lr": 0.05, "augment": False}
IF, ID, F_, ORIGINAL = ({"variant": variant} for variant in ("if", "i", "f", "original"))
MATES = [  # settings, fold, seed; folds 0 and 1 test 24 pictures, the others 12
    (IF, 0, 0),
    (IF | {"alpha": 3.0, "gamma": 0.5, "lr": 0.2}, 4, 0),
    (IF | {"id_rate": 0.4, "weight_decay": 0.01}, 0, 1),
    (F_ | {"dropout": 0.0}, 1, 0),
]


def pretrained(faces):
    """The state dicts of an emotion and an identity network whose running statistics have seen the faces."""
    states = []
    images = torch.from_numpy(bank.crops(np.ascontiguousarray(faces.faces[:64, 10:70, 10:70]), bank.centre_offsets(64)))
    for task in ("emotion", "identity"):
        network = PretrainedNetwork(6, DEPTH)
        initialise(network, "test trunk", task)
        with torch.no_grad():
            network.train()(images)
        states.append(network.state_dict())
    return states


def trunks_of(networks, count=2):
    trunks = [Trunk(DEPTH) for _ in range(count)]
    for trunk, state in zip(trunks, networks, strict=False):
        trunk.load_state_dict(trunk_state(state))
    return trunks


def member(faces, networks, settings, fold=0, seed=0, examples=None):
    """A new member with these settings over the small ones."""
    whole = canonical(SMALL | settings)
    return Member(whole, fold, seed, examples or packed.examples(faces, whole["augment"]), WIDTH, networks[0], CPU)


def train(
    members,
    *,
    faces,
    networks,
    trunks=None,
    threads=2,
    first_epoch=0,
    on_progress=lambda _: None,
    on_epoch=lambda *_: None,
):
    """Train a pack: its members' test probabilities and their curves."""
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


def same(one, other):
    """Equal to the bit: weights, statistics and momenta; also where both are not numbers."""
    state, other_state = one.state(), other.state()
    assert state.keys() == other_state.keys()
    for name, value in state.items():
        assert value.numpy().tobytes() == other_state[name].numpy().tobytes(), name


def maps_by_hand(faces, networks, offsets):
    """The unpooled maps [N, 2 * D, 24, 24] of the faces cropped at `offsets`."""
    inner = faces.faces[:, 10:70, 10:70]
    cut = np.stack([face[r : r + 48, c : c + 48] for face, (r, c) in zip(inner, offsets, strict=True)])
    cut = cut.astype(np.float64)
    cut = (cut - cut.mean((1, 2), keepdims=True)) / cut.std((1, 2), keepdims=True)
    images = torch.from_numpy(cut[:, None]).float()
    with torch.no_grad():
        return torch.cat([trunk.eval()(images) for trunk in trunks_of(networks)], 1)
