"""Class-activation maps: where in a face a network finds its expression (paper Fig. 4, 5 and 7).

The classifier is linear in the mean over the maps after the fusion dense block, so a logit splits exactly into
shares of the 12 x 12 places; no gradient is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idennet_core.config import CROP_SIZE
from idennet_core.faces.augmentation import CENTRE, Pictures, faces_only
from idennet_core.inference import Network, images_of

TILE, GAP, LINE, LEFT = 96, 10, 20, 132  # pixels: a picture, between two, a line of text, the row labels
INK, GREY, WRONG = (34, 34, 34), (120, 120, 120), (32, 32, 200)  # BGR, like all colours here
FOR, AGAINST = np.array([35, 55, 215], np.float32), np.array([190, 105, 30], np.float32)  # red, blue
OPACITY = 0.8  # of the largest share
FONT, TEXT = "sans", 13


@dataclass(frozen=True)
class Reading:
    """What a network makes of a face: the map [12, 12] of one class, its most probable class, and whether it is so."""

    map: NDArray[np.float32]
    predicted: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Block:
    """Rows of a figure that share their faces [48, 48], one a column; None where there is no such picture.

    `rows` are a network each: the lines of its label, and its readings of the faces.
    """

    label: Sequence[str]
    faces: Sequence[Pictures | None]
    rows: Sequence[tuple[Sequence[str], Sequence[Reading | None]]]


@torch.inference_mode()
def class_maps(network: Network, images: Tensor) -> Tensor:
    """Maps [B, classes, 12, 12] of images [B, 1, 48, 48]; a class's mean over its map plus its bias is its logit."""
    return torch.einsum("kc,bchw->bkhw", network.head.emotion.weight, network.maps(images))


def read(
    network: Network, stored: Pictures, classes: Sequence[str], labels: Sequence[str], of_label: bool
) -> list[Reading]:
    """The network's readings of stored faces [N, 80, 80]: maps of the predicted classes, or of the `labels`."""
    maps = class_maps(network, images_of(stored))
    probabilities = torch.softmax(maps.mean((2, 3)) + network.head.emotion.bias, 1)
    readings = []
    for picture, label in enumerate(labels):
        best = int(probabilities[picture].argmax())
        shown = classes.index(label) if of_label else best
        readings.append(
            Reading(
                maps[picture, shown].numpy(),
                classes[best],
                float(probabilities[picture, best]),
                classes[best] == label,
            )
        )
    return readings


def crop_of(stored: Pictures) -> Pictures:
    """What the network sees of a stored face [80, 80]: its centre crop [48, 48]."""
    inside = slice(CENTRE, CENTRE + CROP_SIZE)
    return faces_only(stored[None])[0, inside, inside]


def overlay(face: Pictures, map_: NDArray[np.float32]) -> Pictures:
    """A face [48, 48] under its map [12, 12], BGR [TILE, TILE, 3]: red speaks for the class, blue against it.

    Colour grows evenly with a place's share, from none at 0; the map's largest share, of either sign, is full colour.
    """
    largest = max(float(np.abs(map_).max()), float(np.finfo(np.float32).tiny))
    share = np.clip(_enlarged(map_) / largest, -1, 1)[..., None]  # cubic interpolation may overshoot
    colour = np.where(share > 0, FOR, AGAINST)
    opacity = OPACITY * np.abs(share)
    return np.asarray(np.rint(_enlarged(face)[..., None] * (1 - opacity) + colour * opacity), np.uint8)


