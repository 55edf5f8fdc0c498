"""What was measured of IDEnNet on this machine, kept in the store: the speed of packs, and of stacks of heads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idennet_core import config, cost
from orchestrator.store import Store, this_host, write_text
from orchestrator.workload import Context

if TYPE_CHECKING:
    from idennet_core.training import Member

FLOPS_UNMEASURED = {
    "cpu": {"trunk": 9e9, "head": 11e9},
    "gpu": {"trunk": 5e12, "head": 1e12},
}  # a thread, a GPU
STACK_UNMEASURED = 16  # members that a GPU is taken to train at once


def speeds_file(store: Store, device: str) -> Path:
    """Where the speed of the last pack on such a device of this machine is kept."""
    return store.calibration / f"{device}-{this_host()}.json"


def speed(store: Store, device: str) -> dict[str, float] | None:
    """Floating-point operations a second and thread (or GPU) of the last pack on this machine, None before one."""
    try:
        found: dict[str, float] = json.loads(speeds_file(store, device).read_text())
    except (OSError, ValueError):
        return None
    return found


def _stacks(store: Store) -> Path:
    return store.calibration / f"stacks-{this_host()}.json"


def _shape(settings: Mapping[str, Any]) -> str:
    """What decides how fast a stack of heads trains, as a key."""
    streams, precision = len(config.tasks(settings["variant"])), settings.get("precision", "fp32")
    return "-".join(str(part) for part in (*(settings[n] for n in config.ARCHITECTURE), streams, precision))


def _measured_stacks(store: Store) -> dict[str, dict[str, float]]:
    try:
        found: dict[str, dict[str, float]] = json.loads(_stacks(store).read_text())
    except (OSError, ValueError):
        return {}
    return found


def knee(store: Store, settings: Mapping[str, Any]) -> int | None:
    """How many members a stack trains best with on this machine's GPU; None before that was measured."""
    speeds = _measured_stacks(store).get(_shape(settings))
    return cost.knee({int(size): speed for size, speed in speeds.items()}) if speeds else None


def stack(context: Context, members: "Sequence[Member]") -> int | None:
    """How many members train as one: on a GPU as many as the knee of throughput says, measured once and kept.

    On a CPU the kernels train them one by one, which is faster; they know fp32 alone.
    """
    from idennet_core import stacked

    settings = members[0].settings
    if context.device == "cpu":
        return None if settings.get("precision", "fp32") == "fp32" else 1
    known = _measured_stacks(context.store)
    speeds = known.get(_shape(settings), {})
    if max(map(int, speeds), default=0) * 2 <= min(len(members), stacked.MOST):  # a larger stack was never tried
        speeds = {str(size): speed for size, speed in stacked.speeds(members).items()}
        write_text(_stacks(context.store), json.dumps(known | {_shape(settings): speeds}))
    return knee(context.store, settings)
