"""The settings of a training run: names, defaults, rules, and what identifies a result."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from idennet_core.naming import suggest

Setting = bool | int | float | str

# Raised whenever the same settings would train to other numbers: a head's, a trunk's.
RECIPE, TRUNK_RECIPE = 3, 3
FACE_SIZE, STORED_SIZE, CROP_SIZE = (
    60,
    80,
    48,
)  # pixels: a face, the face with its margin, the network's input
GROWTH, STEM = 12, 24  # filters a layer, channels of the stem (paper Sec. 3.3)
DATASETS = ("oulu-casia", "ck+", "mmi", "ferplus", "casia-webface")
VARIANTS = ("original", "i", "f", "if")
TASKS = ("emotion", "identity")
PRECISIONS = ("fp32", "bf16")
IDENTITY_TRUNKS = ("trained", "untrained")  # untrained: its initial weights

HEAD_DEFAULTS: dict[str, Setting] = {
    "variant": "if",
    "depth": 40,
    "bottleneck": 12,
    "compression": 1.0,
    "alpha": 0.1,
    "gamma": 15.0,
    "id_rate": 1.0,
    "dropout": 0.5,
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "epochs": 100,
    "batch_size": 128,
    "augment": True,
    "bank_seed": 0,
    "precision": "fp32",
    "identity_trunk": "trained",
}
TRUNK_DEFAULTS: dict[str, dict[str, Setting]] = {
    "emotion": {"dataset": "ferplus", "epochs": 100, "batch_size": 128, "lr": 0.1, "seed": 0, "precision": "fp32"},
    "identity": {
        "dataset": "casia-webface",
        "epochs": 40,
        "batch_size": 128,
        "lr": 0.1,
        "seed": 0,
        "precision": "fp32",
    },
}
MEANINGS: dict[str, str] = {  # of settings, for people
    "variant": "original, or with the identity loss (i), the fused identity stream (f), or both (if).",
    "depth": "Layers of the network, 6n + 4; deeper ones take longer.",
    "bottleneck": "Maps between the two convolutions of a layer.",
    "compression": "The share of its maps that goes on from a dense block.",
    "alpha": "Weight of the identity loss.",
    "gamma": "Focusing exponent of the identity loss; 0 is plain cross entropy.",
    "id_rate": "The share of people whose identity is supervised.",
    "dropout": "The share of features that is dropped while training.",
    "lr": "Learning rate at the start.",
    "momentum": "Momentum of stochastic gradient descent.",
    "weight_decay": "Weight decay.",
    "epochs": "Passes over the training pictures.",
    "batch_size": "Pictures a step.",
    "augment": "Flips and rotations of the training pictures, x 14.",
    "bank_seed": "Another seed crops the pictures of the feature bank elsewhere.",
    "precision": "Of the arithmetic: fp32, or bf16 where the device has it.",
    "identity_trunk": "The pre-trained identity trunk, or one with its first weights.",
    "dataset": "The prepared data set that the trunk learns from.",
    "seed": "Another seed starts from other weights and another order.",
}
CHOICES = {"variant": VARIANTS, "precision": PRECISIONS, "identity_trunk": IDENTITY_TRUNKS}
IDENTITY_LOSS = ("alpha", "gamma", "id_rate")
ARCHITECTURE = ("depth", "bottleneck", "compression")

_at_least_one: tuple[Callable[[Any], bool], str] = (lambda value: value >= 1, "an integer of at least 1")
_not_negative: tuple[Callable[[Any], bool], str] = (lambda value: value >= 0, "a number of at least 0")
_positive: tuple[Callable[[Any], bool], str] = (lambda value: value > 0, "a number above 0")
_rules: dict[str, tuple[Callable[[Any], bool], str]] = {
    "variant": (lambda value: value in VARIANTS, f"one of {', '.join(VARIANTS)}"),
    "depth": (lambda value: value >= 10 and value % 6 == 4, "6n + 4 with n >= 1, such as 16, 22 or 40"),
    "bottleneck": _at_least_one,
    "compression": (lambda value: 0.1 <= value <= 1, "a share from 0.1 to 1"),
    "alpha": _not_negative,
    "gamma": _not_negative,
    "id_rate": (lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    "dropout": (lambda value: 0 <= value < 1, "a share from 0 to below 1"),
    "lr": _positive,
    "momentum": (lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    "weight_decay": _not_negative,
    "epochs": _at_least_one,
    "batch_size": (lambda value: value >= 2, "an integer of at least 2"),
    "augment": (lambda value: True, "true or false"),
    "bank_seed": (lambda value: value >= 0, "an integer of at least 0"),
    "identity_trunk": (lambda value: value in IDENTITY_TRUNKS, f"one of {', '.join(IDENTITY_TRUNKS)}"),
    "seed": (lambda value: value >= 0, "an integer of at least 0"),
    "precision": (lambda value: value in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "dataset": (lambda value: True, "the name of a data set"),
}


def layers_per_block(depth: int) -> int:
    """Layers of a dense block at this depth: two convolutions a layer, three blocks, depth = 6n + 4."""
    return (depth - 4) // 6


def complete(settings: Mapping[str, Any], defaults: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings over their defaults, each of its default's type.

    Raises ValueError for an unknown name, a wrong type or a broken rule.
    """
    for name in settings:
        if name not in defaults:
            raise ValueError(f"unknown setting '{name}'; {suggest(name, defaults)}")
    return {name: _checked(name, settings.get(name, default), default) for name, default in defaults.items()}


