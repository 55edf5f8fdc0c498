"""Pictures that are not what they seem: cut off, changed, or larger than their files tell."""

import csv
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from layouts import picture

from idennet_core.datasets import casia_webface, prepared
from idennet_core.datasets.pictures import size_of
from idennet_core.datasets.preparation import prepare

UNREADABLE = "not a readable picture: empty, cut off or of another format"


def png(width, height, size=None):
    """A PNG header that announces a size, and as much of a picture as is asked for."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * height if size is None else size))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("keep", [0, 1, 20, 0.3, 0.7, 0.99])
def test_a_picture_cut_off_anywhere_is_named(tmp_path, suffix, keep):
    (tmp_path / "set/0000045").mkdir(parents=True)
    whole = picture("whole", suffix=suffix)
    (tmp_path / f"set/0000045/001{suffix}").write_bytes(whole)
    cut = whole[: keep if isinstance(keep, int) else int(keep * len(whole))]
    (tmp_path / f"set/0000045/002{suffix}").write_bytes(cut)
    result = prepare(casia_webface.scan(tmp_path / "set"), tmp_path / "store/casia-webface", None, {})
    assert result.metadata["num_faces"] == 1
    assert result.metadata["skipped"] == [{"reason": UNREADABLE, "count": 1, "sources": [f"0000045/002{suffix}"]}]


def test_a_huge_picture_is_refused_by_its_header_before_it_is_decoded(tmp_path):
    jpeg = bytearray(picture("large", suffix=".jpg"))
    at = next(i for i in range(len(jpeg)) if jpeg[i] == 0xFF and 0xC0 <= jpeg[i + 1] <= 0xC2)
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    files = {
        "001.jpg": bytes(jpeg),
        "002.png": png(100_000, 100_000, size=1000),
        "003.png": png(8001, 8000, size=1000),
        "004.png": png(640, 490),
    }
    (tmp_path / "set/0000045").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "set/0000045" / name).write_bytes(content)
    with (tmp_path / "set/0000045/005.jpg").open("wb") as file:
        file.truncate(300 * 2**20)  # a hole on the disk
    (tmp_path / "set/0000045/006.jpg").symlink_to("nowhere.jpg")
    result = prepare(casia_webface.scan(tmp_path / "set"), tmp_path / "store/casia-webface", None, {})
    assert {source: s["reason"] for s in result.metadata["skipped"] for source in s["sources"]} == {
        "0000045/001.jpg": "a picture may have 64 megapixels, but this has 65500x65500 pixels",
        "0000045/002.png": "a picture may have 64 megapixels, but this has 100000x100000 pixels",
        "0000045/003.png": "a picture may have 64 megapixels, but this has 8001x8000 pixels",
        "0000045/005.jpg": "a picture's file may have 256 MiB, but this has more",
        "0000045/006.jpg": "cannot be read: No such file or directory",
    }
    assert result.metadata["num_faces"] == 1


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3]])
def test_the_size_in_the_header_is_the_size_of_the_decoded_picture(options):
    encoded = cv2.imencode(".jpg", np.zeros((123, 77, 3), np.uint8), options)[1].tobytes()
    for before in (b"", b"\xff\xe1\x10\x00" + b"\xff\xc0" * 2047, b"\xff\xff\xfe\x00\x04ab"):
        commented = encoded[:2] + before + encoded[2:]
        decoded = cv2.imdecode(np.frombuffer(commented, np.uint8), cv2.IMREAD_COLOR)
        assert size_of(commented) == decoded.shape[1::-1] == (77, 123)
    assert size_of(cv2.imencode(".png", np.zeros((5, 9), np.uint8))[1].tobytes()) == (9, 5)


@pytest.mark.parametrize("bare", [b"\xff\xd0", b"\xff\x01", b"\xff\xd8", b"\xff\xd9"])
def test_a_header_cannot_hide_behind_a_marker_that_the_decoder_passes_over(bare):
    """Read as if a length followed, such a marker leads past the true frame to another that is small."""
    encoded = cv2.imencode(".jpg", np.zeros((123, 77, 3), np.uint8))[1].tobytes()
    small = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 8, 8) + bytes(20)
    with pytest.raises(ValueError, match="not a readable picture"):
        size_of(encoded[:2] + bare + b"\x00\x02" + small + encoded[2:])


@pytest.mark.parametrize("seed", range(3))
def test_noise_in_a_picture_costs_that_picture_alone(tmp_path, seed):
    """Bytes are changed at random: whatever comes of it, there is a face or a reason for every file."""
    rng = np.random.default_rng(seed)
    (tmp_path / "set/0000045").mkdir(parents=True)
    for i in range(60):
        suffix = (".jpg", ".png")[i % 2]
        content = np.frombuffer(picture(i, 40, 50, suffix), np.uint8).copy()
        places = rng.integers(0, len(content), 1 + i // 4)
        content[places] = rng.integers(0, 256, len(places))
        (tmp_path / f"set/0000045/{i:03d}{suffix}").write_bytes(content.tobytes())
    (tmp_path / "set/0000045/060.png").write_bytes(picture("whole"))
    result = prepare(casia_webface.scan(tmp_path / "set"), tmp_path / "store/casia-webface", None, {})
    assert result.metadata["num_faces"] + sum(s["count"] for s in result.metadata["skipped"]) == 61
    assert all(s["reason"] for s in result.metadata["skipped"])


ODD_NAMES = ["a\rb", "c\r\nd", "e\nf", "g\th", "\x1b[31mi", 'j"k,;', "=1+1", " ", "caf\u00e9", "cafe\u0301", "\u202el"]


def test_any_name_that_is_text_comes_back_from_the_index_as_it_was(tmp_path):
    (tmp_path / "set/0000045").mkdir(parents=True)
    for name in ODD_NAMES:
        (tmp_path / f"set/0000045/{name}.png").write_bytes(picture(name))
    result = prepare(casia_webface.scan(tmp_path / "set"), tmp_path / "store/casia-webface", None, {})
    assert result.metadata["skipped"] == []
    loaded = prepared.load(tmp_path / "store/casia-webface")
    assert sorted(loaded.frame) == sorted(ODD_NAMES)
    assert sorted(loaded.source) == sorted(f"0000045/{name}.png" for name in ODD_NAMES)
    with (tmp_path / "store/casia-webface/faces.csv").open(newline="", encoding="utf-8") as file:
        assert {row["source"] for row in csv.DictReader(file)} == set(loaded.source)


def test_a_picture_whose_name_is_not_utf8_is_named_and_the_index_stays_utf8(tmp_path):
    (tmp_path / "set/0000045").mkdir(parents=True)
    for name in (b"caf\xe9.png", b"\xff.png", b"whole.png"):
        (tmp_path / "set/0000045" / os.fsdecode(name)).write_bytes(picture(name))
    result = prepare(casia_webface.scan(tmp_path / "set"), tmp_path / "store/casia-webface", None, {})
    (skipped,) = result.metadata["skipped"]
    assert skipped["reason"] == "its name is not UTF-8, as tables of results must be: rename it"
    assert sorted(map(os.fsencode, skipped["sources"])) == [b"0000045/caf\xe9.png", b"0000045/\xff.png"]
    (tmp_path / "store/casia-webface/faces.csv").read_text(encoding="utf-8")
    assert prepared.load(tmp_path / "store/casia-webface").frame.tolist() == ["whole"]
