"""How prepared sets are made: whole or not at all, killed and resumed, from whatever is in the files."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import oulu_tree, picture, record, write_records
from test_prepared import bytes_of, generated

from idennet_core.datasets import casia_webface, oulu_casia, prepared
from idennet_core.datasets.preparation import from_landmarks, prepare
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.unfinished import Unfinished
from idennet_core.faces.alignment import TEMPLATE

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
UNREADABLE = "not a readable picture: empty, cut off or of another format"


def take_all(root):
    """A scan of every frame of Oulu-CASIA's layout, not the last three alone."""
    scan = oulu_casia.scan(root)
    pictures = [
        Face(path.parts[-3], path.parts[-2], "/".join(path.parts[-3:-1]), path.stem, "", str(path.relative_to(root)))
        for path in sorted(root.rglob("*.jpeg"))
    ]
    return replace(scan, pictures=pictures, files=[root / picture.source for picture in pictures])


def test_each_picture_that_cannot_be_used_is_listed_and_the_others_are_prepared(tmp_path):
    scan = oulu_casia.scan(oulu_tree(tmp_path / "root", subjects=1, frames=3))
    landmarks = {p.source: TEMPLATE for p in scan.pictures}
    empty, cut, gone, absent, flat = (scan.pictures[i] for i in (0, 4, 8, 12, 16))
    files = {p.source: tmp_path / "root" / p.source for p in scan.pictures}
    files[empty.source].write_bytes(b"")
    files[cut.source].write_bytes(files[cut.source].read_bytes()[:200])
    del landmarks[absent.source]
    landmarks[flat.source] = np.zeros((5, 2))
    files[gone.source].unlink()
    files[gone.source].mkdir()  # a folder with a picture's name
    seen = []
    result = prepare(
        scan,
        tmp_path / "store/oulu-casia",
        from_landmarks(landmarks),
        {"points": "landmarks"},
        progress=lambda *step: seen.append(step),
    )
    listed = {source: s["reason"] for s in result.metadata["skipped"] for source in s["sources"]}
    assert {s: r for s, r in listed.items() if s.endswith("jpeg")} == {
        empty.source: UNREADABLE,
        cut.source: UNREADABLE,
        gone.source: "cannot be read: Is a directory",
        absent.source: "no row in the landmarks file",
        flat.source: "the five points coincide or are not finite",
    }
    assert result.metadata["num_faces"] == 18 - 5
    assert seen == [(i, 18) for i in range(1, 19)]


def test_preparing_again_reads_no_picture_until_a_file_or_a_setting_changes(tmp_path):
    root = oulu_tree(tmp_path / "root", subjects=1, frames=3)
    place = tmp_path / "store/oulu-casia"

    def unread(picture):
        raise AssertionError("decoded again")

    first = prepare(oulu_casia.scan(root), place, None, {"points": "cropped"})
    again = prepare(replace(oulu_casia.scan(root), read=unread), place, None, {"points": "cropped"})
    assert (first.fresh, again.fresh) == (True, False)
    assert again.metadata == first.metadata
    os.utime(root / "VL/Strong/P001/Anger/000.jpeg", ns=(1, 1))
    touched = prepare(oulu_casia.scan(root), place, None, {"points": "cropped"})
    assert touched.fresh
    assert touched.metadata["data_id"] == first.metadata["data_id"]
    assert not prepare(oulu_casia.scan(root), place, None, {"points": "cropped"}).fresh
    (root / "VL/Strong/P001/Anger/000.jpeg").write_bytes(picture("new"))
    changed = prepare(oulu_casia.scan(root), place, None, {"points": "cropped"})
    assert changed.metadata["data_id"] != first.metadata["data_id"]


def test_a_set_without_any_usable_picture_is_refused_and_nothing_is_stored(tmp_path):
    scan = oulu_casia.scan(oulu_tree(tmp_path / "root", subjects=1, frames=3))
    with pytest.raises(ValueError, match=r"none of the 18 pictures of oulu-casia .* no row in the landmarks file"):
        prepare(
            replace(scan, skipped=[]),
            tmp_path / "store/oulu-casia",
            from_landmarks({}),
            {"points": "landmarks"},
        )
    assert list((tmp_path / "store").iterdir()) == []


# killed and resumed