def canonical(settings: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings that decide a head's result, complete, and without those that cannot matter.

    `precision` is there only where it is not the default, which trains as it did before there was a choice.
    Without an identity loss (alpha 0, id_rate 0, variants `original` and `f`) `i` is `original`, `if` is `f`,
    and alpha, gamma and id_rate are gone. An identity trunk is named where there is one and it is untrained. Raises
    ValueError for an unknown setting or a broken rule.
    """
    whole = complete(settings, HEAD_DEFAULTS)
    if whole["precision"] == HEAD_DEFAULTS["precision"]:
        del whole["precision"]
    if whole["variant"] in ("original", "f") or whole["alpha"] == 0 or whole["id_rate"] == 0:
        whole["variant"] = "f" if whole["variant"] in ("f", "if") else "original"
        whole = {name: value for name, value in whole.items() if name not in IDENTITY_LOSS}
    if whole["identity_trunk"] == "trained" or "identity" not in tasks(str(whole["variant"])):
        del whole["identity_trunk"]
    return whole


def tasks(variant: str) -> tuple[str, ...]:
    """The trunks a variant reads, in the order in which their features are stacked (paper Eq. 1)."""
    return TASKS if variant in ("f", "if") else TASKS[:1]


def trunk_recipe(
    task: str, architecture: Mapping[str, Any], settings: Mapping[str, Any], data_id: str
) -> dict[str, Setting]:
    """All that decides a trunk's weights; `content_id` of it is the `trunk_id`.

    `architecture` are a head's settings; a head that wants an untrained identity trunk gets one of no epochs.
    """
    untrained = task == "identity" and architecture.get("identity_trunk") == "untrained"
    return {
        "recipe": TRUNK_RECIPE,
        "task": task,
        "data_id": data_id,
        **{name: architecture[name] for name in ARCHITECTURE},
        **complete(settings, TRUNK_DEFAULTS[task]),
        **({"epochs": 0} if untrained else {}),
    }


def _checked(name: str, value: Any, default: Setting) -> Setting:
    holds, rule = _rules[name]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{name} must be {rule}, got {value!a:.60}")
    if not holds(value):
        raise ValueError(f"{name} must be {rule}, got {value!a:.60}")
    return value + 0.0 if isinstance(value, float) else value  # -0.0 and 0.0 are one value
