"""Prepared sets and how they are made: whole or not at all, killed and resumed, from whatever is in the files."""

import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import oulu_tree, picture, record, write_records

from idennet_core.datasets import casia_webface, oulu_casia, prepared
from idennet_core.datasets.preparation import from_landmarks, prepare
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.unfinished import Unfinished
from idennet_core.faces.alignment import TEMPLATE

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
UNREADABLE = "not a readable picture: empty, cut off or of another format"


def generated(number):
    return np.random.default_rng(7).integers(0, 256, (number, 80, 80), dtype=np.uint8)


def bytes_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def take_all(root):
    """A scan of every frame of Oulu-CASIA's layout, not the last three alone."""
    scan = oulu_casia.scan(root)
    pictures = [
        Face(path.parts[-3], path.parts[-2], "/".join(path.parts[-3:-1]), path.stem, "", str(path.relative_to(root)))
        for path in sorted(root.rglob("*.jpeg"))
    ]
    return replace(scan, pictures=pictures, files=[root / picture.source for picture in pictures])


# prepared sets


def small_set(directory, value=0, source="a", **changes):
    rows = [Face(s, "anger", f"{s}/anger", "000", "", f"{source}/{s}") for s in ("P002", "P001")]
    faces = np.stack([np.full((80, 80), value + i, np.uint8) for i in range(2)])
    arguments = {"name": "oulu-casia", "classes": ("anger",), "synthetic": True, "faces": faces, "rows": rows}
    arguments |= {"skipped": [Skipped("x", "broken")], "settings": {"points": "cropped"}} | changes
    return prepared.save(directory, **arguments)


def test_a_set_is_read_as_it_was_written_sorted_and_memory_mapped(tmp_path):
    data_id = small_set(tmp_path / "data/oulu-casia")
    loaded = prepared.load(tmp_path / "data/oulu-casia")
    assert loaded.data_id == data_id == loaded.metadata["data_id"]
    assert (loaded.name, loaded.synthetic, loaded.classes) == ("oulu-casia", True, ("anger",))
    assert list(loaded.subject) == ["P001", "P002"]
    assert list(loaded.source) == ["a/P001", "a/P002"]
    assert [int(face.max()) for face in loaded.faces] == [1, 0]
    assert isinstance(loaded.faces, np.memmap)
    assert loaded.metadata["skipped"] == [{"reason": "broken", "count": 1, "sources": ["x"]}]
    assert prepared.read_metadata(tmp_path / "data/oulu-casia")["num_faces"] == 2


