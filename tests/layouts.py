"""Small data sets in the real layouts, with pictures that show nothing, for tests of what reads them."""

import csv
import io
import re
import struct

import cv2
import numpy as np

from idennet_core.datasets import oulu_casia
from idennet_core.streams import generator

FER_COLUMNS = (
    *("Usage", "Image name", "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)


def picture(name, height=120, width=160, suffix=".png"):
    """An encoded picture without a face, another one for every name."""
    pixels = generator("picture", str(name)).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.imencode(suffix, cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def oulu_tree(root, subjects=10, frames=4, light="VL"):
    """Oulu-CASIA's layout."""
    for subject in range(1, subjects + 1):
        for expression in oulu_casia.CLASSES:
            folder = root / f"{light}/Strong/P{subject:03d}/{expression.capitalize()}"
            folder.mkdir(parents=True)
            for frame in range(frames):
                (folder / f"{frame:03d}.jpeg").write_bytes(picture((subject, expression, frame), suffix=".jpeg"))
    return root


def votes(**counts):
    """Ten votes in the order of the tables."""
    return tuple(counts.get(column, 0) for column in FER_COLUMNS[2:])


def fer_tables(root, ballots):
    """The two tables of FER+ from (usage, name, votes); every pixel of a row is the row's number."""
    pixels = [(0, " ".join([str(i)] * 2304), usage) for i, (usage, _, _) in enumerate(ballots)]
    write_csv(root / "fer2013.csv", [("emotion", "pixels", "Usage"), *pixels])
    write_csv(root / "fer2013new.csv", [FER_COLUMNS, *((usage, name, *counts) for usage, name, counts in ballots)])
    return root


def fer_folders(root, ballots):
    """The folders of FER+ from (folder, name, votes), with a picture a row whose every pixel is the row's number."""
    for folder in ("FER2013Train", "FER2013Valid", "FER2013Test"):
        (root / folder).mkdir()
        rows = [(name, "(0, 0, 48, 48)", *counts) for place, name, counts in ballots if place == folder]
        write_csv(root / folder / "label.csv", rows)
    for i, (folder, name, _) in enumerate(ballots):
        (root / folder / name).write_bytes(cv2.imencode(".png", np.full((48, 48), i, np.uint8))[1].tobytes())
    return root


def write_csv(path, rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    path.write_text(text.getvalue(), newline="")


def record(label, encoded=b"", key=0, labels=()):
    """The payload of a record."""
    return struct.pack(f"<IfQQ{len(labels)}f", len(labels), label, key, 0, *labels) + encoded


def write_records(root, payloads):
    """`train.rec`, `train.idx` and `property` of payloads, their keys being their places in the list.

    As the format asks, a payload that holds the magic at a multiple of four is cut there. Gives the offsets.
    """
    magic = struct.pack("<I", 0xCED7230A)
    root.mkdir(parents=True, exist_ok=True)
    content, offsets = bytearray(), []
    for payload in payloads:
        offsets.append(len(content))
        cuts = [found.start() for found in re.finditer(magic, payload) if found.start() % 4 == 0]
        parts = [payload[a:b] for a, b in zip([0, *(at + 4 for at in cuts)], [*cuts, len(payload)], strict=True)]
        for i, part in enumerate(parts):
            flag = 0 if len(parts) == 1 else 1 if i == 0 else 3 if i == len(parts) - 1 else 2
            content += magic + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)
    (root / "train.rec").write_bytes(content)
    (root / "train.idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets)))
    (root / "property").write_text("2,112,112")
    return offsets


def reasons(skipped):
    return {entry.source: entry.reason for entry in skipped}
