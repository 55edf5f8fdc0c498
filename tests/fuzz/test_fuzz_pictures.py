"""Hostile pictures, videos, records and checkpoints: each is read as it was written, or named with a reason."""

import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from bounds import Memory, bounded, damaged, each_count, each_seed
from layouts import picture, record, write_records

from idennet_core import checkpoint, sealing
from idennet_core.datasets import casia_webface, clips, preparation
from idennet_core.datasets.pictures import MAX_PIXELS, decode, size_of
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.recordio import RecordFile
from idennet_core.datasets.workers import Workers
from orchestrator.store import Store

UNFORESEEN = ("it cannot be processed", "it takes")  # reasons that nobody wrote for such a file


def samples():
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (40, 50, 3), np.uint8)
    ways = {
        ".jpg": [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3]],
        ".png": [[], [cv2.IMWRITE_PNG_COMPRESSION, 0]],
    }
    for suffix, options in ways.items():
        for option in options:
            yield cv2.imencode(suffix, colour, option)[1].tobytes()
    yield cv2.imencode(".png", colour[..., 0])[1].tobytes()
    yield cv2.imencode(".png", colour.astype(np.uint16) * 257)[1].tobytes()
    yield cv2.imencode(".png", np.dstack([colour, colour[..., :1]]))[1].tobytes()


SAMPLES = list(samples())


def hostile(rng):
    """A picture's bytes: damaged, or with another size in the header that its checksum confirms."""
    content = SAMPLES[rng.integers(len(SAMPLES))]
    if rng.random() < 0.3:
        size = [int(rng.choice([0, 1, 51, 1000, 8000, 65535, 2**31 - 1])) for _ in range(2)]
        if content.startswith(b"\x89PNG"):
            header = b"IHDR" + struct.pack(">II", *size) + content[24:29]
            content = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
        else:
            at = next(i for i in range(2, len(content)) if content[i] == 0xFF and 0xC0 <= content[i + 1] <= 0xC2)
            content = content[: at + 5] + struct.pack(">HH", *(s & 0xFFFF for s in size)) + content[at + 9 :]
        if rng.random() < 0.5:
            return content
    return damaged(content, rng)


@each_count
def test_a_hostile_picture_is_a_face_of_the_size_in_its_header_or_has_a_reason(cases):
    def work(seed):
        content = hostile(np.random.default_rng(seed))

        def read(_):
            pixels = decode(content)
            announced = size_of(content)
            assert announced[0] * announced[1] <= MAX_PIXELS
            assert sorted(pixels.shape[:2]) == sorted(announced), "the decoder saw another size than the header's"
            return pixels

        found = preparation._face(SimpleNamespace(read=read), None, SimpleNamespace(source="hostile.png"))
        return found if isinstance(found, str) else found[0].shape

    memory = Memory()
    with Workers(work) as workers:
        for seed, found in enumerate(workers.map([range(s, s + 50) for s in range(0, cases, 50)])):
            assert found == (80, 80) or (isinstance(found, str) and not found.startswith(UNFORESEEN)), (seed, found)
    memory.check()


