"""`doctor` says what is there, and of what is wrong what to do: each fault here is a real one."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import idenctl

from orchestrator.cli import doctor

ROOT = Path(__file__).parent.parent
MODEL = ROOT.parent / "shared/models/yunet_n_dynamic.onnx"
needs_model = pytest.mark.skipif(not MODEL.is_file(), reason=f"no YuNet in {MODEL.parent}")


@pytest.fixture
def quick(monkeypatch):
    """No Ray is started, which takes seconds; `test_all_is_fine_where_all_is_there` starts one."""
    monkeypatch.setattr(doctor, "_ray", lambda: iter(()))


def findings(*arguments):
    """The exit status, and the findings by their subjects."""
    done = idenctl("doctor", "--json", *arguments)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["wrong"] == sum(finding["state"] == "wrong" for finding in told["findings"])
    return done.returncode, {finding["subject"]: finding for finding in told["findings"]}


def only_wrong(found, subject, said, remedy):
    wrong = {name: finding for name, finding in found.items() if finding["state"] == "wrong"}
    assert list(wrong) == [subject], wrong
    assert said in wrong[subject]["found"]
    assert remedy
    assert remedy in wrong[subject]["remedy"]


def copied(trained_store, folder):
    for part in ("data", "trunks"):
        shutil.copytree(trained_store / part, folder / part)
    shutil.copy(trained_store / "store.json", folder)
    return folder


def test_all_is_fine_where_all_is_there(trained_store):
    done = idenctl("doctor", "--store", trained_store)
    assert done.returncode == 0, done.stdout
    assert done.stderr == "nothing is wrong\n"
    assert f"torch: {torch.__version__}" in done.stdout
    assert f"Ray: {version('ray')} starts and answers, on loopback alone" in done.stdout
    assert "token mode" in done.stdout
    assert "oulu-casia (synthetic), 240 faces" in done.stdout
    assert not list(trained_store.glob(".doctor-*"))


def test_a_new_user_is_told_what_to_prepare(tmp_path, quick):
    ended, found = findings("--store", tmp_path / "runs")
    assert ended == 1
    mends = f"idenctl data prepare NAME --root DIR --store {tmp_path}"
    only_wrong(found, "prepared data", "no study of IDEnNet can run", mends)
    assert found["face detector"]["state"] == "note"
    assert not (tmp_path / "runs").exists()


def test_a_store_that_is_none_is_wrong(tmp_path, quick):
    (tmp_path / "file").write_text("")
    ended, found = findings("--store", tmp_path / "file")
    assert ended == 1
    only_wrong(found, "store", "a store is a folder, got the file", "give another --store")


def test_a_store_of_a_later_version_is_wrong(tmp_path, quick):
    (tmp_path / "store.json").write_text('{"format": 99}')
    only_wrong(findings("--store", tmp_path)[1], "store", "has 99", "install a newer idenctl")


def test_a_bucket_that_is_not_reached_is_wrong(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    bucket = "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    only_wrong(findings("--store", bucket)[1], "store", "s3://bucket/x", "look at the network")


def test_damaged_data_is_wrong_and_named(tmp_path, trained_store, quick):
    store = copied(trained_store, tmp_path)
    (store / "data" / "oulu-casia" / "metadata.json").write_text("{")
    only_wrong(findings("--store", store)[1], "data set oulu-casia", "metadata.json", "idenctl data prepare oulu-casia")


def detector(store):
    """Where a store keeps its detector."""
    (store / "detector").mkdir()
    return store / "detector" / "face_detection_yunet_2023mar.onnx"


@needs_model
def test_a_detector_is_found_and_tried(tmp_path, trained_store, quick):
    store = copied(trained_store, tmp_path)
    shutil.copy(MODEL, detector(store))
    ended, found = findings("--store", store)
    assert ended == 0
    assert "a YuNet of your own" in found["face detector"]["found"]


def test_a_detector_that_is_none_is_wrong(tmp_path, trained_store, quick):
    store = copied(trained_store, tmp_path)
    place = detector(store)
    place.write_bytes(b"no network")
    only_wrong(
        findings("--store", store)[1], "face detector", "OpenCV cannot run it", f"rm {place}; idenctl data detec"
    )


def test_a_check_that_breaks_off_is_wrong_and_the_others_are_made(trained_store, quick, monkeypatch):
    def broken():
        raise PermissionError("not yours")
        yield

    monkeypatch.setattr(doctor, "_memory", broken)
    ended, found = findings("--store", trained_store)
    assert ended == 1
    only_wrong(found, "the rest of this", "PermissionError: not yours", "run idenctl doctor again")
    assert found["store"]["state"] == "fine"


def test_a_disk_without_room_is_wrong(trained_store, quick, monkeypatch):
    monkeypatch.setattr(doctor, "ROOM", 10**18)
    found = findings("--store", trained_store)[1]
    assert {name for name, finding in found.items() if finding["state"] == "wrong"} == {
        "scratch folder",
        "room for the store",
    }
    assert "idenctl store clean" in found["room for the store"]["remedy"]


@pytest.mark.parametrize(
    ("library", "content", "subject", "said"),
    [
        (
            "torch",
            "raise OSError('libcudart.so.12: cannot open')",
            "torch",
            "cannot be imported: OSError: libcudart.so",
        ),
        ("ray", "raise ImportError('no ray here')", "Ray", "none starts: no ray here"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_wrong(tmp_path, trained_store, library, content, subject, said):
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text(content)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "orchestrator.cli.app", "doctor", "--json", "--store", str(trained_store)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found[subject]["state"] == "wrong"
    assert said in found[subject]["found"]
    assert found[subject]["remedy"]
