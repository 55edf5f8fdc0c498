"""Prepared sets: whole or not at all, read as they were written, and what is none is refused."""

import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idennet_core.datasets import prepared
from idennet_core.datasets.prepared import Face, Skipped
from idennet_core.datasets.unfinished import Unfinished

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def generated(number):
    return np.random.default_rng(7).integers(0, 256, (number, 80, 80), dtype=np.uint8)


def bytes_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


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
        "import resource, signal, sys; from pathlib import Path; import test_prepared as t;"
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


def test_the_data_id_is_the_hash_of_one_json_list_and_the_pixels(tmp_path):
    data_id = small_set(tmp_path / "a")
    with (tmp_path / "a/faces.csv").open(newline="") as file:
        rows = [row[:-1] for row in csv.reader(file)][1:]
    pixels = np.load(tmp_path / "a/faces.npy")
    content = json.dumps([["anger"], [2, 80, 80], rows]).encode() + pixels.tobytes()
    assert data_id == hashlib.blake2b(content, digest_size=16).hexdigest()