@each_count
def test_hostile_records_are_pictures_or_have_a_reason(tmp_path, cases):
    encoded = [picture(i, 112, 112, ".jpg") for i in range(3)]
    images = [record(i // 2, encoded[i - 1], i) for i in range(1, 4)]
    write_records(tmp_path, [record(0, labels=(4, 6)), *images, record(0, labels=(1, 3)), record(1, labels=(3, 4))])
    files = {name: (tmp_path / name).read_bytes() for name in ("train.rec", "train.idx")}
    sound = {p.source: casia_webface.scan(tmp_path).read(p) for p in casia_webface.scan(tmp_path).pictures}
    assert len(sound) == 3

    def check(rng):
        for name, content in files.items():
            changed = rng.random() < 0.6
            (tmp_path / name).write_bytes(damaged(content, rng) if changed else content)
        try:
            scan = casia_webface.scan(tmp_path)
        except (ValueError, FileNotFoundError):
            return
        assert all(skipped.reason for skipped in scan.skipped)
        for face in scan.pictures:
            found = preparation._face(scan, None, face)
            assert isinstance(found, str) or found[0].shape == (80, 80)

    each_seed(cases, check)


def test_a_record_of_endless_parts_is_refused_at_once(tmp_path):
    parts = [struct.pack("<II", 0xCED7230A, (1 << 29) if i == 0 else (2 << 29)) for i in range(200_000)]
    write_records(tmp_path, [record(0, labels=(2, 2)), record(0, picture("a", 112, 112, ".jpg"), 1)])
    whole = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(whole + b"".join(parts))
    with (
        RecordFile(tmp_path / "train.rec") as records,
        pytest.raises(ValueError, match="a record may have 1000 parts"),
    ):
        bounded(records.picture)(len(whole))


@each_count
def test_hostile_videos_are_frames_or_have_a_reason(tmp_path, cases):
    path = tmp_path / "S001-002.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for shade in range(12):
        writer.write(np.full((48, 64, 3), 20 * shade, np.uint8))
    writer.release()
    whole = path.read_bytes()
    assert clips.read_frame(tmp_path, Face("", "", "", "", "", f"{path.name}#middle2")).shape == (48, 64, 3)

    def work(seed):
        own = tmp_path / f"{seed}.avi"
        own.write_bytes(damaged(whole, np.random.default_rng(seed)))
        face = Face("", "", "", "", "", f"{own.name}#middle2")
        found = preparation._face(SimpleNamespace(read=lambda face: clips.read_frame(tmp_path, face)), None, face)
        own.unlink()
        return found if isinstance(found, str) else found[0].shape

    with Workers(work) as workers:
        for seed, found in enumerate(workers.map([range(s, s + 20) for s in range(0, cases, 20)])):
            assert found == (80, 80) or (isinstance(found, str) and not found.startswith(UNFORESEEN)), (seed, found)


def test_a_list_of_other_files_is_no_video(tmp_path):
    """FFmpeg goes by content: a playlist would be opened, and what it names after it."""
    inner = tmp_path / "inner.avi"
    writer = cv2.VideoWriter(str(inner), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    lists = {
        "concat": f"ffconcat version 1.0\nfile {inner.name}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{inner.name}\n#EXT-X-ENDLIST\n",
    }
    for name, text in lists.items():
        (tmp_path / f"{name}.avi").write_text(text)
        with pytest.raises(ValueError, match="not a readable video"):
            clips.read_frame(tmp_path, Face("", "", "", "", "", f"{name}.avi#middle1"))


@each_count
def test_a_damaged_checkpoint_is_read_as_it_was_written_or_refused(tmp_path, cases):
    place = Store(tmp_path).open()
    path = place.checkpoints / f"pack-{'a' * 32}.00001.safetensors"
    tensors = {"a" * 32 + "/weight": torch.arange(60.0).reshape(3, 20), "b": torch.ones(4, dtype=torch.int64)}
    words = {"epoch": "1", "trials": f'["{"c" * 32}"]', "curves": "{}", "failures": "{}", "left": "[]", "rungs": ""}
    checkpoint.save(path, tensors, words)
    whole = path.read_bytes()
    assert place.checkpointed() == {"c" * 32: (1, path)}

    def check(rng):
        path.write_bytes(damaged(whole, rng))
        try:
            found, said = checkpoint.load(path)
        except (sealing.Damaged, FileNotFoundError):
            pass
        else:
            assert said == words
            assert found.keys() == tensors.keys()
            assert all(torch.equal(found[name], tensors[name]) for name in tensors)
        assert place.checkpointed() in ({}, {"c" * 32: (1, path)})

    each_seed(cases, check)


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("shape", [[2**62], [2**31, 2**31], [-1], [0, 2**60]])
def test_a_header_that_lies_takes_no_memory(tmp_path, length, shape):
    header = f'{{"w": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, {2**60}]}}}}'.encode()
    path = tmp_path / "pack-x.00001.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header + bytes(100))
    memory = Memory()
    with pytest.raises(sealing.Damaged):
        checkpoint.load(path)
    memory.check()
