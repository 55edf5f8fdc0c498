"""IDEnNet's studies in a bucket: faces, trunks, checkpoints and heads are fetched by the node that needs them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from buckets import ROOT, address, assert_equal, kept, node
from conftest import TINY_STUDY, idenctl
from s3 import BUCKET

from orchestrator.store import at


@pytest.fixture
def data(s3, trained_store, tmp_path, monkeypatch):
    """The bucket with the faces of the study `tiny` in it, sent from another node; the study file in this folder."""
    for path in (path for path in (trained_store / "data").rglob("*") if path.is_file()):
        s3.client.upload_file(str(path), BUCKET, f"p/{path.relative_to(trained_store)}")
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY_STUDY)
    return s3


def run():
    return idenctl("study", "run", "tiny.yaml", "--engine", "inline", "--store", address())


def test_what_is_trained_in_a_bucket_is_what_is_trained_in_a_folder(data, trained_store, tmp_path, monkeypatch):
    done = run()
    assert done.returncode == 0, done.stderr
    expected = kept(trained_store)
    assert_equal(kept(address()), expected)
    faces = {key: count for key, count in data.fetched().items() if key.endswith("faces.npy")}
    assert set(faces.values()) == {1}
    assert len(faces) == 3
    assert data.objects("p/checkpoints") == [], "every trial is stored"
    assert len(data.objects("p/heads")) == len(list((trained_store / "heads").iterdir()))

    node(monkeypatch, tmp_path, "two")  # where nothing is yet
    data.asked.clear()
    trial_id = next(trial_id for trial_id, variant in at(trained_store).trials().select("trial_id", "variant").rows())
    words = ("export", trial_id, "--out")
    assert idenctl(*words, tmp_path / "one.onnx", "--store", address()).returncode == 0
    assert idenctl(*words, tmp_path / "other.onnx", "--store", trained_store).returncode == 0
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()
    assert not [key for key in data.fetched() if key.endswith("faces.npy")], "a network is exported without faces"
    assert [key for key in data.fetched() if "/heads/" in key] == [f"p/heads/{trial_id}.safetensors"]
    maps = ("heatmap", "tiny", "--out", tmp_path / "maps.png")
    assert idenctl(*maps, "--store", address()).returncode == 0
    assert set(data.fetched().values()) == {1}
    assert len(json.loads(idenctl("trunk", "list", "--json", "--store", address()).stdout)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("part", ["trunk", "pack"])
def test_a_node_goes_on_from_the_checkpoint_of_one_that_is_lost_with_its_disk(
    data, trained_store, tmp_path, monkeypatch, part
):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchestrator.cli.app", "study", "run", "tiny.yaml", "--engine", "inline"]

    def after_a_checkpoint(method, key):
        return method != "GET" and data.objects(f"p/checkpoints/{part}-")

    with data.held(after_a_checkpoint) as reached:
        process = subprocess.Popen([*command, "--store", address()], env=environment, stderr=subprocess.DEVNULL)
        assert reached.wait(300)
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    node(monkeypatch, tmp_path, "two")
    left = data.objects(f"p/checkpoints/{part}-")
    assert left
    data.asked.clear()
    done = run()
    assert done.returncode == 0, done.stderr
    assert_equal(kept(address()), kept(trained_store))
    assert any(key in data.fetched() for key in left), "it did not begin anew"
    assert data.objects("p/checkpoints") == []


def test_a_data_set_is_prepared_into_a_bucket_and_a_second_time_does_nothing(s3, tmp_path, monkeypatch):
    root = tmp_path / "faces"
    assert idenctl("data", "synth", "oulu-casia", "--out", root, "--subjects", "2").returncode == 0
    prepare = ("data", "prepare", "oulu-casia", "--root", root, "--landmarks", root / "landmarks.csv", "--store")
    done = idenctl(*prepare, address())
    assert done.returncode == 0, done.stderr
    assert f"{address()}/data/oulu-casia" in done.stdout.replace("\n", "")
    assert s3.objects("p/data") == [f"p/data/oulu-casia/{name}" for name in ("faces.csv", "faces.npy", "metadata.json")]
    node(monkeypatch, tmp_path, "two")
    before = {key: s3.read(key) for key in s3.objects("p/data")}
    assert "already prepared" in idenctl(*prepare, address()).stdout
    assert {key: s3.read(key) for key in s3.objects("p/data")} == before
    assert idenctl(*prepare, tmp_path / "folder").returncode == 0
    assert before["p/data/oulu-casia/faces.npy"] == (tmp_path / "folder/data/oulu-casia/faces.npy").read_bytes()
    assert idenctl("data", "synth", "oulu-casia", "--out", tmp_path / "more", "--subjects", "3").returncode == 0
    more = [str(word).replace(str(root), str(tmp_path / "more")) for word in prepare]
    assert idenctl(*more, address()).returncode == 0
    (kept_beside,) = {key.split("/")[2] for key in s3.objects("p/data")} - {"oulu-casia"}
    assert s3.read(f"p/data/{kept_beside}/faces.npy") == before["p/data/oulu-casia/faces.npy"]
    assert s3.read("p/data/oulu-casia/faces.npy") != before["p/data/oulu-casia/faces.npy"]
