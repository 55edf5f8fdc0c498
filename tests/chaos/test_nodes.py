"""Clusters of several nodes: a node is lost, drained or stops answering, the head goes, the network parts."""

import os
import secrets
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import heads
import lab
import pytest

from chaos.stage import FINISH, SHORT, TRIES, at_stake, last_saved, times

pytestmark = pytest.mark.chaos
RAY = str(Path(sys.executable).with_name("ray"))
HEAD, DARK = "gcs_server", "--include-dashboard=false"
DRAINED_BY = 5  # seconds from a preemption notice until the node is gone


class Nodes:
    """A head without cores and two nodes of two cores each, Rays of this machine."""

    def __init__(self, stage):
        port, client = heads.free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self.stage, self.given = stage, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.head = self._begin("--head", f"--port={port}", f"--ray-client-server-port={client}", "--num-cpus=0", DARK)
        self.workers = [self._begin(f"--address={self.address}", "--num-cpus=2") for _ in range(2)]

    def _begin(self, *arguments):
        """A node that has started; `ray start` gives up after 30 seconds, which on a busy machine are too few."""
        for _ in range(TRIES):
            # nodes of one folder take each other's sockets
            folder = f"--temp-dir={self.stage.root}/n{len(self.stage.commands)}"
            plain = (folder, "--block", "--disable-usage-stats", "--object-store-memory=100000000")
            node = self.stage.start(RAY, "start", *arguments, *plain, environment=self.given)
            if node.until(lambda said=node.folder / "here/stdout": "Ray runtime started" in said.read_text()):
                return node
            node.put_down()
        raise AssertionError(node.said)

    def study(self):
        """A study that was stopped in the midst of its packs, and its store."""
        return self.stage.at_work("design", "--address", self.address, environment=self.given)

    def busy(self):
        """A node that trains, and whose loss is felt."""
        found = [node for node in self.workers if node.children("ray::ImplicitFunc")]
        assert found, "no node trains"
        return found[0]

    def close(self):
        for node in [*self.workers, self.head]:
            node.put_down()


@contextmanager
def nodes(stage):
    made = Nodes(stage)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("part", range(times(2, 1)))
def test_a_node_that_is_lost_has_its_packs_trained_on_another(stage, part):
    with nodes(stage) as cluster:
        command, store = cluster.study()
        repeated, began = at_stake(command, store), time.time()
        cluster.busy().put_down()
        command.kill(signal.SIGCONT)
        command.until(lambda: last_saved(store) > began)
        recovery = last_saved(store) - began
        command.end()
    stage.survived("node lost", store, "design", command, [repeated], recovery if recovery > 0 else None)


@pytest.mark.parametrize("words", [HEAD] if SHORT else [HEAD, "raylet/raylet"])
def test_the_head_of_a_cluster_killed_ends_the_run_and_the_next_one_ends_the_study(stage, words):
    with nodes(stage) as cluster:
        command, store = cluster.study()
        repeated = at_stake(command, store)
        for pid in cluster.head.children(words):
            os.kill(pid, signal.SIGKILL)
        command.kill(signal.SIGCONT)
        command.end()
        assert command.status not in (0, 2), command.said
    environment = {"TMPDIR": str(command.folder / "t")}  # where Ray, which ends the driver, has it leave its folder
    stage.recover("head of a cluster killed", store, repeated=[repeated], environment=environment, engine="tune")


def test_a_node_that_is_to_be_taken_away_is_drained_and_its_packs_go_on_elsewhere(stage):
    with nodes(stage) as cluster:
        command, store = cluster.study()
        repeated, victim = at_stake(command, store), cluster.busy()
        node_id = node_id_of(victim)
        notice = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the spot instance is taken back")
        where = ("--address", cluster.address, "--node-id", node_id)
        until = ("--deadline-remaining-seconds", str(DRAINED_BY))
        drained = stage.start(RAY, "drain-node", *where, *notice, *until, environment=cluster.given)
        assert drained.end() == 0, drained.said
        time.sleep(DRAINED_BY)
        victim.put_down()
        command.kill(signal.SIGCONT)
        command.end()
    stage.survived("preemption notice, node drained", store, "design", command, [repeated])


def node_id_of(node):
    """The id that Ray gives the node of this raylet."""
    for pid in node.children("raylet/raylet"):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        return next(word.partition("=")[2] for word in words if word.startswith("--node_id="))
    raise AssertionError("its raylet does not run")


@pytest.mark.skipif(SHORT, reason="the network is cut in the whole suite alone")
def test_a_network_that_is_cut_for_a_minute_keeps_each_trial_once(stage):
    store = stage.store()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with lab.laboratory("head", "one", "two", shared=store) as hosts:
        plain = "--disable-usage-stats --object-store-memory=100000000"
        address = f"{hosts['head'].address}:6379"
        for name in ("head", "one", "two"):
            own = f"--head --port=6379 --num-cpus=0 {DARK}" if name == "head" else f"--address={address} --num-cpus=2"
            hosts[name].run(f"ray start {own} --node-ip-address={hosts[name].address} {plain}", **token)
        line = f"study run {lab.SHARED}/design.yaml --store {lab.SHARED} --address {address}"
        driver = hosts["head"].start(f"exec python -m orchestrator.cli.app {line}", **token)
        lab.wait_until(lambda: list(store.glob("checkpoints/pack*")) or driver.poll() is not None, FINISH)
        assert driver.poll() is None, driver.communicate()[1]
        hosts.cut("one")
        time.sleep(60)
        hosts.heal("one")
        _, said = driver.communicate(timeout=FINISH)
        driver.said, driver.status = said, driver.returncode
    stage.survived("network cut for a minute", store, "design", driver)
