"""The machine that runs: its devices, their memory, its processor."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from orchestrator.planning import Capacity


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
    except (OSError, ValueError):
        return free
    return min(free, _host_memory() - used)


def gpu_memory() -> int:
    """Bytes of the smallest GPU; 0 where its driver does not say."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return min(int(line) for line in done.stdout.split()) * 2**20
    except (OSError, ValueError, subprocess.CalledProcessError):
        return 0
