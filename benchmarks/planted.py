"""The planted world: IDEnNet with an identity stream that carries the label with a stated strength.

Everything else is the real thing: faces, emotion trunk, bank, packs, store. The expression trunk cannot see what
is planted, for no picture is changed: the stand-in for the identity trunk *recognises* each crop by its content
and answers with maps of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idennet_core import config, streams
from idennet_core.config import CROP_SIZE, FACE_SIZE
from idennet_core.datasets.prepared import FaceSet
from idennet_core.faces.augmentation import MAX_OFFSET, views
from idennet_core.ids import content_id
from orchestrator.design import Cell
from orchestrator.idennet import Idennet
from orchestrator.study import Study
from orchestrator.trial import Configuration, Pack, Setting, Trial
from orchestrator.workload import Configured

if TYPE_CHECKING:
    from idennet_core.training import Member

RECIPE = 1  # raised whenever the same strength would plant other maps
GRID = 5  # independent values along a side of a face: what is planted is as smooth as that
CORE = FACE_SIZE - 2 * MAX_OFFSET  # pixels along a side of what every crop of a face holds
PLANTED: dict[str, Setting] = {
    "strength": 0.0,  # of the label in the identity stream, in standard deviations of the noise there
    "permuted": False,  # whether the identity loss gets the right identities of other pictures
}
SETTINGS: dict[str, Setting] = config.HEAD_DEFAULTS | PLANTED


class PlantedTrunk(nn.Module):
    """Maps in the identity trunk's place: `(noise + strength * pattern of the class) / sqrt(1 + strength²)`.

    Noise (a draw a picture) and patterns (a draw a class) have the same spectrum and variance, and so have the maps
    at every strength. They lie on the face and move with its crop. `width` maps; `faces` are all it will be shown.
    """

    def __init__(self, faces: FaceSet, width: int, strength: float, seed: int) -> None:
        super().__init__()
        self.out_width = width
        labels = [faces.classes.index(label) for label in faces.label.tolist()]
        noise = _draws("noise", seed, len(labels), width)
        patterns = _draws("patterns", seed, len(faces.classes), width)
        self.maps = (noise + strength * patterns[labels]) / (1 + strength**2) ** 0.5
        weights = streams.generator("planted", "fingerprint").integers(1, 2**40, (1, 1, CORE, CORE - 1))
        self.weights = torch.from_numpy(weights.astype(np.float64))
        pictures = torch.from_numpy(views(np.asarray(faces.faces)).astype(np.float32))[:, None]
        core = pictures[:, :, MAX_OFFSET : MAX_OFFSET + CORE, MAX_OFFSET : MAX_OFFSET + CORE]
        self.known, order = self._fingerprints(core).flatten().sort()
        self.rows = order % len(labels)  # bank rows are view-major
        twice = self.rows[1:][self.known[1:] == self.known[:-1]]
        if len(twice):
            raise ValueError(f"the pictures of {faces.name} must differ, {faces.source[twice[0]]} is there twice")

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, 48, 48] to maps [B, D, 24, 24], as a trunk does."""
        found = self._fingerprints(images).flatten(1)  # [B, 13 * 13], a place of the core each
        nearest = torch.searchsorted(self.known, found).clamp_(max=len(self.known) - 1)
        at = (self.known[nearest] == found).int().argmax(1)
        known = nearest.gather(1, at[:, None])[:, 0]
        assert torch.equal(self.known[known], found.gather(1, at[:, None])[:, 0]), "a crop of another set's picture"
        places = MAX_OFFSET + 1
        offsets = torch.stack([MAX_OFFSET - at % places, MAX_OFFSET - at // places], 1)  # x, y
        centres = (2 * offsets + CROP_SIZE) / FACE_SIZE - 1  # in -1..1 over the face
        theta = torch.zeros(len(images), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = CROP_SIZE / FACE_SIZE
        theta[:, :, 2] = centres
        size, half = (len(images), self.out_width, CROP_SIZE // 2, CROP_SIZE // 2), self.maps[self.rows[known]]
        grid = F.affine_grid(theta, list(size), align_corners=False)
        return F.grid_sample(half, grid, padding_mode="border", align_corners=False)

    def _fingerprints(self, pictures: Tensor) -> Tensor:
        """A number for each core-sized place of pictures [B, 1, H, W]: [B, H - CORE + 1, W - CORE + 1].

        It depends on which of two neighbours is brighter alone, so that standardisation does not change it, and is
        a sum of whole numbers, exact in float64.
        """
        steps = torch.sign(pictures[..., 1:] - pictures[..., :-1]).double()
        return F.conv2d(steps, self.weights)[:, 0]


def complete(settings: Mapping[str, Setting], defaults: Mapping[str, Setting]) -> dict[str, Setting]:
    """As `config.complete`, with the settings of the planted world where the defaults have them."""
    planted = {name: settings.get(name, default) for name, default in defaults.items() if name in PLANTED}
    if "strength" in planted:
        strength = planted["strength"]
        if type(strength) not in (int, float) or not 0 <= float(strength) < float("inf"):
            raise ValueError(f"strength must be a number of at least 0, got {strength!r}")
        planted["strength"] = float(strength)
    if type(planted.get("permuted", False)) is not bool:
        raise ValueError(f"permuted must be true or false, got {planted['permuted']!r}")
    real = {name: default for name, default in defaults.items() if name not in PLANTED}
    return config.complete({k: v for k, v in settings.items() if k not in planted}, real) | planted


class PlantedIdennet(Idennet):
    """IDEnNet as a workload in the planted world; what is planted comes from the trial's seed."""

    rules = replace(Idennet.rules, settings=SETTINGS, complete=complete)

    def configure(self, study: Study, cells: Sequence[Cell]) -> Configured:
        """As IDEnNet's; no identity trunk is needed."""
        alone = super().configure(study, [_emotion_alone(cell) for cell in cells])
        found = []
        for cell, configuration in zip(cells, alone.configurations, strict=True):
            settings, inputs = canonical(cell.settings), dict(configuration.inputs)
            if "strength" in settings:
                inputs["trunk_identity"] = content_id({"planted": RECIPE, "strength": settings["strength"]})
            found.append(Configuration({"dataset": study.dataset, **settings}, inputs))
        return replace(alone, configurations=found)

    def pack_key(self, trial: Trial) -> str:
        """Trials of one seed share a bank."""
        return f"{super().pack_key(trial)} {trial.seed}"

    def trunk(self, task: str, pack: Pack, faces: FaceSet) -> Any:
        """The real emotion trunk, and the planted maps as wide."""
        if task == "emotion":
            return super().trunk(task, pack, faces)
        first = pack.trials[0]
        settings: dict[str, Any] = dict(first.configuration.settings)
        return PlantedTrunk(faces, super().trunk("emotion", pack, faces).out_width, settings["strength"], first.seed)

    def members(self, pack: Pack, faces: FaceSet, width: int, device: Any) -> "list[Member]":
        """The real members; where identities are permuted, each training picture has that of another."""
        members = super().members(pack, faces, width, device)
        for member in members:
            if member.settings.get("permuted"):
                pictures = np.setdiff1d(np.arange(len(faces.faces)), member.test_rows)
                moved = streams.generator("planted", "permuted", *member.stream).permutation(pictures)
                identities = member.identities.reshape(-1, len(faces.faces))
                identities[:, pictures] = identities[:, moved]
        return members


def _emotion_alone(cell: Cell) -> Cell:
    """The cell without what is planted: all that it needs of the real world."""
    return Cell(cell.label, _real(cell.settings) | {"variant": "original"})


def canonical(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """As `config.canonical`, but for alpha 0, which stays a configuration of its own: it is to be shown equal to F.

    One stream has no strength, and without an identity loss no identity is permuted.
    """
    whole = complete(settings, SETTINGS)
    real = _real(whole) if whole["alpha"] == 0 else config.canonical(_real(whole))
    if len(config.tasks(str(real["variant"]))) == 2:
        real["strength"] = whole["strength"]
    if "alpha" in real:
        real["permuted"] = whole["permuted"]
    return real


def _real(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    return {name: value for name, value in settings.items() if name not in PLANTED}


def _draws(what: str, seed: int, count: int, width: int) -> Tensor:
    generator = streams.generator("planted", what, seed)
    return torch.from_numpy(generator.standard_normal((count, width, GRID, GRID), dtype=np.float32))
