"""What a face is drawn with: a patch in face units, curves, soft layers, and the view that makes a picture of it."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]
Point = tuple[float, float]

UNIT = 32  # patch pixels
LEFT, TOP, RIGHT, BOTTOM = -4.0, -4.0, 4.0, 5.0  # the patch, units
WIDTH, HEIGHT = int((RIGHT - LEFT) * UNIT), int((BOTTOM - TOP) * UNIT)
COARSE = 2  # patch pixels to a cell of the relief
SHIFT = 4  # fractional bits of OpenCV's polygon corners
GRAIN_ZERO, GRAIN_STEP = 128, 32  # noise as a picture: its mean and its standard deviation


@dataclass(frozen=True)
class View:
    """How a face is seen: angles in degrees, lengths in pixels of the picture, grey levels 0..255."""

    size: tuple[int, int]  # width, height
    unit: float  # pixels
    centre: tuple[float, float]  # of the point midway between the eyes
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    light: tuple[float, float] = (-0.2, -0.3)  # direction the light comes from, x and y
    gain: float = 1.0
    background: float = 120.0
    clothes: float = 70.0
    grain: float = 3.0  # standard deviation of the noise
    noise: int = 0  # which noise


@cache
def _noise_tile() -> Picture:
    normal = np.random.Generator(np.random.Philox(key=0)).standard_normal((700, 700), dtype=np.float32)
    return np.clip(GRAIN_ZERO + GRAIN_STEP * normal, 0, 255).astype(np.uint8)


def grain(which: int, height: int, width: int) -> Picture:
    """Noise [height, width] cut from one tile, since fresh normal numbers cost more than the face."""
    tile = _noise_tile()
    if max(height, width) >= len(tile):
        tile = np.tile(tile, (2, 2))
    y, x = which % (tile.shape[0] - height), which // 1009 % (tile.shape[1] - width)
    return tile[y : y + height, x : x + width]


@cache
def spline(num_points: int, closed: bool, samples: int) -> Floats:
    """Catmull-Rom weights, [segments * samples (+ 1 when open), num_points], of a curve through its control points."""
    segments = num_points if closed else num_points - 1
    t = np.linspace(0, 1, samples, endpoint=False)[:, None] ** np.arange(4)
    basis = t @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    weights = np.zeros((segments * samples, num_points))
    for segment in range(segments):
        for k in range(4):
            at = segment + k - 1
            at = at % num_points if closed else min(max(at, 0), num_points - 1)
            weights[segment * samples : (segment + 1) * samples, at] += basis[:, k]
    return weights if closed else np.vstack([weights, np.eye(num_points)[-1]])


def curve(points: ArrayLike, closed: bool = False, samples: int = 6) -> Floats:
    """A smooth curve [M, 2] through points [N, 2]."""
    controls = np.asarray(points, dtype=np.float64)
    points_on_it: Floats = spline(len(controls), closed, samples) @ controls
    return points_on_it


@cache
def _circle(num_points: int) -> Floats:
    t = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def ellipse(centre: Point | Floats, rx: float, ry: float, num_points: int = 24) -> Floats:
    """The corners [num_points, 2] of an ellipse."""
    points: Floats = _circle(num_points) * np.array([rx, ry]) + np.asarray(centre)
    return points


def moved(points: Floats, x: float, y: float) -> Floats:
    """Points [N, 2] shifted by x and y."""
    shifted: Floats = points + np.array([x, y])
    return shifted


def path(*numbers: float) -> Floats:
    """Points [N, 2] from x, y, x, y, …"""
    return np.reshape(numbers, (-1, 2))


def between(edge: Floats, other: Floats) -> Floats:
    """The polygon between two curves that run the same way."""
    return np.vstack([edge, other[::-1]])


def mirror(half: Floats) -> Floats:
    """A closed outline from its left half, listed from the top of the middle line down to the bottom of it."""
    return np.vstack([half, (half * np.array([-1, 1]))[-2:0:-1]])


@cache
def coarse_grid() -> tuple[Floats, Floats]:
    """The relief's x and y, [1, W] and [1, H], units."""
    cell = COARSE / UNIT
    return np.arange(LEFT + cell / 2, RIGHT, cell)[None], np.arange(TOP + cell / 2, BOTTOM, cell)[None]


def refined(coarse: NDArray[np.floating]) -> Picture:
    """Coarse cells as a whole patch."""
    cells = np.clip(coarse, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(cells, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)


def blend(under: Picture, over: Picture, mask: Picture) -> None:
    """Put `over` on `under`, in place, where `mask` (0..255) says how much."""
    weight = mask.astype(np.float32) * np.float32(1 / 255)
    under[...] = cv2.blendLinear(over, under, weight, 1 - weight)


def photograph(patch: Picture, points: Floats, view: View) -> tuple[Picture, Floats]:
    """Carry the patch and its points into the picture, then light and grain."""
    scale = view.unit / UNIT
    small, shrink = cv2.blur(patch, (3, 3)), 1.0  # as sharp as a lens
    while scale * shrink < 0.6:  # averages before sampling, so that small pictures do not alias
        small, shrink = cv2.pyrDown(small), shrink * 2
    angle = np.deg2rad(view.roll)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.array(view.centre) - turn @ (np.array([-LEFT, -TOP]) * UNIT)
    matrix = np.hstack([turn * shrink, offset[:, None]])
    border = cv2.BORDER_REPLICATE  # the background and the shoulders go on
    picture = cv2.warpAffine(small, matrix, view.size, flags=cv2.INTER_LINEAR, borderMode=border)
    width, height = view.size
    share = view.grain / GRAIN_STEP
    noise = grain(view.noise, height, width)
    lit = cv2.addWeighted(picture, view.gain, noise, share, -GRAIN_ZERO * share)
    return np.asarray(lit, np.uint8), points @ turn.T + offset


def strands(grey: float, which: int, light_x: float) -> Picture:
    """Hair over the whole patch: darker towards the sides, streaked from the crown down."""
    x, y = coarse_grid()
    streaks = cv2.resize(grain(which, 9, 64), (x.size, y.size)).astype(np.float64)
    streaks = (streaks - GRAIN_ZERO) / GRAIN_STEP
    sheen = np.exp(-((y.T + 2.6) ** 2) / 0.25) * np.exp(-((x - 2 * light_x) ** 2) / 2)
    return refined(grey * (1 - 0.0125 * x**2 + 0.10 * streaks) + 22 * sheen + 3 * streaks)
