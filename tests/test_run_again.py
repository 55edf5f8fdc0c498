"""Studies that are killed, interrupted or damaged and run again: their rows are those of an undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_study
from conftest import idenctl
from damage import spoil
from small_study import (
    ELSEWHERE,
    FINISH,
    SEARCH,
    Forked,
    assert_equal_runs,
    run,
    run_on_ray,
    start_on_ray,
    wait_until,
)

from idennet_core.streams import generator
from orchestrator.store import Store

ROOT = Path(__file__).parent.parent


@pytest.fixture
def store(prepared_store, tmp_path):
    return shutil.copytree(prepared_store, tmp_path / "store")


@pytest.mark.parametrize("epoch", [1, 2])
def test_killed_inline_and_run_again_equals_uninterrupted(uninterrupted, store, epoch):
    process = Forked(store, small_study.epoch(epoch))
    process.kill()
    process.wait()
    planned = json.loads(idenctl("study", "plan", store / "study.yaml", "--json", "--store", store).stdout)
    assert max(pack["first_epoch"] for pack in planned["packs"]) >= epoch, "what was trained is not trained again"
    assert run(store).returncode == 0
    assert_equal_runs(store, uninterrupted)


def test_killed_and_its_last_checkpoint_damaged_goes_on_from_the_one_before_it_by_itself(uninterrupted, store):
    process = Forked(store, small_study.epoch(2))
    process.kill()
    process.wait()
    last = max(store.glob("checkpoints/pack-*.safetensors"), key=lambda path: int(path.name.split(".")[1]))
    spoil(last, "flipped")
    again = Forked(store)
    _, said = again.communicate()
    assert again.returncode == 0, said
    (damaged,) = [line for line in said.splitlines() if f"{last} is damaged" in line]
    assert damaged.startswith("warning: ")
    assert "Traceback" not in said
    assert_equal_runs(store, uninterrupted)
    assert list((store / "checkpoints").glob("*")) == []


def test_killed_again_and_again_at_any_moment_equals_uninterrupted(uninterrupted, store):
    for moment in generator("moments of death").uniform(0, 3, 6):
        process = Forked(store)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert run(store).returncode == 0
    assert_equal_runs(store, uninterrupted)


def test_the_driver_killed_on_ray_tune_and_run_again_equals_uninterrupted(uninterrupted, store):
    process = start_on_ray(store, small_study.epoch(1))
    process.kill()  # the driver alone: Ray's processes must not go on writing for ever
    process.wait()
    assert run(store).returncode == 0
    assert_equal_runs(store, uninterrupted)


@pytest.mark.parametrize("start", [Forked, start_on_ray], ids=["inline", "tune"])
def test_ctrl_c_says_what_is_safe_and_ends_with_130(uninterrupted, store, start):
    process = start(store, small_study.epoch(1))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=FINISH)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "run the same command again" in said
    assert run(store).returncode == 0
    assert_equal_runs(store, uninterrupted)


def test_ctrl_c_pressed_on_while_the_run_ends_says_nothing_more(store):
    process = start_on_ray(store, small_study.epoch(1))
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "run the same command again" in line:
            break
    for _ in range(4):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=FINISH)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


def test_ctrl_c_while_the_command_is_still_loading_ends_it_without_a_word(tmp_path):
    (tmp_path / "typer.py").write_text("import time\nopen('loading', 'w').close()\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "idenctl", "doctor"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    wait_until((tmp_path / "loading").exists, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=FINISH)
    assert (process.returncode, said) == (-signal.SIGINT, ""), "which a shell calls 130"


def test_a_search_whose_driver_is_killed_on_ray_tune_finds_what_the_uninterrupted_one_does(store, tmp_path):
    (store / "study.yaml").write_text(SEARCH)
    shutil.copytree(store, tmp_path / "whole")
    assert run(tmp_path / "whole").returncode == 0
    process = start_on_ray(store, r"/asked/\w+/search/00001\.json$")
    process.kill()
    process.wait()
    status, said = run_on_ray(store)
    assert status == 0, said
    one, other = (Store(root).every_trial().drop(ELSEWHERE).sort("trial_id") for root in (store, tmp_path / "whole"))
    assert one.equals(other), "to the bit"
    assert one.height == 5 * 2 + 2
    assert one["accuracy"].drop_nulls().len() == 2, "the chosen, tested"
    answers = [json.loads((root / "studies/small/search.json").read_text()) for root in (store, tmp_path / "whole")]
    assert answers[0] == answers[1]
    assert len(list((store / "heads").glob("*"))) == 2
    assert "chosen" in idenctl("report", "small", "--store", store).stdout


def test_trunks_killed_half_way_are_finished_to_the_same_bits(prepared_store, tmp_path):
    shutil.copytree(prepared_store, tmp_path / "store", ignore=shutil.ignore_patterns("trunks"))
    process = Forked(tmp_path / "store", r"/trunk-\w+\.\d+\.safetensors$")
    process.kill()
    process.wait()
    assert idenctl("trunk", "train", tmp_path / "store/study.yaml", "--store", tmp_path / "store").returncode == 0
    weights = {path.parent.name: path.read_bytes() for path in prepared_store.glob("trunks/*/*.safetensors")}
    again = {path.parent.name: path.read_bytes() for path in tmp_path.glob("store/trunks/*/*.safetensors")}
    assert weights == again
    assert len(weights) == 2


def test_a_damaged_file_is_named_kept_and_its_trials_run_again(store, uninterrupted, caplog):
    shutil.copytree(uninterrupted, store, dirs_exist_ok=True)
    victim = min((store / "trials").glob("*.parquet"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:100])
    done = run(store)
    assert done.returncode == 0, done.stderr
    assert any(message.startswith(str(victim)) for message in caplog.messages)
    assert victim.stat().st_size == 100
    assert_equal_runs(store, uninterrupted)


def test_a_damaged_trunk_is_named_and_trained_anew_and_the_rows_are_those_of_an_undisturbed_run(
    store, uninterrupted, caplog
):
    recipes = {path.parent: json.loads(path.read_text()) for path in store.glob("trunks/*/trunk.json")}
    (identity,) = [folder for folder, facts in recipes.items() if facts["recipe"]["task"] == "identity"]
    spoil(identity / "network.safetensors", "flipped")
    done = run(store)
    assert done.returncode == 0, done.stderr
    assert sum(message.startswith(f"the trunk {identity} is damaged") for message in caplog.messages) == 1
    assert_equal_runs(store, uninterrupted)