def test_the_data_id_is_of_faces_and_index_not_of_the_place_they_came_from(tmp_path):
    ids = [
        small_set(tmp_path / "a"),
        small_set(tmp_path / "b", source="elsewhere", settings={}, skipped=[]),
        small_set(tmp_path / "c", value=1),
        small_set(tmp_path / "d", classes=("anger", "fear")),
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_different_set_is_kept_beside_and_the_same_one_left_alone(tmp_path):
    place = tmp_path / "oulu-casia"
    first = small_set(place)
    written = (place / "faces.npy").stat().st_mtime_ns
    assert small_set(place, settings={"points": "landmarks"}) == first
    assert (place / "faces.npy").stat().st_mtime_ns == written
    assert prepared.read_metadata(place)["settings"] == {"points": "landmarks"}
    second = small_set(place, value=9)
    assert small_set(place) == first
    assert small_set(place, value=9) == second
    kept = {path.name: prepared.load(path).data_id for path in tmp_path.iterdir()}
    assert kept == {
        "oulu-casia": second,
        f"oulu-casia.{first[:8]}": first,
        f"oulu-casia.{second[:8]}": second,
        f"oulu-casia.{first[:8]}.1": first,
    }


def test_a_run_killed_while_it_writes_leaves_no_set_and_takes_none_away(tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path; import test_preparation as t;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"  # the kernel ends the process in mid-write
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "t.small_set(Path(sys.argv[1]), value=5)"
    )

    def killed(place):
        run = subprocess.run([sys.executable, "-c", code, str(place)], cwd=ROOT, env=ENVIRONMENT, check=False)
        assert run.returncode == -signal.SIGXFSZ

    killed(tmp_path / "new")
    assert any(tmp_path.iterdir())  # it was killed in the middle of a file
    with pytest.raises(FileNotFoundError, match="run `idenctl data prepare`"):
        prepared.load(tmp_path / "new")
    old = small_set(tmp_path / "old")
    killed(tmp_path / "old")
    assert prepared.load(tmp_path / "old").data_id == old
    assert small_set(tmp_path / "new", value=5) == prepared.load(tmp_path / "new").data_id


def test_new_facts_that_the_disk_has_no_room_for_leave_the_old_ones_and_nothing_beside(tmp_path):
    small_set(tmp_path / "set")
    before = bytes_of(tmp_path / "set")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Unfinished(tmp_path / "set", "a") as unfinished:
        unfinished.append(np.load(tmp_path / "set/faces.npy"), [None, None])
        rows = [Face(s, "anger", f"{s}/anger", "000", "", f"b/{s}") for s in ("P001", "P002")]
        facts = "oulu-casia", ("anger",), True, rows, [], {"points": "cropped"}, "", None
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                prepared.finish(unfinished, tmp_path / "set", *facts)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert bytes_of(tmp_path / "set") == before


@pytest.mark.parametrize("read", [prepared.load, prepared.splits])
def test_an_index_with_a_quote_that_never_ends_is_damaged(tmp_path, read):
    small_set(tmp_path / "set")
    with (tmp_path / "set/faces.csv").open("a") as file:
        file.write('"' + "a,b\n" * 50_000)
    with pytest.raises(ValueError, match=r"is damaged .*: move it away and prepare again"):
        read(tmp_path / "set")


def test_what_is_no_prepared_set_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match="is not a prepared set"):
        small_set(tmp_path / "notes")
    small_set(tmp_path / "damaged")
    (tmp_path / "damaged/faces.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is damaged .*: move it away and prepare again"):
        prepared.load(tmp_path / "damaged")
    (tmp_path / "damaged/metadata.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99, this version reads 1: upgrade"):
        prepared.load(tmp_path / "damaged")
    with pytest.raises(ValueError, match="at least one face"):
        small_set(tmp_path / "empty", faces=np.empty((0, 80, 80), np.uint8), rows=[])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_faces": "2"}, "num_faces"),
        ({"num_faces": 0}, "num_faces"),
        ({"num_faces": True}, "num_faces"),
        ({"classes": "anger"}, "classes"),
        ({"subjects": [1, 2]}, "subjects"),
        ({"data_id": "../../elsewhere"}, "data_id"),
        ({"synthetic": 0}, "synthetic"),
        ({"skipped": [{"why": "broken"}]}, "skipped"),
        ({"settings": None, "point_error": 3}, "settings, point_error"),
        ({"format": "1"}, "format"),
    ],
)
def test_facts_that_are_not_what_they_must_be_are_refused_with_the_file_and_the_next_step(tmp_path, change, named):
    small_set(tmp_path / "set")
    path = tmp_path / "set/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        prepared.read_metadata(tmp_path / "set")
    assert str(refusal.value) == (
        f"{path} is damaged or not idenctl's ({named} missing or wrong): move {tmp_path / 'set'} away and prepare again"
    )


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[1]", b"null", b'{"version": 3}', b'{"format": 1}', b"[" * 100_000, b'{"format": 1']
)
def test_a_file_of_somebody_elses_in_the_place_of_the_facts_is_refused(tmp_path, content):
    small_set(tmp_path / "set")
    (tmp_path / "set/metadata.json").write_bytes(content)
    for read in (prepared.read_metadata, prepared.load, small_set):
        with pytest.raises(ValueError, match=r"metadata\.json is damaged or not .*: move .* away and prepare again"):
            read(tmp_path / "set")


def test_faces_and_index_that_do_not_go_with_the_facts_are_damage(tmp_path):
    def spoilt(name, write):
        small_set(tmp_path / name)
        write(tmp_path / name)
        with pytest.raises(ValueError, match=r"is damaged .*: move it away and prepare again") as refusal:
            prepared.load(tmp_path / name)
        return str(refusal.value)

    def of_another_set(place):
        np.save(place / "faces.npy", generated(3))
        with (place / "faces.csv").open("a") as file:
            file.write("P003,anger,P003/anger,000,,a/P003\n")

    def of_another_kind(place):
        np.save(place / "faces.npy", generated(2).astype(np.float32))

    def several(place):
        with (place / "faces.npy").open("wb") as file:
            np.savez(file, generated(2))

    def half_a_header(place):
        content = (place / "faces.npy").read_bytes()
        (place / "faces.npy").write_bytes(content.replace(b"}", b" ", 1))

    def mislabelled(place):
        text = (place / "faces.csv").read_text()
        (place / "faces.csv").write_text(text.replace('"anger"', '"rage"'))

    assert "has 3 rows, metadata.json counts 2 faces" in spoilt("more", of_another_set)
    assert "no uint8 faces of shape (2, 80, 80)" in spoilt("float", of_another_kind)
    assert "no uint8 faces of shape (2, 80, 80)" in spoilt("several", several)
    spoilt("header", half_a_header)
    assert "the label 'rage', none of the set's classes" in spoilt("label", mislabelled)


# preparation


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


def test_the_data_id_is_the_hash_of_one_json_list_and_the_pixels(tmp_path):
    data_id = small_set(tmp_path / "a")
    with (tmp_path / "a/faces.csv").open(newline="") as file:
        rows = [row[:-1] for row in csv.reader(file)][1:]
    pixels = np.load(tmp_path / "a/faces.npy")
    content = json.dumps([["anger"], [2, 80, 80], rows]).encode() + pixels.tobytes()
    assert data_id == hashlib.blake2b(content, digest_size=16).hexdigest()


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
