"""A stored trial's network, put together again, gives what the trial gave: on faces, pictures, and as ONNX."""

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from conftest import idenctl
from safetensors.torch import save_file

from idennet_core import checkpoint, inference
from idennet_core.config import FACE_SIZE
from idennet_core.datasets import oulu_casia, prepared
from orchestrator.cli.network import best_trial
from orchestrator.rows import Run
from orchestrator.store import Store, write_json
from orchestrator.trial import Configuration, Trial, TrialResult

pytestmark = pytest.mark.usefixtures("one_thread")
MODEL = Path(__file__).parents[2] / "shared/models/yunet_s_dynamic.onnx"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no YuNet model in {MODEL.parent}")
MARGIN = (80 - FACE_SIZE) // 2


@pytest.fixture
def store(trained_store, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(trained_store, tmp_path / "store")
    return Store(tmp_path / "store")


def trials(store):
    return Store(store).trials().sort("trial_id").to_dicts()


def trial_of(store, variant, fold=0):
    return next(t["trial_id"] for t in trials(store) if (t["variant"], t["fold"]) == (variant, fold))


def load(store, trial_id):
    return inference.load(store / "heads" / f"{trial_id}.safetensors", store / "trunks")


def unseen(store, trial_id):
    """A trial's stored test faces [N, 80, 80] and its probabilities [N, classes] of them, in the order of both."""
    rows = Store(store).predictions().filter(pl.col("trial_id") == trial_id)
    faces = prepared.load(store / "data/oulu-casia")
    index = list(zip(faces.subject.tolist(), faces.sequence.tolist(), faces.frame.tolist(), strict=True))
    places = [index.index(key) for key in rows.select("subject", "sequence", "frame").iter_rows()]
    return np.stack([faces.faces[place] for place in places]), np.array(rows["probabilities"].to_list(), np.float32)


def picture_of(stored, path):
    """A stored face written as a picture of a cropped face, without loss."""
    inside = slice(MARGIN, MARGIN + FACE_SIZE)
    assert cv2.imwrite(str(path), stored[inside, inside])
    return path


def refused(*arguments):
    """The one line with which a wrong request is refused."""
    ended = idenctl(*arguments)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def test_every_stored_network_gives_its_stored_predictions(trained_store):
    for trial in trials(trained_store):
        faces, stored = unseen(trained_store, trial["trial_id"])
        found = inference.probabilities(load(trained_store, trial["trial_id"]), faces)
        np.testing.assert_allclose(found, stored, atol=1e-5, rtol=0)  # the plain modules sum in another order
    assert len(trials(trained_store)) == 8


def test_a_face_alone_is_seen_as_in_its_fold(trained_store):
    trial_id = trial_of(trained_store, "if")
    faces, stored = unseen(trained_store, trial_id)
    network = load(trained_store, trial_id)
    alone = np.concatenate([inference.probabilities(network, face[None]) for face in faces])
    np.testing.assert_allclose(alone, stored, atol=1e-5, rtol=0)


def test_predict_gives_the_stored_prediction_of_a_test_face(trained_store, tmp_path):
    trial_id = trial_of(trained_store, "f", fold=3)
    faces, stored = unseen(trained_store, trial_id)
    pictures = [picture_of(face, tmp_path / f"{index}.png") for index, face in enumerate(faces[:4])]
    ended = idenctl("predict", *pictures, "--trial", trial_id[:8], "--cropped", "--json", "--store", trained_store)
    assert ended.returncode == 0, ended.stderr
    answers = json.loads(ended.stdout)
    assert [answer["picture"] for answer in answers] == [str(picture) for picture in pictures]
    for answer, expected in zip(answers, stored, strict=False):
        assert answer["trial_id"] == trial_id
        assert answer["synthetic"] is True
        assert list(answer["probabilities"]) == list(oulu_casia.CLASSES)
        np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-5, rtol=0)
        assert answer["expression"] == oulu_casia.CLASSES[expected.argmax()]


@needs_model
def test_predict_finds_and_aligns_a_face_as_prepare_does(trained_store, tmp_path):
    root, prepared_in = tmp_path / "drawn", tmp_path / "other"
    assert idenctl("data", "synth", "oulu-casia", "--out", root, "--subjects", "1").returncode == 0
    options = ("--detector", MODEL, "--store", prepared_in)
    assert idenctl("data", "prepare", "oulu-casia", "--root", root, *options).returncode == 0
    faces = prepared.load(prepared_in / "data/oulu-casia")
    trial_id = trial_of(trained_store, "original")
    pictures = [root / source for source in faces.source[:3].tolist()]
    ended = idenctl("predict", *pictures, "--trial", trial_id, "--detector", MODEL, "--json", "--store", trained_store)
    found = [list(answer["probabilities"].values()) for answer in json.loads(ended.stdout)]
    expected = inference.probabilities(load(trained_store, trial_id), np.asarray(faces.faces[:3]))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@needs_model
