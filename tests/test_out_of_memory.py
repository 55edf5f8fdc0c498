"""A pack that takes more memory than there is: it is cut in two, and nothing is lost."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from idennet_core import checkpoint
from orchestrator import inline_engine
from orchestrator.planning import Capacity
from orchestrator.progress import PackCut, PackDone, PackFailed, PackStarted, TrialFailed
from orchestrator.source import Listed
from orchestrator.store import Store
from orchestrator.study_rules import Rules
from orchestrator.trial import Configuration, Pack, Rungs, Trial, TrialResult

TRIALS = tuple(Trial(Configuration({"size": size}, {"data": "d"}), fold, 0) for size in range(4) for fold in range(2))
GIGABYTE = 2**30


class Hungry:
    """A workload whose packs each ask for a gigabyte a trial, or die of torch's error above a number of trials."""

    rules = Rules({"size": 0}, ())

    def __init__(self, most=None, glutton=None):
        self.most, self.glutton, self.ran = most, glutton, []

    def run(self, pack, context):
        if self.most is None:
            held = [np.empty(GIGABYTE, np.uint8) for _ in pack.trials]
            assert held
        elif len(pack.trials) > self.most or self.glutton in pack.trials:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.ran.append((len(pack.trials), pack.first_epoch))
        return [TrialResult(trial, "complete", True, 1, 1, 0.0, accuracy=0.5) for trial in pack.trials]


def run(workload, store, pack, deadline=None):
    told = []
    inline_engine.run(Listed([pack]), workload, store, Capacity("cpu", 1, 1), told.append, deadline)
    return told


def test_a_pack_that_really_runs_out_of_memory_is_cut_until_it_fits(tmp_path):
    script = (
        "import resource, sys\nfrom tests.test_out_of_memory import *\n"
        f"store = Store(Path({str(tmp_path)!r})).open()\n"
        "store.states()\n"  # whatever that loads is loaded now
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 29 * GIGABYTE // 10, resource.RLIM_INFINITY))\n"
        "workload = Hungry()\n"
        "told = run(workload, store, Pack(TRIALS))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print(json.dumps([workload.ran, [type(event).__name__ for event in told], store.states()]))\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran, told, states = json.loads(done.stdout)
    assert ran == [[2, 0]] * 4
    assert told.count("PackCut") == 3  # of 8, of 4 and of 4 trials
    assert states == {trial.trial_id: "complete" for trial in TRIALS}


def test_halves_go_on_from_the_packs_checkpoint(tmp_path):
    store, pack, workload = Store(tmp_path).open(), Pack(TRIALS), Hungry(most=4)
    ids = [trial.trial_id for trial in TRIALS]
    metadata = {"epoch": "3", "trials": json.dumps(ids)}
    checkpoint.save(store.checkpoints / f"pack-{pack.pack_id}.safetensors", {"x": torch.zeros(1)}, metadata)
    told = run(workload, store, pack)
    assert workload.ran == [(4, 3), (4, 3)]
    (cut,) = [event for event in told if isinstance(event, PackCut)]
    assert cut.reason == "took more memory than there is: OutOfMemoryError: CUDA out of memory"
    assert [len(half.trials) for half in cut.halves] == [4, 4]
    assert sum(len(event.accuracies) for event in told if isinstance(event, PackDone)) == 8


def test_the_trial_that_does_not_fit_alone_is_told_and_all_others_are_trained(tmp_path):
    store, workload = Store(tmp_path).open(), Hungry(most=8, glutton=TRIALS[3])
    told = run(workload, store, Pack(TRIALS))
    (failed,) = [event for event in told if isinstance(event, TrialFailed)]
    assert failed.trial == TRIALS[3]
    assert failed.pack_id == Pack((TRIALS[3],)).pack_id
    ended = [event.pack_id for event in told if isinstance(event, PackCut | PackDone | TrialFailed)]
    assert sorted(ended) == sorted(event.pack_id for event in told if isinstance(event, PackStarted))
    assert set(store.states()) == {trial.trial_id for trial in TRIALS} - {TRIALS[3].trial_id}


def test_halves_of_a_pack_whose_time_is_up_are_left_to_the_next_run(tmp_path, monkeypatch):
    deadline = time.time() + 3600

    class Late(Hungry):
        def run(self, pack, context):
            monkeypatch.setattr(time, "time", lambda: deadline)
            raise MemoryError

    told = run(Late(), Store(tmp_path).open(), Pack(TRIALS), deadline)
    assert [type(event) for event in told] == [PackStarted, PackCut]


def test_another_error_is_not_taken_for_one_of_memory(tmp_path):
    class Broken(Hungry):
        def run(self, pack, context):
            raise RuntimeError("shapes do not match")

    started, failed = run(Broken(), Store(tmp_path).open(), Pack(TRIALS))
    assert isinstance(started, PackStarted)
    assert isinstance(failed, PackFailed)
    assert failed.reason == "RuntimeError: shapes do not match"


def test_halves_of_a_pack_under_rungs_go_on_although_their_first_trial_has_left(tmp_path):
    rungs = Rungs((1,), (None,), ((),), (0, 1), (0,), 0.05, 1 / 8)
    store, pack, workload = Store(tmp_path).open(), Pack(TRIALS, rungs=rungs), Hungry(most=4)
    ids = [trial.trial_id for trial in TRIALS]
    metadata = {"epoch": "3", "trials": json.dumps(ids), "left": json.dumps(ids[:2]), "rungs": rungs.rungs_id}
    checkpoint.save(store.checkpoints / f"pack-{pack.pack_id}.safetensors", {"x": torch.zeros(1)}, metadata)
    run(workload, store, pack)
    assert workload.ran == [(4, 3), (4, 3)]
