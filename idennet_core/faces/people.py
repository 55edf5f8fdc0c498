"""Drawn people: their visible traits, their face at rest, and how they perform an expression."""

from dataclasses import dataclass

import numpy as np

from idennet_core.faces.sketching import Floats
from idennet_core.streams import generator

ACTIONS = (
    "inner_brow_raise",
    "outer_brow_raise",
    "brow_lower",
    "lid_raise",
    "lid_tighten",
    "nose_wrinkle",
    "upper_lip_raise",
    "cheek_raise",
    "corner_pull",
    "corner_depress",
    "lip_stretch",
    "lip_press",
    "chin_raise",
    "jaw_drop",
)
HAIR_STYLES = ("bald", "short", "parted", "fringe", "long", "curly")
BEARDS = ("none", "moustache", "stubble", "full")
TRAITS = (
    *("face_width", "face_length", "jaw_width", "hollow_cheeks", "eye_spacing", "eye_width", "iris"),
    *("brow_thickness", "brow_length", "nose_width", "nose_length", "lip_shade", "ears", "hairline"),
)
# Full facial actions of each expression, after the action units that FACS-based coding expects for it.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "anger": {
        "brow_lower": 1.0,
        "lid_raise": 0.3,
        "lid_tighten": 0.8,
        "lip_press": 0.9,
        "chin_raise": 0.5,
        "nose_wrinkle": 0.15,
    },
    "disgust": {
        "nose_wrinkle": 1.0,
        "upper_lip_raise": 0.9,
        "brow_lower": 0.6,
        "lid_tighten": 0.6,
        "cheek_raise": 0.4,
        "corner_depress": 0.3,
    },
    "fear": {
        "inner_brow_raise": 1.0,
        "outer_brow_raise": 0.5,
        "brow_lower": 0.45,
        "lid_raise": 1.0,
        "lip_stretch": 0.9,
        "jaw_drop": 0.4,
    },
    "happiness": {"cheek_raise": 0.9, "corner_pull": 1.0, "lid_tighten": 0.3, "jaw_drop": 0.12},
    "sadness": {
        "inner_brow_raise": 0.9,
        "brow_lower": 0.45,
        "corner_depress": 1.0,
        "chin_raise": 0.6,
        "lid_raise": -0.4,
    },
    "surprise": {"inner_brow_raise": 1.0, "outer_brow_raise": 1.0, "lid_raise": 0.85, "jaw_drop": 1.0},
    "contempt": {"corner_pull": 0.7, "lip_press": 0.4, "cheek_raise": 0.3, "lid_tighten": 0.2},
}
CONFUSED_WITH = {
    "anger": "disgust",
    "disgust": "anger",
    "fear": "surprise",
    "happiness": "contempt",
    "sadness": "anger",
    "surprise": "fear",
    "contempt": "neutral",
    "neutral": "sadness",
}
# The resting face at identity effect 1: how far each visible trait, from -1 to 1, shifts an action.
RESTING: dict[str, dict[str, float]] = {
    "inner_brow_raise": {"eye_spacing": 0.4, "brow_thickness": -0.3},
    "outer_brow_raise": {"brow_thickness": -0.3, "face_length": 0.3},
    "brow_lower": {"brow_thickness": 0.5},
    "lid_raise": {"eye_width": 0.4},
    "lid_tighten": {"face_width": 0.4},
    "nose_wrinkle": {"nose_width": 0.3},
    "upper_lip_raise": {"nose_length": -0.4},
    "corner_pull": {"jaw_width": 0.3},
    "corner_depress": {"face_length": 0.3, "jaw_width": -0.2},
    "lip_stretch": {"jaw_width": 0.4},
    "lip_press": {"lip_shade": 0.4},
}


@dataclass(frozen=True)
class Person:
    """The traits of one drawn person; those without a stated range run from -1 to 1, 0 being average.

    No trait sets what the facial actions set (brow height, lid opening, furrows, the mouth's width, corners and
    lips): at identity effect 0 these must say nothing about the person.
    """

    face_width: float = 0.0
    face_length: float = 0.0
    jaw_width: float = 0.0
    hollow_cheeks: float = 0.0
    eye_spacing: float = 0.0
    eye_width: float = 0.0
    iris: float = 0.0
    brow_thickness: float = 0.0
    brow_length: float = 0.0
    nose_width: float = 0.0
    nose_length: float = 0.0
    lip_shade: float = 0.0
    ears: float = 0.0
    hairline: float = 0.0
    skin: float = 175.0  # grey level
    hair: float = 50.0  # grey level
    hair_style: str = "short"
    beard: str = "none"
    glasses: bool = False
    texture: int = 0  # which hair


def person_of(dataset: str, seed: int, subject: int) -> Person:
    """The traits of a data set's person number `subject`, from 0."""
    rng = generator("synth", seed, dataset, "subject", subject)
    traits = dict(zip(TRAITS, rng.uniform(-1, 1, len(TRAITS)).tolist(), strict=True))
    hair_style = str(rng.choice(HAIR_STYLES, p=[0.08, 0.27, 0.20, 0.15, 0.20, 0.10]))
    beard = str(rng.choice(BEARDS, p=[0.70, 0.09, 0.12, 0.09]))
    return Person(
        **traits,
        skin=float(rng.uniform(115, 210)),
        hair=float(rng.choice([30, 55, 95, 150], p=[0.4, 0.3, 0.2, 0.1]) * rng.uniform(0.8, 1.2)),
        hair_style=hair_style,
        beard="none" if hair_style == "long" else beard,
        glasses=bool(rng.random() < 0.15),
        texture=int(rng.integers(1 << 30)),
    )


def resting_actions(person: Person, identity_effect: float) -> Floats:
    """The facial actions [2, len(ACTIONS)] of a person's face at rest, all 0 at identity effect 0."""
    one_side = [
        sum(weight * getattr(person, trait) for trait, weight in RESTING.get(action, {}).items()) for action in ACTIONS
    ]
    rest: Floats = identity_effect * np.array([one_side, one_side])
    return rest


def full_actions(expression: str) -> Floats:
    """The facial actions [2, len(ACTIONS)] of an expression at full strength; contempt is on the left side alone."""
    actions = np.array([[EXPRESSIONS[expression].get(action, 0.0) for action in ACTIONS]] * 2)
    if expression == "contempt":
        actions[0] = 0.0
    return actions


def performed_actions(expression: str, style: np.random.Generator, rng: np.random.Generator) -> Floats:
    """How somebody performs an expression at the peak, [2, len(ACTIONS)]: weaker, mixed with another, uneven.

    `style` is a stream of the person's habits with this expression, `rng` one of this performance. The
    resting face is not in it.
    """
    habit = np.exp(style.normal(0, 0.20, len(ACTIONS)))
    strength = style.uniform(0.8, 1.2) + rng.normal(0, 0.05)
    confused = style.beta(1.2, 2.4) * 0.5
    actions = (1 - confused) * full_actions(expression) + confused * full_actions(CONFUSED_WITH[expression])
    uneven = 1 + style.normal(0, 0.12, (2, 1)) + rng.normal(0, 0.06, (2, 1))
    noise = style.normal(0, 0.06, len(ACTIONS)) + rng.normal(0, 0.05, (2, len(ACTIONS)))
    performed: Floats = strength * habit * uneven * actions + noise
    return performed
