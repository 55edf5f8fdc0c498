"""A trunk trained, stopped, gone on with and stored; and the pictures that it learns from."""

import json
import math
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Killed
from damage import DAMAGES, spoil
from safetensors.torch import load_file
from trunk_recipes import ARCHITECTURE, TRUNK_ID, recipe_of

from idennet_core import checkpoint, config, pretraining, sealing
from idennet_core.datasets import prepared
from idennet_core.datasets.prepared import Face
from idennet_core.ids import content_id
from idennet_core.network import PretrainedNetwork, Trunk, initialise
from idennet_core.streams import generator

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def few(face_set):
    """72 of the faces: a frame of each expression of subjects 3 to 9 and 13 to 17."""
    rows = np.flatnonzero([name[2] in "3456789" for name in face_set.subject.tolist()])[:72]
    columns = ("subject", "label", "sequence", "frame", "split", "source")
    return replace(face_set, faces=face_set.faces[rows], **{c: getattr(face_set, c)[rows] for c in columns})


EVERY_STEP, ONCE = 0.0, math.inf  # seconds between two checkpoints


def train(recipe, faces, root, on_progress=lambda _: None, checkpoint_every=EVERY_STEP):
    places = root / "trunks", root / "checkpoints"
    return pretraining.train_trunk(recipe, faces, *places, CPU, on_progress, checkpoint_every)