def test_a_preparation_killed_at_any_picture_goes_on_and_gives_the_same_bytes(tmp_path):
    root = oulu_tree(tmp_path / "root", subjects=12, frames=12)
    next((root / "VL/Strong/P002/Fear").iterdir()).write_bytes(b"")
    whole = tmp_path / "whole/oulu-casia"
    scan = take_all(root)
    prepare(scan, whole, None, {"points": "cropped"})
    code = (
        "import os, signal, sys; from pathlib import Path; import test_preparation as t;"
        "at = int(sys.argv[3]);"
        "kill = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == at else None;"
        "t.prepare(t.take_all(Path(sys.argv[1])), Path(sys.argv[2]), None, {'points': 'cropped'}, progress=kill)"
    )
    resumed = tmp_path / "resumed/oulu-casia"
    for at in (100, 700):
        run = subprocess.run([sys.executable, "-c", code, root, resumed, str(at)], env=ENVIRONMENT, check=False)
        assert run.returncode == -signal.SIGKILL
        with pytest.raises(FileNotFoundError):
            prepared.load(resumed)
    done = []
    prepare(scan, resumed, None, {"points": "cropped"}, progress=lambda *step: done.append(step))
    assert done == [(i, 864) for i in range(513, 865)]  # the first block of 512 was safe
    assert bytes_of(resumed) == bytes_of(whole)
    assert [path.name for path in resumed.parent.iterdir()] == ["oulu-casia"]


def test_what_a_killed_preparation_left_half_written_is_written_anew(tmp_path):
    place = tmp_path / "set"
    faces = generated(6)
    with Unfinished(place, "a") as unfinished:
        unfinished.append(faces[:3], [None, "broken", [1.0, 2.0, 3.0, 4.0, 5.0], None])
    with (unfinished.place / "faces.npy").open("ab") as file:
        file.write(bytes(100))
    with (unfinished.place / "journal.jsonl").open("ab") as file:
        file.write(b"null\nnul")  # a line whose face never reached the disk, and half a line
    with Unfinished(place, "a") as unfinished:
        assert unfinished.done == 4
        unfinished.append(faces[3:], [None, None, None])
        unfinished.seal()
        assert list(unfinished.outcomes()) == [None, "broken", [1.0, 2.0, 3.0, 4.0, 5.0], None, None, None, None]
    assert (np.load(unfinished.place / "faces.npy") == faces).all()
    np.save(tmp_path / "expected.npy", faces)
    assert (unfinished.place / "faces.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_other_files_or_settings_take_nothing_from_what_was_left(tmp_path):
    place = tmp_path / "set"
    with Unfinished(place, "a") as unfinished:
        unfinished.append(generated(2), [None, None])
    with Unfinished(place, "b") as unfinished:
        assert (unfinished.done, list(unfinished.outcomes()), list(unfinished.blocks())) == (0, [], [])


def test_two_processes_do_not_prepare_one_set_at_a_time(tmp_path):
    code = (
        "import sys; from pathlib import Path; from idennet_core.datasets.unfinished import Unfinished;"
        "held = Unfinished(Path(sys.argv[1]), 'a'); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "set")]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"another process is at work on .*: wait for it"):
            Unfinished(tmp_path / "set", "a")
        other.stdin.close()
        other.wait()
    with Unfinished(tmp_path / "set", "a") as unfinished:
        assert unfinished.done == 0


def test_faces_lie_in_the_order_of_the_index_however_the_files_are_named(tmp_path):
    root = tmp_path / "set"
    for i, name in enumerate(("0000102/9.jpg", "0000102/010.jpg", "0000045/1.jpg", "45/1.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(cv2.imencode(".jpg", np.full((60, 60), 50 * i, np.uint8))[1].tobytes())
    prepare(casia_webface.scan(root), tmp_path / "store/casia-webface", None, {"points": "cropped"})
    loaded = prepared.load(tmp_path / "store/casia-webface")
    keys = list(zip(loaded.subject, loaded.sequence, loaded.frame, strict=True))
    assert keys == sorted(keys)
    shades = {"0000102/9.jpg": 0, "0000102/010.jpg": 50, "0000045/1.jpg": 100, "45/1.jpg": 150}
    assert [int(np.median(face)) for face in loaded.faces] == [shades[source] for source in loaded.source]


def test_the_memory_of_a_preparation_does_not_grow_with_the_faces(tmp_path):
    """Peak memory of a process for 500 and for 8,500 faces, whose pixels alone are 51 MB more."""
    encoded = picture("a face", 112, 112, ".jpg")
    code = (
        "import sys; from pathlib import Path; import test_preparation as t;"
        "t.prepare(t.casia_webface.scan(Path(sys.argv[1])), Path(sys.argv[2]), None, {});"
        "print(*[l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')])"
    )
    peaks = []
    for number in (500, 8500):
        root = tmp_path / str(number)
        images = [record(i // 10, encoded, i) for i in range(1, number + 1)]
        write_records(root, [record(0, labels=(number + 1, number + 1)), *images])
        run = subprocess.run(
            [sys.executable, "-c", code, root, tmp_path / f"store/{number}"],
            env=ENVIRONMENT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(run.stdout) / 1024)
    assert peaks[1] - peaks[0] < 25  # MB; the index and the journal
