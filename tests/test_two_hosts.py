"""A cluster as one has it: typed on one host, `cluster up` on two others, a study on both, one lost, `cluster down`."""

import os
import re
import shutil
import signal
import sys
import time
from contextlib import suppress

import polars as pl
import pytest
from conftest import changed, idenctl
from lab import KEY, ROOT, SHARED, laboratory, wait_until

from orchestrator.store import Store

pytestmark = pytest.mark.cluster

STUDY = """
name: hosts
question: Does it matter where?
dataset: oulu-casia
folds: [0]
base: {depth: 10, epochs: 12, lr: 0.1, augment: false}
design:
  grid: {variant: [original, f], batch_size: [16, 24, 32]}
trunks:
  emotion: {epochs: 1, batch_size: 16}
  identity: {epochs: 1, batch_size: 16}
report: {by: batch_size}
"""
ELSEWHERE = ("pack_id", "seconds", "started_at", "finished_at", "host")  # may differ between two equal runs
IDENCTL = "python -m orchestrator.cli.app"
FILE = f"{SHARED}/local.yaml"
RAY_STARTED = re.compile(r"head up after (\d+) s.*of 2 nodes up after (\d+) s", re.DOTALL)


@pytest.fixture(scope="module")
def shared(trained_store, tmp_path_factory):
    """What all hosts see: the project's cluster file, filled in, a study, and stores with data and trunks for it."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "local.yaml").write_text(filled((ROOT / "cluster" / "local.yaml").read_text()))
    (folder / "hosts.yaml").write_text(STUDY)
    for name in ("store", "alone"):
        for part in ("data", "trunks"):
            shutil.copytree(trained_store / part, folder / name / part)
        shutil.copy(trained_store / "store.json", folder / name)
    return folder


@pytest.fixture(scope="module")
def lab(shared):
    with laboratory("laptop", "head", "worker", shared=shared) as hosts:
        yield hosts


def filled(text):
    """The cluster file for the laboratory's hosts, which have Python's environment already and reach no registry."""
    install = "  - cd ~/idenctl && .venv/bin/python -m pip install --quiet --constraint constraints.txt '.[aws]'\n"
    for old, new in {
        "FILL_IN_HEAD_ADDRESS": "10.77.0.2",
        "FILL_IN_WORKER_ADDRESS": "10.77.0.3",
        "FILL_IN_USER": "root",
        "~/.ssh/FILL_IN_KEY": KEY,
        "python3 -m venv ~/idenctl/.venv": f"ln -s {sys.prefix} ~/idenctl/.venv",
        install: "",
        "ray start --head": "ray start --num-cpus=1 --head",  # the two share this machine's cores
        "ray start --address": "ray start --num-cpus=1 --address",
    }.items():
        text = changed(text, old, new)
    return text


def tables(root):
    """All that two equal runs have in common: their trials, curves and predictions."""
    store = Store(root)
    found = [table.drop(ELSEWHERE, strict=False) for table in (store.trials(), store.curves(), store.predictions())]
    return [table.sort(table.columns[:4]) for table in found]


def test_a_study_on_two_hosts_ends_with_one_machines_rows_though_one_is_lost_and_leaves_nothing(lab, shared, capsys):
    laptop = lab["laptop"]
    began = time.time()
    up = laptop.run(f"cd {ROOT} && {IDENCTL} cluster up {FILE} --limit 1500", timeout=1800)
    assert up.stdout == "head 10.77.0.2\nworker 10.77.0.3\n"
    head_up, all_up = RAY_STARTED.search(up.stderr).groups()
    token = laptop.run("stat --format %a ~/.ray/auth_token; cat ~/.ray/auth_token").stdout.split()[1]
    assert lab["worker"].run("stat --format %a ~/.ray/auth_token").stdout == "600\n"

    laptop.start(f"exec ray dashboard {FILE}", RAY_AUTH_MODE="token")
    wait_until(lambda: "127.0.0.1:8265" in laptop.listening(), 300)
    submit = f"{IDENCTL} study submit {SHARED}/hosts.yaml --address http://127.0.0.1:8265 --store {SHARED}/store"
    job = laptop.start(f"{submit} >{SHARED}/said 2>&1")
    try:
        wait_until(lambda: job.poll() is not None or (stored(shared) and training(lab["worker"])), 1800)
        first = min(stored(shared).values()).timestamp()
        assert job.poll() is None, "the worker is lost in the midst of a pack"
        lab.lose("worker")
        assert job.wait(1200) == 0
    finally:
        said = (shared / "said").read_text()
        print(said)
    assert "6 of 6 trials complete" in said

    alone = idenctl("study", "run", shared / "hosts.yaml", "--engine", "inline", "--store", shared / "alone")
    assert alone.returncode == 0, alone.stderr
    for here, there in zip(tables(shared / "alone"), tables(shared / "store"), strict=True):
        assert here.equals(there)

    down = laptop.run(f"{IDENCTL} cluster down {FILE}", check=False)
    assert down.returncode == 1
    assert "left: 10.77.0.3: not reached, so what runs there is unknown" in down.stderr
    lab.boot("worker")
    for pid, line in laptop.processes().items():
        if "ray dashboard" in line or line.startswith("ssh"):  # the tunnel keeps a shell on the head
            with suppress(ProcessLookupError):  # the end of one is the other's
                os.kill(pid, signal.SIGTERM)
    down = laptop.run(f"{IDENCTL} cluster down {FILE}")
    assert "nothing of it is left" in down.stderr
    assert not lab["head"].processes()
    assert not lab["head"].listening()
    for text in (up.stderr, said, down.stderr):
        assert token not in text
    with capsys.disabled():
        print(f"\ncluster up: head after {head_up} s, both after {all_up} s; first trial after {first - began:.0f} s")


def training(host):
    """Whether a pack runs on a host, by what Ray calls its processes."""
    return any(re.match(r"ray::.*train", line) for line in host.processes().values())


def stored(shared):
    """When the first trial of each host was stored, seconds since 1970."""
    if not (shared / "store" / "trials").is_dir():
        return {}
    return dict(Store(shared / "store").trials().group_by("host").agg(pl.col("finished_at").min()).iter_rows())
