"""Which devices a cluster has or can have, and what packs wait for: pure functions over what Ray says."""

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator import machine
from orchestrator.cluster.growth import Growth, Machine, machine_with, read_growth
from orchestrator.planning import Capacity

CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")  # where `ray up` leaves its cluster file on the head
IDLE = 0.1  # the share of a cluster's cores that may be left out to have larger devices
PROBED_WITHIN = 60.0  # seconds for a machine to say how much memory its GPUs have
LOOKED_EVERY = 0.5  # seconds between two looks at a cluster that packs wait for
TAKEN_FOR = 30.0  # seconds until devices that are not free are worth a word: a worker takes some to start
PATIENCE = 45.0  # seconds without hope until a run ends: a machine may just be joining


@dataclass(frozen=True)
class Need:
    """What a pack asks of one machine."""

    cpus: float
    gpus: float = 0.0

    def fits(self, cpus: float, gpus: float) -> bool:
        """Whether a machine with so much, or with so much free, holds a pack."""
        return self.cpus <= cpus and self.gpus <= gpus


@dataclass(frozen=True)
class Now:
    """How a cluster is: its machines, what each has free (cores, GPUs), machines that are starting, by kind."""

    machines: Sequence[Machine]
    free: Sequence[tuple[float, float]]
    starting: Mapping[str, int] = field(default_factory=dict)
    kinds: Collection[str] = ()  # the names that the autoscaler has for those there are
    refused: Sequence[str] = ()  # why machines that were asked for did not come


@dataclass(frozen=True)
class Reason:
    """Why packs wait, whether there is anything to wait for, and whether it is that others have the devices."""

    text: str
    hope: bool = True
    taken: bool = False


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that runs: where it answers, and what it can still start."""

    address: str
    growth: Growth = field(default_factory=Growth)


class NoDevice(ConnectionError):
    """No machine of the cluster can hold a pack, and nothing will bring one."""


def capacity(here: Sequence[Machine], growth: Growth) -> Capacity:
    """The devices of a cluster, those that can still be started among them.

    GPUs where there are any, each with its share of its machine's cores and the memory of the smallest; else cores, in
    devices as large as the machines allow. A cluster without a core, of which nothing is known, is asked for one.
    """
    coming = growth.machines
    every = [one for one in (*here, *coming) if one.gpus]
    if every:
        gpus = max(sum(one.gpus for one in here), sum(one.gpus for one in coming))
        memory = min((one.gpu_memory for one in every if one.gpu_memory), default=0)
        return Capacity("gpu", gpus, max(1, min(one.cpus // one.gpus for one in every)), memory)
    whole = max(list(here), coming, key=lambda machines: sum(one.cpus for one in machines))
    sizes = [one.cpus for one in whole if one.cpus]
    if not sizes:
        return Capacity("cpu", 1, 1)
    used = {size: sum(other // size * size for other in sizes) for size in sizes}
    cpus = max(size for size in sizes if used[size] >= (1 - IDLE) * max(used.values()))
    memories = [one.memory // (one.cpus // cpus) for one in whole if one.cpus >= cpus and one.memory]
    return Capacity("cpu", used[cpus] // cpus, cpus, min(memories, default=0))


def describe(here: Sequence[Machine], growth: Growth) -> str:
    """A cluster in a few words: its machines, its devices, the smallest GPU's memory, and what it can grow to."""
    words = [_several(len(here), "machine"), _devices(here)]
    if memories := [one.gpu_memory for one in here if one.gpu_memory]:
        words.append(f"the smallest with {min(memories) / 2**30:.0f} GiB")
    coming = growth.machines
    return ", ".join(words) + (f"; the autoscaler can start {_devices(coming)}" if coming else "")


def explain(need: Need, now: Now, growth: Growth, running: int) -> Reason | None:
    """Why packs wait though `running` of them run; None where they only wait for each other, or are just starting."""
    starting = _starting(need, now, growth)
    if any(need.fits(one.cpus, one.gpus) for one in now.machines):
        if running and starting:
            return Reason(f"waiting for more devices: the cluster has {_devices(now.machines)}, {starting}")
        if running or any(need.fits(*free) for free in now.free):
            return None
        text = f"waiting for {_asked(need)}: the cluster has {_devices(now.machines)}, not free"
        return Reason(f"{text}, {starting}" if starting else text, taken=True)
    text = f"waiting for {_asked(need)}: {_lacking(need, now.machines)}"
    if starting:
        return Reason(f"{text}, {starting}")
    able = [one for one in growth.machines if need.fits(one.cpus, one.gpus)]
    if not able:
        return Reason(f"{text}, and nothing can bring more", hope=False)
    if not {growth.head, *growth.kinds} & set(now.kinds):
        return Reason(f"{text}, and no autoscaler that knows the cluster file can bring more", hope=False)
    refused = f", which failed: {now.refused[-1]}" if now.refused else ""
    return Reason(f"{text}, the autoscaler can start {_devices(able)}{refused}")


