"""What the autoscaler of a cluster can start, by the cluster's file: of `ray up`, or of KubeRay."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator import strict_yaml

KIND = "accelerator_type:"  # how Ray's resource begins that names a machine's kind of GPU
RULE = "a cluster file has available_node_types, for `ray up`, or a RayCluster's workerGroupSpecs"


@dataclass(frozen=True)
class Machine:
    """A machine of a cluster: cores and GPUs, bytes of memory for work and of its smallest GPU; 0 where unknown."""

    cpus: int
    gpus: int = 0
    memory: int = 0
    gpu: str = ""  # the kind, as Ray calls it
    gpu_memory: int = 0


@dataclass(frozen=True)
class Growth:
    """What an autoscaler can start: kinds of machines by name, each with how many at most, and how many of all."""

    kinds: Mapping[str, tuple[Machine, int]] = field(default_factory=dict)
    most: int = 0
    head: str = ""  # the name of the head's kind

    @property
    def machines(self) -> list[Machine]:
        """All that it can start at once, those with most GPUs first."""
        every = [kind for kind, count in self.kinds.values() for _ in range(min(count, self.most))]
        return list(islice(sorted(every, key=lambda kind: (-kind.gpus, -kind.cpus)), self.most))


def read_growth(path: Path) -> Growth:
    """What the autoscaler of a cluster file can start; on machines one already has, nothing.

    Raises FileNotFoundError, or ValueError for another file and for a kind of machine without its number of cores.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no cluster file {path}; give the path of one for `ray up` or KubeRay")
    text = path.read_text(encoding="utf-8")
    documents = [strict_yaml.read(part, str(path))[0] for part in re.split(r"^---[ \t]*$", text, flags=re.MULTILINE)]
    found = [each for each in documents if isinstance(each, dict)]
    try:
        if any((each.get("provider") or {}).get("type") == "local" for each in found):
            return Growth()
        growths = [*filter(None, map(_of_ray_up, found)), *filter(None, map(_of_kuberay, found))]
    except (AttributeError, TypeError, ValueError):  # a number or a mapping is something else
        raise ValueError(f"{path}: {RULE}, in their form, got another; see: idenctl cluster check {path}") from None
    if len(growths) != 1:
        raise ValueError(f"{path}:1: {RULE}, got {len(growths)} such parts; give another")
    if nameless := [name for name, (kind, _) in growths[0].kinds.items() if not kind.cpus]:
        raise ValueError(f"{path}: a kind of machine states its cores and GPUs, {nameless[0]} does not; write them")
    return growths[0]


def machine_with(resources: Mapping[str, float]) -> Machine:
    """A machine by its resources, as Ray and its cluster files call them."""
    kinds = [name.removeprefix(KIND) for name in resources if name.startswith(KIND)]
    return Machine(
        int(resources.get("CPU", 0)),
        int(resources.get("GPU", 0)),
        int(resources.get("memory", 0)),
        kinds[0] if kinds else "",
    )


def _of_ray_up(document: Mapping[str, Any]) -> Growth | None:
    types = document.get("available_node_types")
    if not isinstance(types, dict) or not all(isinstance(node, dict) for node in types.values()):
        return None
    most, head = int(document.get("max_workers", 2)), str(document.get("head_node_type", ""))  # two is Ray's default
    counts = {name: int(node.get("max_workers", most)) for name, node in types.items() if name != head}
    kinds = {name: machine_with(types[name].get("resources") or {}) for name in counts}
    return Growth({name: (kinds[name], count) for name, count in counts.items() if count}, most, head)


def _of_kuberay(document: Mapping[str, Any]) -> Growth | None:
    spec = document.get("spec") or {}
    spec = spec.get("rayClusterSpec", spec) if isinstance(spec, dict) else {}
    groups = spec.get("workerGroupSpecs")
    if not isinstance(groups, list) or not spec.get("enableInTreeAutoscaling"):
        return None if groups is None else Growth()
    kinds = dict(map(_group, groups))
    return Growth(kinds, sum(count for _, count in kinds.values()), "headgroup")


def _group(group: Mapping[str, Any]) -> tuple[str, tuple[Machine, int]]:
    """A KubeRay group's name, its machine as its first container and the parameters of `ray start` say, how many."""
    container = next(_containers(group), {})
    limits = (container.get("resources") or {}).get("limits") or {}
    given = group.get("rayStartParams") or {}
    gpus = given.get("num-gpus", next((count for name, count in limits.items() if name.endswith("/gpu")), 0))
    machine = Machine(int(_cores(given.get("num-cpus", limits.get("cpu", 0)))), int(gpus))
    return str(group.get("groupName", "")), (
        machine,
        int(group.get("maxReplicas", 0)) * int(group.get("numOfHosts", 1)),
    )


def _containers(group: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    template = (group.get("template") or {}).get("spec") or {}
    yield from template.get("containers") or []


def _cores(quantity: object) -> float:
    """Kubernetes' quantity of cores: 4, or 500m."""
    text = str(quantity)
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)