def test_pictures_that_cannot_be_used_are_named_and_the_rest_goes_on(trained_store, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 200), 128, np.uint8))
    assert idenctl("data", "synth", "oulu-casia", "--out", tmp_path / "drawn", "--subjects", "1").returncode == 0
    good = min((tmp_path / "drawn").rglob("*.jpeg"))
    names = ["text.jpg", "empty.png", "grey.png", "missing.png"]
    request = ("predict", *[tmp_path / name for name in names], good, "--detector", MODEL, "--store", trained_store)
    ended = idenctl(*request, "--trial", trial_of(trained_store, "if"), "--json")
    assert ended.returncode == 1
    *bad, last = json.loads(ended.stdout)
    reasons = ["not a readable picture", "not a readable picture", "no face found", "No such file"]
    for answer, name, reason in zip(bad, names, reasons, strict=True):
        assert answer["picture"] == str(tmp_path / name)
        assert reason in answer["reason"]
        assert f"{tmp_path / name}: {answer['reason']}" in ended.stderr
    assert sum(last["probabilities"].values()) == pytest.approx(1)
    table = idenctl(*request, "--trial", trial_of(trained_store, "if"))
    assert table.returncode == 1
    assert "SYNTHETIC" in table.stdout
    assert table.stdout.count("│ -") == 8  # no expression and no probability of four pictures


def test_a_study_stands_for_its_most_accurate_cell(trained_store, tmp_path):
    faces, _ = unseen(trained_store, trial_of(trained_store, "if"))
    picture = picture_of(faces[0], tmp_path / "face.png")
    ended = idenctl("predict", picture, "--study", "tiny", "--cropped", "--json", "--store", trained_store)
    (answer,) = json.loads(ended.stdout)
    means = {}
    for trial in trials(trained_store):
        means.setdefault(trial["configuration_id"], []).append(trial["accuracy"])
    (chosen,) = [trial for trial in trials(trained_store) if trial["trial_id"] == answer["trial_id"]]
    assert sum(means[chosen["configuration_id"]]) == max(map(sum, means.values()))
    assert chosen["fold"] == 0


def test_a_study_on_the_publishers_split_stands_for_its_most_accurate_cell_too(tmp_path):
    store, now = Store(tmp_path).open(), datetime(2026, 1, 1, tzinfo=UTC)
    cells = {variant: Configuration({"variant": variant}, {"data": "d" * 32}) for variant in ("original", "f")}
    results = [
        TrialResult(Trial(cell, None, 0), "complete", True, 90, 10, 1.5, accuracy=0.9 if variant == "f" else 0.8)
        for variant, cell in cells.items()
    ]
    store.write_pack(results, {"variant": "if"}, Run("cpu", "here", now, now, "0.1.0"))
    plan = {"study": "split", "dataset": "ferplus", "question": "", "data_id": "d" * 32, "synthetic": True}
    plan |= {"folds": [None], "seeds": [0], "report": {"by": "variant"}}
    plan["cells"] = [
        {"label": cell.settings, "settings": cell.settings, "configuration_id": cell.configuration_id}
        for cell in cells.values()
    ]
    write_json(store.studies / "split" / "plan.json", plan)
    assert best_trial(store, "split")["variant"] == "f"


@pytest.mark.parametrize("variant", ["original", "if"])
def test_the_onnx_file_gives_the_stored_predictions_from_grey_values(trained_store, tmp_path, variant):
    trial_id, out = trial_of(trained_store, variant), tmp_path / "network.onnx"
    ended = idenctl("export", trial_id, "--out", out, "--store", trained_store)
    assert (ended.returncode, ended.stderr.count("\n")) == (0, 1), ended.stderr
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    faces, stored = unseen(trained_store, trial_id)
    middle = faces[:, 16:64, 16:64].astype(np.float32)[:, None]  # 48 of 80
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    for batch in (1, 7, len(middle)):
        (found,) = session.run(["probabilities"], {"pixels": middle[:batch]})
        np.testing.assert_allclose(found, stored[:batch], atol=1e-5, rtol=0)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["trial_id"] == trial_id
    assert json.loads(about["classes"]) == list(oulu_casia.CLASSES)
    assert json.loads(about["synthetic"]) is True
    assert json.loads(about["settings"])["variant"] == variant
    assert str(Path(inference.__file__).parent).encode() not in out.read_bytes(), "no path of this machine"