def rows_of(faces):
    columns = (faces.subject, faces.label, faces.sequence, faces.frame, faces.split, faces.source)
    return [Face(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def stored(root):
    return sorted(path.name for path in (root / "trunks").glob("*")) if (root / "trunks").exists() else []


def equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def uninterrupted(few, tmp_path_factory):
    """A folder with an emotion trunk trained without a stop, and its progress."""
    torch.set_num_threads(1)
    root, seen = tmp_path_factory.mktemp("uninterrupted"), []
    train(recipe_of(), few, root, lambda progress: seen.append((progress, stored(root))), ONCE)
    return root, seen


def kill_at(done):
    def on_progress(progress):
        if progress.done == done:
            raise Killed

    return on_progress


def network_of(root, trunk_id=TRUNK_ID):
    return pretraining.load_network(root / "trunks", trunk_id)


def test_a_trained_trunk_is_stored_under_the_id_of_its_recipe_with_its_facts(uninterrupted, few):
    root, _ = uninterrupted
    assert stored(root) == [TRUNK_ID]
    facts = sealing.trunk_facts(root / "trunks" / TRUNK_ID)
    assert facts["recipe"] == recipe_of()
    assert facts["synthetic"] is True
    assert facts["classes"] == list(few.classes)
    assert facts["training_pictures"] + facts["held_out_pictures"] == 72
    assert 0 <= facts["held_out_accuracy"] <= 1
    assert list((root / "checkpoints").glob("*")) == []


def test_the_trunk_that_is_loaded_is_the_one_that_was_trained(uninterrupted):
    network = network_of(uninterrupted[0])
    equal(network, load_file(uninterrupted[0] / "trunks" / TRUNK_ID / "network.safetensors"))
    trunk = pretraining.load_trunk(network, ARCHITECTURE)
    assert isinstance(trunk, Trunk)
    assert not trunk.training
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, network[f"trunk.{name}"]), name
    start = PretrainedNetwork(6, 10)
    initialise(start, "trunk", "emotion", 0, "weights")
    changed = [name for name, value in start.named_parameters() if not torch.equal(value, network[name])]
    assert changed == [name for name, _ in start.named_parameters()]
    tracked = {name: value.item() for name, value in network.items() if name.endswith("num_batches_tracked")}
    assert set(tracked.values()) == {4}  # 66 training pictures in batches of 24: two steps an epoch


def test_nothing_lies_under_trunks_until_the_trunk_is_done(uninterrupted):
    _, seen = uninterrupted
    assert all(names == [] for _, names in seen)
    assert [progress.done for progress, _ in seen] == [0, 1, 2, 3, 4]
    last, _ = seen[-1]
    assert (last.total, last.task) == (4, "emotion")
    assert math.isfinite(last.loss)
    assert 0 <= last.accuracy <= 1


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_resumed_after_any_batch_equals_the_uninterrupted_to_the_bit_in_weights_progress_and_facts(
    done, uninterrupted, few, tmp_path
):
    with pytest.raises(Killed):
        train(recipe_of(), few, tmp_path, kill_at(done))
    assert stored(tmp_path) == []
    seen = []
    assert train(recipe_of(), few, tmp_path, seen.append) == TRUNK_ID
    assert seen == [progress for progress, _ in uninterrupted[1][done:]]  # nothing is trained again; losses survive
    equal(network_of(tmp_path), network_of(uninterrupted[0]))
    found, wanted = (sealing.trunk_facts(root / "trunks" / TRUNK_ID) for root in (tmp_path, uninterrupted[0]))
    assert {**found, "seconds": 0, "checksum": ""} == {**wanted, "seconds": 0, "checksum": ""}


def test_when_checkpoints_are_written_changes_no_bit_and_a_stop_loses_the_steps_since_the_last(
    uninterrupted, few, tmp_path
):
    with pytest.raises(Killed):
        train(recipe_of(), few, tmp_path, kill_at(1))
    with pytest.raises(Killed):
        train(recipe_of(), few, tmp_path, kill_at(3), ONCE)  # after its first step, which is the second of all
    steps = []
    train(recipe_of(), few, tmp_path, lambda progress: steps.append(progress.done), ONCE)
    assert steps == [2, 3, 4]
    equal(network_of(tmp_path), network_of(uninterrupted[0]))


def test_a_process_that_is_killed_in_the_middle_of_an_epoch_loses_no_batch(uninterrupted, few, tmp_path):
    prepared.save(tmp_path / "few", "noise", few.classes, True, few.faces, rows_of(few), [], {})
    script = (
        "import os, signal, sys; from pathlib import Path; import torch\n"
        "from idennet_core import pretraining; from idennet_core.datasets import prepared\n"
        "import json; recipe, root = json.loads(sys.argv[1]), Path(sys.argv[2]); torch.set_num_threads(1)\n"
        "kill = lambda progress: progress.done == 3 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "faces, places = prepared.load(root / 'few'), (root / 'trunks', root / 'checkpoints')\n"
        "pretraining.train_trunk(recipe, faces, *places, torch.device('cpu'), kill, 0.0)\n"
    )
    arguments = [sys.executable, "-c", script, json.dumps(recipe_of()), str(tmp_path)]
    ended = subprocess.run(arguments, cwd=Path(__file__).parent.parent, check=False)
    assert ended.returncode == -signal.SIGKILL
    steps = []
    train(recipe_of(), few, tmp_path, lambda progress: steps.append(progress.done))
    assert steps == [3, 4]
    equal(network_of(tmp_path), network_of(uninterrupted[0]))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_after_damage_to_its_checkpoints_a_trunk_goes_on_from_before_it_to_the_same_bits(
    damage, both, uninterrupted, few, tmp_path, caplog
):
    with pytest.raises(Killed):
        train(recipe_of(), few, tmp_path, kill_at(3))
    last, before = checkpoint.kept(tmp_path / "checkpoints", f"trunk-{TRUNK_ID}")
    for path in (last, before) if both else (last,):
        spoil(path, damage, f"trunk {both}")
    steps, dropped = [], []

    def drop(path):
        dropped.append(path)
        path.unlink(missing_ok=True)

    places = tmp_path / "trunks", tmp_path / "checkpoints"
    pretraining.train_trunk(
        recipe_of(), few, *places, CPU, lambda progress: steps.append(progress.done), EVERY_STEP, drop=drop
    )
    assert steps[0] == (0 if both else 2)
    assert damage == "missing" or dropped[0] == last, "from a bucket too"
    equal(network_of(tmp_path), network_of(uninterrupted[0]))
    assert len(caplog.messages) == (1 + both) * (damage != "missing")
    assert all("is damaged" in line for line in caplog.messages)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(uninterrupted, few, tmp_path):
    with pytest.raises(Killed):
        train(recipe_of(seed=1), few, tmp_path, kill_at(3))
    train(recipe_of(), few, tmp_path)
    equal(network_of(tmp_path), network_of(uninterrupted[0]))


def test_a_leftover_half_written_folder_is_never_taken_for_a_trunk(uninterrupted, few, tmp_path):
    source = uninterrupted[0] / "trunks" / TRUNK_ID / "network.safetensors"
    half = tmp_path / "trunks" / f".{TRUNK_ID}.0123.tmp"
    half.mkdir(parents=True)
    (half / "network.safetensors").write_bytes(source.read_bytes()[:5000])
    with pytest.raises(FileNotFoundError):
        network_of(tmp_path)
    train(recipe_of(), few, tmp_path)
    equal(network_of(tmp_path), network_of(uninterrupted[0]))


@pytest.mark.parametrize("file", ["network.safetensors", "trunk.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_half_written_trunk_is_refused_and_gives_way_to_the_one_that_is_trained_anew(
    file, damage, uninterrupted, few, tmp_path
):
    shutil.copytree(uninterrupted[0] / "trunks", tmp_path / "trunks")
    spoil(tmp_path / "trunks" / TRUNK_ID / file, damage, "trunk")
    with pytest.raises(ValueError, match=rf"{TRUNK_ID} is (damaged|half-written): .*; run its study again"):
        network_of(tmp_path)
    train(recipe_of(), few, tmp_path)
    equal(network_of(tmp_path), network_of(uninterrupted[0]))
    assert stored(tmp_path) == [TRUNK_ID], "nothing beside"


@pytest.mark.parametrize("longest", [0, 5000], ids=["nothing fits", "a part of it fits"])
def test_a_disk_that_is_full_when_a_trunk_is_stored_leaves_nothing_of_it_and_room_is_all_it_needs(
    longest, uninterrupted, few, tmp_path
):
    """No file may grow beyond `longest` bytes, as on a disk where that much is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress):
        if progress.done == progress.total:
            resource.setrlimit(resource.RLIMIT_FSIZE, (longest, hard))

    try:
        with pytest.raises(OSError, match="File too large"):
            train(recipe_of(), few, tmp_path, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stored(tmp_path) == []
    train(recipe_of(), few, tmp_path)
    equal(network_of(tmp_path), network_of(uninterrupted[0]))


def test_a_trunk_that_somebody_else_stored_meanwhile_stays(uninterrupted, few, tmp_path):
    def store(progress):
        if progress.done == progress.total:
            train(recipe_of(), few, tmp_path)

    train(recipe_of(), few, tmp_path, store)
    assert stored(tmp_path) == [TRUNK_ID]
    equal(network_of(tmp_path), network_of(uninterrupted[0]))


@pytest.mark.parametrize("place", [0, 9, -1])
def test_one_changed_byte_of_the_weights_is_refused(place, uninterrupted, tmp_path):
    target = tmp_path / "trunks" / TRUNK_ID
    target.mkdir(parents=True)
    for name in ("network.safetensors", "trunk.json"):
        (target / name).write_bytes((uninterrupted[0] / "trunks" / TRUNK_ID / name).read_bytes())
    network_of(tmp_path)
    data = bytearray((target / "network.safetensors").read_bytes())
    data[place] ^= 1
    (target / "network.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="checksum") as refused:
        network_of(tmp_path)
    assert "\n" not in str(refused.value)


def test_other_seeds_and_tasks_train_other_weights(uninterrupted, few, tmp_path):
    other = train(recipe_of(seed=1, epochs=1), few, tmp_path)
    identity = train(recipe_of("identity", epochs=1), few, tmp_path)
    stem = [network["trunk.stem.weight"] for network in (network_of(uninterrupted[0]), network_of(tmp_path, other))]
    assert not torch.equal(*stem)
    network = network_of(tmp_path, identity)
    assert network["classifier.weight"].shape == (12, 60)  # subjects, 24 + 12 + 12 + 12 maps
    assert sealing.trunk_facts(tmp_path / "trunks" / identity)["classes"] == sorted(set(few.subject.tolist()))


def test_an_untrained_identity_trunk_is_its_initial_weights_and_enters_the_identity_stream_alone(few, tmp_path):
    untrained = config.canonical({"depth": 10, "identity_trunk": "untrained"})
    settings = {name: recipe_of("identity")[name] for name in ("lr", "batch_size", "epochs", "seed")}
    recipe = config.trunk_recipe("identity", untrained, settings, "d" * 32)
    assert recipe == recipe_of("identity") | {"epochs": 0}
    network = network_of(tmp_path, train(recipe, few, tmp_path))
    start = PretrainedNetwork(12, 10)
    initialise(start, "trunk", "identity", recipe["seed"], "weights")
    equal(network, start.state_dict())
    emotion = config.trunk_recipe("emotion", untrained, settings, "d" * 32)
    assert emotion == config.trunk_recipe("emotion", config.canonical({"depth": 10}), settings, "d" * 32)


def test_held_out_pictures_train_nothing(few, tmp_path):
    """Which they are is read from the facts and from whose pixels leave the weights alone."""
    split = np.array(["train", "valid", "train", "test"])[np.arange(72) % 4]
    noise = generator("other pixels").integers(0, 256, few.faces.shape, dtype=np.uint8)
    for root, keep in (("a", split != ""), ("b", split == "train")):
        faces = replace(few, split=split, faces=np.where(keep[:, None, None], few.faces, noise))
        train(recipe_of(epochs=1), faces, tmp_path / root)
    trunk_id = content_id(recipe_of(epochs=1))
    facts = sealing.trunk_facts(tmp_path / "a/trunks" / trunk_id)
    assert (facts["training_pictures"], facts["held_out_pictures"]) == (36, 18)
    equal(network_of(tmp_path / "a", trunk_id), network_of(tmp_path / "b", trunk_id))


def test_a_set_without_a_split_of_its_own_holds_out_one_picture_in_ten_of_each_class(few, tmp_path):
    train(recipe_of(epochs=1), few, tmp_path)
    facts = sealing.trunk_facts(tmp_path / "trunks" / content_id(recipe_of(epochs=1)))
    assert facts["held_out_pictures"] == 6  # each of 6 expressions has 12 pictures
    assert facts["classes_without_held_out"] == 0
    assert facts["hold_out"] == "every 10th picture of a class; none of a class of fewer than 10"


def test_identities_of_fewer_than_ten_pictures_are_trained_on_and_never_judged(few, tmp_path):
    """Which rows are held out is read from whose pixels leave the weights alone, and counted by hand."""
    subject = np.array(["few"] * 9 + ["ten"] * 10 + ["many"] * 29 + ["few, too"] * 4 + ["scattered"] * 20)
    order = generator("scattered").permutation(72)
    subject = subject[order]
    tenth = {"ten": [9], "many": [9, 19], "scattered": [9, 19]}
    held_out = sorted(np.flatnonzero(subject == name)[place] for name, places in tenth.items() for place in places)
    noise = generator("other pixels").integers(0, 256, few.faces.shape, dtype=np.uint8)
    recipe = recipe_of("identity", epochs=1, batch_size=67)  # one step sees all that is trained on
    for root, changed in (("a", []), ("b", held_out), ("c", [*held_out, np.flatnonzero(subject == "few")[8]])):
        pixels = few.faces.copy()
        pixels[changed] = noise[changed]
        train(recipe, replace(few, subject=subject, faces=pixels), tmp_path / root)
    a, b, c = (network_of(tmp_path / root, content_id(recipe)) for root in "abc")
    equal(a, b)
    assert not torch.equal(a["classifier.weight"], c["classifier.weight"])
    facts = sealing.trunk_facts(tmp_path / "a/trunks" / content_id(recipe))
    assert (facts["training_pictures"], facts["held_out_pictures"]) == (67, 5)
    assert (len(facts["classes"]), facts["classes_without_held_out"]) == (5, 2)


def test_where_nothing_is_held_out_no_accuracy_is_stated(few, tmp_path):
    faces = replace(few, split=np.array(["train"] * 72))
    seen = []
    train(recipe_of(epochs=1), faces, tmp_path, seen.append)
    assert {progress.accuracy for progress in seen} == {None}
    facts = sealing.trunk_facts(tmp_path / "trunks" / content_id(recipe_of(epochs=1)))
    assert (facts["held_out_pictures"], facts["held_out_accuracy"]) == (0, None)


def test_bf16_trains_other_weights_of_the_same_fp32_kind_that_resume_to_the_bit_too(uninterrupted, few, tmp_path):
    recipe = recipe_of(precision="bf16")
    train(recipe, few, tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, few, tmp_path / "killed", kill_at(3))
    train(recipe, few, tmp_path / "killed")
    one, other = (network_of(tmp_path / root, content_id(recipe)) for root in ("whole", "killed"))
    equal(one, other)
    weights = network_of(uninterrupted[0])
    assert {name: value.dtype for name, value in one.items()} == {n: value.dtype for n, value in weights.items()}
    start = PretrainedNetwork(6, 10)
    initialise(start, "trunk", "emotion", 0, "weights")
    for name, value in start.named_parameters():
        step, wanted = one[name] - value.detach(), weights[name] - value.detach()
        assert not torch.equal(step, wanted), name


def test_too_few_pictures_for_a_batch_are_refused_in_one_line(few, tmp_path):
    with pytest.raises(ValueError, match="batch_size of a trunk must not exceed the training pictures, got 67 for 66"):
        train(recipe_of(batch_size=67), few, tmp_path)
    assert stored(tmp_path) == []


def test_faces_without_expressions_train_no_emotion_trunk(few, tmp_path):
    nameless = replace(few, name="casia-webface", classes=(), label=np.full(len(few.label), ""))
    with pytest.raises(ValueError, match="learns expressions, but casia-webface has none: give another data set"):
        train(recipe_of(), nameless, tmp_path)


def test_a_loss_that_is_not_finite_is_an_error_and_stores_no_trunk(few, tmp_path):
    with pytest.raises(ValueError, match="loss must stay finite"):
        train(recipe_of(lr=1e30), few, tmp_path)
    assert stored(tmp_path) == []


def test_a_network_that_computes_no_numbers_is_never_stored_also_when_its_training_loss_is_finite(few, tmp_path):
    with pytest.raises(ValueError, match="finite"):
        train(recipe_of(lr=1e10, epochs=1, batch_size=66), few, tmp_path)
    assert stored(tmp_path) == []
