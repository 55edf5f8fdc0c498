"""The disk is full, a file may not grow, the store cannot be written for a while."""

import os
import shutil
import signal
import time

import pytest

from chaos import mounts
from chaos.stage import BOTH, CHECKPOINT, at_stake, stream, times

pytestmark = pytest.mark.chaos
ROOM = 64 * 2**20  # bytes that a study has plenty of


def in_one_line(command):
    """Failed, with the reason, and no traceback."""
    assert command.status == 1, f"{command.status}: {command.said}"
    assert "Traceback" not in command.said
    assert "internal error" not in command.said
    return command.said


@pytest.mark.parametrize("part", range(times(8, 2)))
def test_a_disk_that_is_full_fails_the_run_with_the_reason_and_room_is_all_it_needs(stage, part):
    faces = stage.store()
    held = sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in faces.rglob("*"))
    room = int(stream("room", part).integers(0, 700_000))
    disk = stage.root / f"disk{part}"
    with mounts.small_disk(disk, held + room):
        store = shutil.copytree(faces, disk / "store")
        command = stage.run(store)
        command.end()
        if command.status != 0:
            assert "No space left on device" in in_one_line(command)
        repeated = at_stake(command, store)
        mounts.enlarge(disk, ROOM)
        stage.recover("disk full", store, repeated=[repeated])
        assert list(store.rglob(".*.tmp")) == [], "what could not be written whole is removed"


@pytest.mark.parametrize("part", range(times(8, 1)))
def test_a_write_that_fails_half_way_fails_the_run_with_the_reason(stage, part):
    longest = int(stream("refused", part).integers(2_000, 300_000))
    store = stage.store()
    command = stage.run(store, longest_file=longest, refused=True)
    command.end()
    if command.status != 0:
        assert "File too large" in in_one_line(command)
    stage.recover("a write refused half-way", store, repeated=[at_stake(command, store)])
    assert list(store.rglob(".*.tmp")) == []


@pytest.mark.parametrize("study", BOTH)
def test_a_store_that_is_read_only_for_a_while_fails_the_run_and_the_next_one_ends_it(stage, study):
    store = stage.pretrained()
    command = stage.halted(store, study, CHECKPOINT)
    repeated = at_stake(command, store)
    with mounts.read_only(store):
        os.sync()
        refused = stage.run(store, study)
        assert refused.end() == 2
        assert f"a store must be writable, {store} is not" in refused.said
        command.kill(signal.SIGCONT)
        command.end()
        assert "Read-only file system" in in_one_line(command)
        time.sleep(times(20, 2))
    stage.recover("store read-only", store, study, [repeated])