class Watch:
    """Tells `tell` why packs or trunks wait, again when that changes, and raises `NoDevice` when it is in vain."""

    def __init__(self, need: Need, growth: Growth, tell: Callable[[str], None]) -> None:
        self.need, self.growth, self.tell = need, growth, tell
        self.said = ""
        self.looked = self.moved = time.monotonic()
        self.hopeless: float | None = None  # since when

    def look(self, waiting: int, running: int) -> None:
        """Look at the cluster, at most every `LOOKED_EVERY` seconds; "" is told when nothing waits any more."""
        now = time.monotonic()
        if now - self.looked < LOOKED_EVERY:
            return
        self.looked = now
        if running or not waiting:
            self.moved = now
        reason = explain(self.need, state(), self.growth, running) if waiting else None
        if reason and reason.taken and now - self.moved < TAKEN_FOR:
            reason = None
        text = reason.text if reason else ""
        if text != self.said:
            self.said = text
            self.tell(text)
        if reason is None or reason.hope or running:
            self.hopeless = None
            return
        self.hopeless = self.hopeless or now
        if now - self.hopeless >= PATIENCE:
            raise NoDevice(f"{reason.text}; start a machine that has, then run the same command again")


def machines() -> list[Machine]:
    """The machines of the cluster that this process is connected to, asking each for the memory of its GPUs."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    found = [machine_with(node["Resources"]) for node in alive]
    asked = {}
    for index, (node, one) in enumerate(zip(alive, found, strict=True)):
        if one.gpus:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            probe = ray.remote(machine.gpu_memory).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
            asked[index] = probe.remote()
    if asked:
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBED_WITHIN)
    memory = {index: _answer(reference) for index, reference in asked.items()}
    return [Machine(one.cpus, one.gpus, one.memory, one.gpu, memory.get(index, 0)) for index, one in enumerate(found)]


def growth(cluster_file: Path | None) -> Growth:
    """What the cluster can still start: by a cluster file that is given, or by that of `ray up` on this machine."""
    if cluster_file:
        return read_growth(cluster_file)
    ours = CLUSTER_FILE.expanduser()
    return read_growth(ours) if ours.is_file() else Growth()


def state() -> Now:
    """How the cluster that this process is connected to is now."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    free = [(has.get("CPU", 0.0), has.get("GPU", 0.0)) for has in available_resources_per_node().values()]
    if is_autoscaler_v2():
        scaling = _by_version_2()
    else:
        scaling = _by_version_1(json.loads(_internal_kv_get("__autoscaling_status") or b"{}"))
    return replace(scaling, machines=[machine_with(node["Resources"]) for node in alive], free=free)


def _by_version_1(status: Mapping[str, Any]) -> Now:
    """What the first autoscaler writes down: machines that start, and why others did not."""
    report = status.get("autoscaler_report") or {}
    starting = Counter(report.get("pending_launches") or {})
    starting.update(kind for _, kind, _ in report.get("pending_nodes") or [])
    seen = (report.get("node_availability_summary") or {}).get("node_availabilities") or {}
    causes = [each.get("unavailable_node_information") or {} for each in seen.values()]
    refused = [cause["description"] for cause in causes if cause.get("description")]
    return Now((), (), starting, list(report.get("active_nodes") or {}), refused)


def _by_version_2() -> Now:
    """What the second autoscaler says of the same."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    starting = Counter(node.ray_node_type_name for node in status.pending_nodes)
    for launch in status.pending_launches:
        starting[launch.ray_node_type_name] += launch.count
    kinds = [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
    return Now((), (), starting, kinds, [launch.details for launch in status.failed_launches if launch.details])


def _answer(reference: Any) -> int:
    """What a probe found; 0 (unknown) where it did not come or failed."""
    try:
        return int(ray.get(reference, timeout=0))
    except ray.exceptions.RayError:  # a timeout is one too
        return 0


def _starting(need: Need, now: Now, growth: Growth) -> str:
    """What the autoscaler is starting that may hold a pack; empty where it is starting nothing such."""
    known = {name: kind for name, (kind, _) in growth.kinds.items()}
    able = {name: kind for name, kind in known.items() if need.fits(kind.cpus, kind.gpus)}
    if need.gpus and (gpus := sum(able[name].gpus * count for name, count in now.starting.items() if name in able)):
        return f"the autoscaler is starting {gpus}"
    hopeful = sum(count for name, count in now.starting.items() if name in able or name not in known)
    return f"the autoscaler is starting {_several(hopeful, 'machine')}" if hopeful else ""


def _asked(need: Need) -> str:
    if not need.gpus:
        return _several(need.cpus, "CPU")
    return _several(need.gpus, "GPU") if need.gpus >= 1 else f"{need.gpus:.2g} of a GPU"


def _lacking(need: Need, machines: Iterable[Machine]) -> str:
    """How the machines fall short of the need."""
    machines = list(machines)
    if not need.gpus:
        return f"the largest machine has {max((one.cpus for one in machines), default=0)}"
    gpus = sum(one.gpus for one in machines)
    if gpus:
        return f"no machine has one with {_several(need.cpus, 'CPU')} beside it"
    return "the cluster has 0"


def _devices(machines: Iterable[Machine]) -> str:
    """`4 GPUs (A100)`, or `16 CPUs` where there is no GPU."""
    machines = list(machines)
    gpus = Counter[str]()
    for one in machines:
        gpus[one.gpu] += one.gpus
    total = gpus.total()
    if not total:
        return _several(sum(one.cpus for one in machines), "CPU")
    kinds = sorted(name for name, count in gpus.items() if name and count)
    if len(kinds) > 1:
        return f"{_several(total, 'GPU')} ({', '.join(f'{gpus[name]} {name}' for name in kinds)})"
    return _several(total, "GPU") + (f" ({kinds[0]})" if kinds else "")


def _several(count: float, what: str) -> str:
    return f"{ceil(count)} {what}{'s' * (count > 1 or count == 0)}"
