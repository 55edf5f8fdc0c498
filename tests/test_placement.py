"""Where packs run on a cluster: which devices it has, what packs wait for, and when that is in vain."""

import json
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import coins
import heads
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as some
from ray.util import get_node_ip_address

from orchestrator.cluster import placement
from orchestrator.cluster.growth import Growth, Machine, read_growth
from orchestrator.cluster.placement import Need, Now, capacity, describe, explain
from orchestrator.planning import Capacity

ROOT = Path(__file__).parent.parent
FINISH = 900  # seconds after which a command hangs
GPU = Machine(8, 1, gpu="A100", gpu_memory=40)
GROWING = Growth({"spot": (GPU, 4), "demand": (GPU, 4), "cpu": (Machine(4), 8)}, 4, "head")
FAKE_HEAD = "f" * 51 + "00000"  # the head's id in Ray's provider of fake machines
FILE = {
    "cluster_name": "growing",
    "max_workers": 2,
    "provider": {
        "type": "external",
        "module": "slow_nodes.SlowNodes",
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 10**8},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "idle_timeout_minutes": 5,
    "upscaling_speed": 1.0,
    # what Ray's first autoscaler does not do without
    "file_mounts_sync_continuously": False,
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{f"{kind}_commands": [] for kind in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
}
machines = some.builds(
    Machine, some.integers(0, 64), some.integers(0, 8), some.integers(0, 100), gpu_memory=some.integers(0, 80)
)


# which devices


@pytest.mark.parametrize(
    ("here", "growth", "expected"),
    [
        ([Machine(16, memory=64)], Growth(), Capacity("cpu", 1, 16, 64)),
        ([Machine(0), Machine(16), Machine(16)], Growth(), Capacity("cpu", 2, 16)),
        # a small head beside large workers does not make the devices small
        ([Machine(2), Machine(64, memory=90), Machine(64, memory=80)], Growth(), Capacity("cpu", 2, 64, 80)),
        ([Machine(64, memory=80), Machine(4, memory=20)], Growth(), Capacity("cpu", 1, 64, 80)),
        ([Machine(16, memory=80), Machine(8, memory=60)], Growth(), Capacity("cpu", 3, 8, 40)),
        # the smallest GPU decides, and the machine with fewest cores for each
        (
            [Machine(32, 4, gpu_memory=80), Machine(4, 1, gpu_memory=16), Machine(64)],
            Growth(),
            Capacity("gpu", 5, 4, 16),
        ),
        # what is to come counts, no more of it than the cluster may have, and memory that nobody knows does not
        ([Machine(2)], GROWING, Capacity("gpu", 4, 8, 40)),
        ([Machine(2)], Growth({"gpu": (Machine(8, 2), 9)}, 3), Capacity("gpu", 6, 4)),
        ([GPU] * 6, GROWING, Capacity("gpu", 6, 8, 40)),
        ([Machine(0)], Growth({"cpu": (Machine(4), 8)}, 4), Capacity("cpu", 4, 4)),
        # of a cluster of which nothing is known the least is asked
        ([Machine(0)], Growth(), Capacity("cpu", 1, 1)),
        ([], Growth(), Capacity("cpu", 1, 1)),
    ],
)
def test_the_devices_are_the_clusters(here, growth, expected):
    assert capacity(here, growth) == expected


@given(some.lists(machines, max_size=8))
def test_every_pack_of_a_device_fits_the_machines_as_often_as_there_are_devices(here):
    found = capacity(here, Growth())
    if found.kind == "gpu":
        room = [one.gpus for one in here if one.gpus]
        assert all(one.cpus >= found.cpus * one.gpus or found.cpus == 1 for one in here if one.gpus)
    else:
        room = [one.cpus // found.cpus for one in here]
        assert not any(one.gpus for one in here)
    assert found.devices == max(sum(room), 1)


def test_a_cluster_is_described_by_its_devices_and_what_it_can_grow_to():
    assert describe([Machine(4), Machine(8, 1, gpu="A100"), Machine(8, 2, gpu="T4")], Growth()) == (
        "3 machines, 3 GPUs (1 A100, 2 T4)"
    )
    assert describe([Machine(8, 1, gpu_memory=16 * 2**30)], Growth()) == "1 machine, 1 GPU, the smallest with 16 GiB"
    assert describe([Machine(2)], GROWING) == "1 machine, 2 CPUs; the autoscaler can start 4 GPUs (A100)"


# what packs wait for

ONE = Need(8, 1)


@pytest.mark.parametrize(
    ("need", "now", "running", "expected"),
    [
        (ONE, Now([Machine(2)], [(2, 0)], Counter(spot=2), ["head"]), 0,
         "waiting for 1 GPU: the cluster has 0, the autoscaler is starting 2"),
        (ONE, Now([Machine(2)], [(2, 0)], {}, ["head"]), 0,
         "waiting for 1 GPU: the cluster has 0, the autoscaler can start 4 GPUs (A100)"),
        (ONE, Now([Machine(2)], [(2, 0)], {}, ["head"], ["full"]), 0,
         "waiting for 1 GPU: the cluster has 0, the autoscaler can start 4 GPUs (A100), which failed: full"),
        (ONE, Now([GPU], [(0, 0)], {}, ["head", "spot"]), 0,
         "waiting for 1 GPU: the cluster has 1 GPU (A100), not free"),
        (ONE, Now([GPU], [(0, 0)], Counter(spot=3), ["head", "spot"]), 1,
         "waiting for more devices: the cluster has 1 GPU (A100), the autoscaler is starting 3"),
        (Need(16, 1), Now([GPU], [(8, 1)], {}, ["head"]), 0,
         "waiting for 1 GPU: no machine has one with 16 CPUs beside it, and nothing can bring more"),
        (Need(8), Now([Machine(4), Machine(2)], [(4, 0), (2, 0)], Counter(spot=1), ["head"]), 0,
         "waiting for 8 CPUs: the largest machine has 4, the autoscaler is starting 1 machine"),
        (Need(1, 0.5), Now([Machine(2)], [(2, 0)], Counter(spot=1), ["head"]), 0,
         "waiting for 0.5 of a GPU: the cluster has 0, the autoscaler is starting 1"),
        # packs that wait for each other, or for a worker that starts, are no news
        (ONE, Now([GPU], [(0, 0)], {}, ["head"]), 1, None),
        (ONE, Now([GPU], [(8, 1)], {}, ["head"]), 0, None),
    ],
)  # fmt: skip
def test_what_packs_wait_for_is_said(need, now, running, expected):
    reason = explain(need, now, GROWING, running)
    assert (reason and reason.text) == expected
    if reason:
        assert reason.hope is ("nothing can" not in reason.text)


@pytest.mark.parametrize(
    ("growth", "kinds"),
    [(Growth(), ["node_1"]), (GROWING, ["node_1"]), (GROWING, []), (Growth({"cpu": (Machine(4), 8)}, 4), ["cpu"])],
)
def test_there_is_no_hope_where_no_autoscaler_can_bring_what_is_asked(growth, kinds):
    assert not explain(ONE, Now([Machine(2)], [(2, 0)], {}, kinds), growth, 0).hope
    assert explain(ONE, Now([Machine(2)], [(2, 0)], {"unknown": 1}, kinds), growth, 0).hope, "who knows what that is"


def test_a_reason_is_told_once_again_when_it_changes_and_raised_when_it_is_in_vain(monkeypatch):
    now, said = [0.0], []
    states = {"none": Now([Machine(2)], [(2, 0)]), "one": Now([GPU], [(8, 1)])}
    current = ["none"]
    monkeypatch.setattr(placement.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(placement, "state", lambda: states[current[0]])
    watch = placement.Watch(ONE, Growth(), said.append)

    def pass_by(seconds):
        for _ in range(int(seconds)):
            now[0] += 1
            watch.look(3, 0)

    text = "waiting for 1 GPU: the cluster has 0, and nothing can bring more"
    pass_by(placement.PATIENCE - 5)
    assert said == [text]
    current[0] = "one"
    pass_by(10)
    assert said == [text, ""]
    current[0] = "none"
    pass_by(placement.PATIENCE - 5)
    assert said == [text, "", text]
    with pytest.raises(placement.NoDevice, match="run the same command again"):
        pass_by(20)


def test_a_cluster_file_says_what_its_autoscaler_can_start(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(json.dumps(FILE))
    assert read_growth(file) == Growth({"worker": (Machine(1, 1), 2)}, 2, "ray.head.default")
    file.write_text("provider: {type: local, head_ip: a, worker_ips: [b]}\n")
    assert read_growth(file) == Growth()
    file.write_text(json.dumps({**FILE, "available_node_types": {"worker": {"node_config": {}}}}))
    with pytest.raises(ValueError, match="states its cores and GPUs"):
        read_growth(file)
    file.write_text("name: study\n")
    with pytest.raises(ValueError, match="available_node_types"):
        read_growth(file)


@pytest.mark.parametrize(
    "content",
    [
        "provider: aws", "available_node_types: {a: {resources: [CPU]}}", "available_node_types: {a: {resources: 3}}",
        "max_workers: \navailable_node_types: {a: {}}", "available_node_types: {a: {resources: {CPU: many}}}",
        "spec: {enableInTreeAutoscaling: true, workerGroupSpecs: [a]}",
        "spec: {enableInTreeAutoscaling: true, workerGroupSpecs: [{rayStartParams: {num-cpus: x}}]}",
    ],
)  # fmt: skip
def test_a_cluster_file_of_another_form_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "cluster.yaml"
    file.write_text(content + "\n")
    with pytest.raises(ValueError, match=f"in their form, got another; see: idenctl cluster check {file}$"):
        read_growth(file)


KUBERAY = """\
kind: RayCluster
spec:
  enableInTreeAutoscaling: true
  workerGroupSpecs:
    - groupName: gpu
      maxReplicas: 8
      template: {spec: {containers: [{resources: {limits: {cpu: 4500m, memory: 14Gi, nvidia.com/gpu: "2"}}}]}}
    - {groupName: cpu, maxReplicas: 2, rayStartParams: {num-cpus: "16"}}
---
kind: NetworkPolicy
spec: {podSelector: {}}
"""


def test_a_kuberay_file_says_it_too(tmp_path):
    file = tmp_path / "kuberay.yaml"
    file.write_text(KUBERAY)
    assert read_growth(file) == Growth({"gpu": (Machine(4, 2), 8), "cpu": (Machine(16), 2)}, 10, "headgroup")
    file.write_text(KUBERAY.replace("enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false"))
    assert read_growth(file) == Growth()


# on real clusters


def idenctl(head, folder, *arguments):
    """A command in the user's folder on a machine of the cluster."""
    everything = [sys.executable, "-m", "orchestrator.cli.app", *map(str, arguments)]
    environment = head.environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(everything, cwd=folder, env=environment, capture_output=True, text=True, timeout=FINISH)
    assert heads.TOKEN not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    return coins.written(tmp_path_factory.mktemp("placed") / "mine")


@pytest.fixture(scope="module")
def head(workload):
    """A cluster with two cores, whose workers know the program and the user's workload."""
    with heads.head("--num-cpus=2", path=(ROOT, workload)) as found:
        yield found


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("side", "what", "reason"),
    [
        ("edge", "pack ", "it stands on its edge"),
        ("lost", "trial ", "alone in its pack it killed its worker 3 times: "),
    ],
)
def test_a_run_in_which_a_pack_fails_ends_with_status_1(head, workload, tmp_path, side, what, reason):
    coins.written(workload, sides=f"heads, {side}")
    done = idenctl(head, workload, "study", "run", "coin.yaml", "--address", head.address, "--store", tmp_path)
    assert done.returncode == 1, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith(what) and reason in line]) == 2
    assert "2 of 4 trials complete" in done.stderr


@pytest.mark.cluster
def test_a_run_whose_packs_fit_nowhere_ends_with_status_1_and_the_reason(head, workload, tmp_path, monkeypatch):
    coins.written(workload, sides="heads")
    file = tmp_path / "cluster.yaml"
    file.write_text(json.dumps(FILE))
    arguments = ("study", "run", "coin.yaml", "--address", head.address, "--cluster", file, "--store", tmp_path / "s")
    done = idenctl(head, workload, *arguments)
    assert done.returncode == 1, done.stderr
    reason = "waiting for 1 GPU: the cluster has 0, and no autoscaler that knows the cluster file can bring more"
    assert done.stderr.splitlines().count(reason) == 1
    assert f"error: {reason}; start a machine that has" in done.stderr
    assert "0 of 2 trials complete" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.cluster
def test_machines_with_gpus_of_several_kinds_share_the_packs_each_with_a_share_of_a_gpu(workload, tmp_path):
    coins.written(workload)
    machines = []
    for name, mebibytes in (("A100", 40960), ("T4", 16384)):
        programs = tmp_path / name
        programs.mkdir()
        (programs / "nvidia-smi").write_text(f"#!/bin/sh\necho {mebibytes}\n")  # the GPUs are Ray's word alone
        (programs / "nvidia-smi").chmod(0o755)
        resources = json.dumps({f"accelerator_type:{name}": 1})
        machines.append((("--num-cpus=2", "--num-gpus=1", f"--resources={resources}"), programs))
    with heads.head("--num-cpus=0", path=(ROOT, workload)) as found, ExitStack() as stack:
        for count, (options, programs) in enumerate(machines, start=2):
            stack.enter_context(heads.node(found, count, *options, path=(ROOT, workload), programs=[programs]))
        arguments = ("--address", found.address, "--store", tmp_path / "store")
        done = idenctl(found, workload, "study", "run", "coin.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    assert "3 machines, 2 GPUs (1 A100, 1 T4), the smallest with 16 GiB" in done.stderr
    assert set(pl.read_parquet(tmp_path / "store" / "trials" / "*.parquet")["device"]) == {"gpu"}


@pytest.mark.cluster
@pytest.mark.parametrize("version", [1, 2])
def test_packs_wait_aloud_for_gpus_that_an_autoscaler_starts_and_run_on_them(workload, tmp_path, version):
    coins.written(workload, sides="heads")
    file, (port,) = tmp_path / "cluster.yaml", heads.free_ports(1)
    provider = FILE["provider"] | {"gcs_address": f"{get_node_ip_address()}:{port}"}
    scaling = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    if version == 2:
        provider |= {"launch_multiple": True, "head_node_id": FAKE_HEAD}
        names = ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING")
        scaling |= {"RAY_enable_autoscaler_v2": "1"} | dict.fromkeys(names, FAKE_HEAD)
    file.write_text(json.dumps(FILE | {"provider": provider}))
    options = ("--num-cpus=0", f"--autoscaling-config={file}")
    with heads.head(*options, path=(ROOT, ROOT / "tests", workload), port=port, **scaling) as found:
        arguments = ("--address", found.address, "--cluster", file, "--store", tmp_path / "store")
        done = idenctl(found, workload, "study", "run", "coin.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    assert "the autoscaler can start 2 GPUs" in done.stderr
    assert "waiting for 1 GPU: the cluster has 0, the autoscaler is starting" in done.stderr
    assert set(pl.read_parquet(tmp_path / "store" / "trials" / "*.parquet")["device"]) == {"gpu"}


TRUNKS = """
import sys
from orchestrator import tune_engine
from orchestrator.cluster import placement
from orchestrator.planning import Capacity

placement.PATIENCE = 4.0
cluster = placement.Cluster(sys.argv[1])
try:
    tune_engine.train_trunks([{}], lambda recipe, tell: None, Capacity("gpu", 1, 1), print, cluster, print)
except placement.NoDevice as error:
    print("ended:", error)
"""


@pytest.mark.cluster
def test_trunks_that_fit_nowhere_say_so_and_end_too(head):
    arguments = [sys.executable, "-c", TRUNKS, head.address]  # a process has one token for all its life
    environment = head.environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=FINISH)
    assert done.returncode == 0, done.stderr
    reason = "waiting for 1 GPU: the cluster has 0, and nothing can bring more"
    assert done.stdout.splitlines()[0] == reason
    assert done.stdout.splitlines()[1].startswith(f"ended: {reason}; start a machine")