def figure(heading: Sequence[str], columns: Sequence[str], blocks: Sequence[Block], caption: Sequence[str]) -> Pictures:
    """The whole figure, BGR [height, width, 3]: a column an expression; per block the faces, then a row a network.

    The prediction stands under each map; a cross marks one that is wrong.
    """
    lefts = [GAP + LEFT + index * (TILE + GAP) for index in range(len(columns))]
    width = max(lefts[-1] + TILE, *(GAP + _width(text) for text in (*heading, *caption))) + GAP
    row = TILE + LINE + GAP // 2
    height = LINE * (len(heading) + len(caption) + 3) + sum(TILE + row * len(block.rows) + 2 * LINE for block in blocks)
    sheet = np.full((height, width, 3), 255, np.uint8)
    top = LINE // 2
    for index, text in enumerate(heading):
        _write(sheet, text, (GAP, top), weight=700 if index == 0 else 400)
        top += LINE
    top += LINE // 2
    for left, name in zip(lefts, columns, strict=True):
        _write(sheet, name, (_centred(name, left), top), weight=600)
    top += LINE
    for block in blocks:
        _label(sheet, block.label, top)
        for left, face in zip(lefts, block.faces, strict=True):
            if face is not None:
                sheet[top : top + TILE, left : left + TILE] = _enlarged(face)[..., None]
        top += TILE + GAP // 2
        for label, readings in block.rows:
            _label(sheet, label, top)
            for left, face, reading in zip(lefts, block.faces, readings, strict=True):
                if face is not None and reading is not None:
                    sheet[top : top + TILE, left : left + TILE] = overlay(face, reading.map)
                    _prediction(sheet, reading, left, top + TILE)
            top += row
        top += 2 * LINE - GAP // 2
    top -= LINE // 2
    _legend(sheet, top)
    for text in caption:
        top += LINE
        _write(sheet, text, (GAP, top), GREY)
    return sheet


def png(picture: Pictures) -> bytes:
    """The picture as a PNG file, in steps of 5 grey levels: half the bytes, and no eye sees it."""
    steps = np.asarray(np.rint(picture / 5) * 5, np.uint8)
    return bytes(cv2.imencode(".png", steps, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def _enlarged(picture: NDArray[Any]) -> NDArray[Any]:
    """A face or a map, smoothly enlarged to [TILE, TILE]."""
    return cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_CUBIC)


def _label(sheet: Pictures, lines: Sequence[str], top: int) -> None:
    """A row's label: its first line in bold, the others small and grey, centred on the height of a picture."""
    start = top + (TILE - LINE * len(lines)) // 2
    for index, text in enumerate(lines):
        first = index == 0
        _write(sheet, text, (GAP, start + LINE * index), INK if first else GREY, weight=600 if first else 400)


def _prediction(sheet: Pictures, reading: Reading, left: int, bottom: int) -> None:
    text = f"{reading.predicted} {reading.probability:.2f}"
    start = _centred(text, left)
    _write(sheet, text, (start, bottom + 1), INK if reading.right else WRONG)
    if not reading.right:
        cv2.drawMarker(sheet, (start - 9, bottom + 11), WRONG, cv2.MARKER_TILTED_CROSS, 7, 2, cv2.LINE_AA)


def _legend(sheet: Pictures, top: int) -> None:
    """The scale of colours, drawn as a map over an even face."""
    left, bar = GAP, LINE // 2
    _write(sheet, "against", (left, top))
    left += _width("against") + GAP
    even, slope = np.full((CROP_SIZE,) * 2, 235, np.uint8), np.tile(np.linspace(-1, 1, 12, dtype=np.float32), (12, 1))
    sheet[top + bar // 2 : top + bar // 2 + bar, left : left + TILE] = overlay(even, slope)[:bar]
    _write(sheet, "for the class", (left + TILE + GAP, top))


def _write(
    sheet: Pictures, text: str, at: tuple[int, int], colour: tuple[int, int, int] = INK, weight: int = 400
) -> None:
    """Write one line of text whose top left corner is `at`, (x, y)."""
    cv2.putText(sheet, text, (at[0], at[1] + 15), colour, cv2.FontFace(FONT), TEXT, weight)


def _width(text: str) -> int:
    """The pixels that a text takes when it is bold."""
    return int(cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace(FONT), TEXT, 700)[2])


def _centred(text: str, left: int) -> int:
    """Where a text begins that is centred on the picture at `left`."""
    return left + (TILE - _width(text)) // 2
