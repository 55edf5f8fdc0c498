"""The machine that runs: its devices, their memory, its processor."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from orchestrator.planning import Capacity

ASKED_FOR = 5  # seconds for the driver of GPUs to answer: one that hangs holds nobody up


def this_machine() -> Capacity:
    """What this machine has: its GPUs, each with its share of the cores, or all cores as one device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if visible is not None:
        gpus = min(gpus, len([name for name in visible.split(",") if name not in ("", "-1")]))
    if gpus:
        return Capacity("gpu", gpus, max(cores // gpus, 1), gpu_memory())
    return Capacity("cpu", 1, cores, _host_memory())


class Load:
    """How busy this machine is, in words: its cores since the last look, its GPUs now."""

    def __init__(self) -> None:
        self.last = _jiffies()

    def __call__(self) -> str:
        """How busy it is; empty where the system does not say."""
        before, self.last = self.last, _jiffies()
        busy, whole = self.last[0] - before[0], self.last[1] - before[1]
        cores = f"{os.cpu_count()} cores {busy / whole:.0%} busy" if whole > 0 else ""
        gpus = _asked_of_gpus("utilization.gpu") if Path("/proc/driver/nvidia").is_dir() else []
        return ", ".join(part for part in (_gpus_busy(gpus), cores) if part)


def _gpus_busy(shares: Sequence[int]) -> str:
    if not shares:
        return ""
    return f"GPU {shares[0]}% busy" if len(shares) == 1 else f"GPUs {', '.join(map(str, shares))}% busy"


def _jiffies() -> tuple[int, int]:
    """What all cores together have worked, and worked or waited, since the start; nothing where Linux does not say."""
    try:
        times = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return sum(times) - times[3] - times[4], sum(times)


def processor() -> str:
    """What this machine calls its processor."""
    try:
        lines: Sequence[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _host_memory() -> int:
    """Bytes of this machine, or of the container that this process is in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return whole


def free_memory() -> int:
    """Bytes that programs on this machine, or in this container, can still have."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return _host_memory()
    try:
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        lines = Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        # what was read from files is given back when it is asked for
        used -= next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, StopIteration):
        return free
    return min(free, _host_memory() - used)


def gpu_memory() -> int:
    """Bytes of the smallest GPU; 0 where its driver does not say."""
    return min(_asked_of_gpus("memory.total"), default=0) * 2**20


def _asked_of_gpus(figure: str) -> list[int]:
    """A figure of each GPU of this machine; none where the driver does not say."""
    command = ["nvidia-smi", f"--query-gpu={figure}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ASKED_FOR)
        return [int(line) for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
