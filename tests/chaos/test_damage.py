"""Files that are not what was written: cut, or with a bit turned over; a trunk that was copied half."""

import shutil

import pytest

from chaos.stage import at_stake, stream, times

pytestmark = pytest.mark.chaos


def damage(path, draws):
    """Cut the file, or turn one of its bits over."""
    content = bytearray(path.read_bytes())
    place = int(draws.integers(len(content)))
    if draws.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= 1 << int(draws.integers(8))
    path.write_bytes(content)


def stopped(stage, study):
    """A store whose driver was killed when it had checkpoints of two epochs, and what that cost in seconds."""
    store = stage.pretrained()
    command = stage.halted(store, study, "checkpoints/pack-*.2.safetensors")
    repeated = at_stake(command, store)
    assert command.kill_group()
    return store, repeated


@pytest.mark.parametrize("study", ["design", "search"])
@pytest.mark.parametrize("part", range(times(4, 1)))
def test_a_damaged_checkpoint_costs_its_epochs_and_no_bit(stage, study, part):
    store, repeated = stopped(stage, study)
    draws = stream("checkpoint", study, part)
    found = sorted(store.glob("checkpoints/pack*"), key=lambda path: path.stat().st_mtime)
    assert len(found) == 2
    for path in found[-1:] if part % 2 else found:  # the last, or all
        damage(path, draws)
    stage.recover("damaged checkpoint", store, study, [repeated])


@pytest.mark.parametrize("table", ["trials", "curves", "predictions"])
@pytest.mark.parametrize("part", range(times(3, 1)))
def test_a_damaged_file_of_rows_is_left_as_it_is_and_its_trials_run_again(stage, table, part):
    store = stage.copy()
    draws = stream("rows", table, part)
    victim = draws.choice(sorted(store.glob(f"{table}/[!.]*.parquet")))
    damage(victim, draws)
    kept = victim.read_bytes()
    stage.recover("damaged Parquet file", store)
    assert f"warning: {victim} is damaged or missing" in stage.commands[-1].said
    assert victim.read_bytes() == kept


@pytest.mark.parametrize("missing", ["trunk.json", "network.safetensors"])
def test_a_half_written_trunk_is_named_and_trained_again(stage, missing):
    store = stage.copy()
    for table in ("trials", "curves", "predictions"):
        shutil.rmtree(store / table)
    folder = min(store.glob("trunks/[!.]*"))
    (folder / missing).unlink()
    stage.recover("half-written trunk", store)
    said = f"the trunk {folder} is half-written: it has no {missing}"
    assert said in stage.commands[-1].said


@pytest.mark.parametrize("part", range(times(3, 1)))
def test_a_damaged_checkpoint_of_a_trunk_costs_its_steps_and_no_bit(stage, part):
    store = stage.store()
    command = stage.halted(store, "design", "checkpoints/trunk-*.safetensors")
    repeated = at_stake(command, store)
    assert command.kill_group()
    for path in store.glob("checkpoints/trunk*"):
        damage(path, stream("trunk", part, path.name))
    stage.recover("damaged checkpoint of a trunk", store, repeated=[repeated])