def test_an_export_without_its_packages_says_what_to_install(trained_store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "network.onnx"
    said = refused("export", trial_of(trained_store, "if"), "--out", out, "--store", trained_store)
    assert "pip install 'idenctl[export]'" in said
    assert not out.exists()


def test_an_export_that_onnx_runtime_finds_otherwise_is_not_put_in_place(trained_store, tmp_path, monkeypatch):
    monkeypatch.setattr("idennet_core.export.TOLERANCE", -1.0)
    out = tmp_path / "network.onnx"
    out.write_text("an earlier one")
    ended = idenctl("export", trial_of(trained_store, "original"), "--out", out, "--store", trained_store)
    assert ended.returncode == 1
    assert "must agree with PyTorch" in ended.stderr
    assert out.read_text() == "an earlier one"


def test_a_missing_or_damaged_head_is_refused_in_one_line(store):
    trial_id = trial_of(store.root, "if")
    head = store.heads / f"{trial_id}.safetensors"
    whole = head.read_bytes()
    tensors, words = checkpoint.load(head)
    settings = json.loads(words["settings"])
    checkpoint.save(head, tensors, words | {"settings": json.dumps(settings | {"bottleneck": 13})})
    mixed = head.read_bytes()
    request = ("predict", "face.png", "--trial", trial_id, "--cropped", "--store", store.root)
    for content, said in [
        (whole[:1000], "damaged"),
        (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "damaged"),
        (b"", "damaged"),
        (mixed, "must hold a head that fits its settings"),
    ]:
        head.write_bytes(content)
        line = refused(*request)
        assert f"{head}" in line
        assert said in line
    head.unlink()
    assert f"{head} is missing" in refused(*request)


def test_a_head_of_before_there_were_checksums_is_read_as_it_is(store, tmp_path):
    trial_id = trial_of(store.root, "if")
    head = store.heads / f"{trial_id}.safetensors"
    now = inference.load(head, store.trunks).state_dict()
    save_file(*checkpoint.load(head)[:1], head, checkpoint.load(head)[1])
    then = inference.load(head, store.trunks).state_dict()
    assert all(torch.equal(value, then[name]) for name, value in now.items())
    head.write_bytes(head.read_bytes()[:40])
    assert "damaged" in refused("predict", "face.png", "--trial", trial_id, "--cropped", "--store", store.root)


def test_a_missing_or_damaged_trunk_is_refused_in_one_line(store, tmp_path):
    trial_id = trial_of(store.root, "original")
    (trunk,) = Store(store.root).trials().filter(pl.col("trial_id") == trial_id)["trunk_ids"][0]
    folder = store.trunks / trunk
    request = ("export", trial_id, "--out", tmp_path / "network.onnx", "--store", store.root)
    weights, facts = folder / "network.safetensors", folder / "trunk.json"
    whole = {file: file.read_bytes() for file in (weights, facts)}
    for file, content, said in [
        (weights, whole[weights][:-1] + b"\x01", "checksum"),
        (facts, whole[facts][:40], "damaged"),
    ]:
        file.write_bytes(content)
        assert said in refused(*request)
        file.write_bytes(whole[file])
    weights.unlink()
    assert "half-written" in refused(*request)
    shutil.rmtree(folder)
    assert f"{folder} is missing" in refused(*request)


def test_a_trial_is_named_without_doubt(store):
    trial_id = trial_of(store.root, "if")
    twin = trial_id[:8] + "0" * 24
    rows = Store(store.root).trials().filter(pl.col("trial_id") == trial_id)
    (source,) = [p for p in (store.root / "trials").glob("*.parquet") if trial_id in pl.read_parquet(p)["trial_id"]]
    for table in ("trials", "curves", "predictions"):
        file = store.root / table / source.name
        pl.read_parquet(file).with_columns(trial_id=pl.lit(twin)).head(1).write_parquet(file.with_stem("0" * 32))
    assert len(rows) == 1
    request = ("predict", "face.png", "--cropped", "--store", store.root, "--trial")
    said = refused(*request, trial_id[:8])
    assert trial_id in said
    assert twin in said
    assert "at least 6 characters" in refused(*request, trial_id[:5])
    assert "no trial 'ffffffffff'" in refused(*request, "ffffffffff")


@pytest.mark.parametrize("name", ["../../x", "../x", "x", "%%%%%%", "ABCDEF \u00e9", "a" * 33])
def test_what_is_no_trials_id_is_answered_by_the_same_rule_whatever_is_asked_and_however_long_it_is(
    name, trained_store
):
    store = ("--store", trained_store)
    rule = "error: a trial is named by at least 6 characters of its id, which are 0-9 and a-f, got "
    predicted, exported = (
        refused("predict", "x.png", "--trial", name, *store),
        refused("export", name, "--out", "x.onnx", *store),
    )
    assert predicted == exported
    assert predicted.startswith(rule)


def test_wrong_requests_are_one_line(trained_store, tmp_path):
    store, trial_id = ("--store", trained_store), trial_of(trained_store, "if")
    assert "give one" in refused("predict", "face.png", "--cropped", *store)
    assert "give one" in refused("predict", "x.png", "--cropped", "--trial", trial_id, "--study", "tiny", *store)
    assert "no study 'other'" in refused("predict", "face.png", "--cropped", "--study", "other", *store)
    assert "data detector get" in refused("predict", "face.png", "--trial", trial_id, *store)
    both = ("--cropped", "--detector", "model.onnx")
    assert "exclude each other" in refused("predict", "face.png", "--trial", trial_id, *both, *store)
    assert "existing folder" in refused("export", trial_id, "--out", tmp_path / "none/network.onnx", *store)
    assert "end in .onnx" in refused("export", trial_id, "--out", tmp_path / "network.pt", *store)
    assert "no trial 'ffffffffff'" in refused("export", "ffffffffff", "--out", tmp_path / "network.onnx", *store)
