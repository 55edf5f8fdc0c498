"""How many heads a GPU trains as one: the knee of throughput, measured once for each kind of head and kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idennet_core import config, cost
from orchestrator.store import Store, this_host, write_text
from orchestrator.workload import Context

if TYPE_CHECKING:
    from idennet_core.training import Member

UNMEASURED = 16  # members that a GPU is taken to train at once


def size(store: Store, settings: Mapping[str, Any]) -> int:
    """How many members a stack trains best with on this machine's GPU; a guess before that was measured."""
    return _knee(store, settings) or UNMEASURED


def chosen(context: Context, members: "Sequence[Member]") -> int | None:
    """How many members train as one: on a GPU as many as the knee of throughput says, measured on those that train."""
    from idennet_core import stacked

    settings, training = members[0].settings, [member for member in members if member.active]
    if context.device == "cpu":
        return on_cpu(settings)
    known = _measured(context.store)
    speeds = known.get(_shape(settings), {})
    tried = max(map(int, speeds), default=0)
    full = speeds.get(str(tried)) == 0
    if not full and max(tried * 2, 1) <= min(len(training), stacked.MOST):
        speeds = {str(size): speed for size, speed in stacked.speeds(training).items()}
        write_text(_file(context.store), json.dumps(known | {_shape(settings): speeds}))
        context.store.keep(_file(context.store))
    return size(context.store, settings)


def on_cpu(settings: Mapping[str, Any]) -> int | None:
    """There the kernels train members one by one, which is faster; they know fp32 alone."""
    return None if settings.get("precision", "fp32") == "fp32" else 1


def _knee(store: Store, settings: Mapping[str, Any]) -> int | None:
    speeds = _measured(store).get(_shape(settings))
    return cost.knee({int(size): speed for size, speed in speeds.items()}) if speeds else None


def _shape(settings: Mapping[str, Any]) -> str:
    """What decides how fast a stack of heads trains, as a key."""
    streams, precision = len(config.tasks(settings["variant"])), settings.get("precision", "fp32")
    return "-".join(str(part) for part in (*(settings[n] for n in config.ARCHITECTURE), streams, precision))


def _file(store: Store) -> Path:
    return store.calibration / f"stacks-{this_host()}.json"


def _measured(store: Store) -> dict[str, dict[str, float]]:
    """Heads a second by shape and size; nothing where the file is missing or damaged."""
    try:
        found = json.loads(_file(store).read_text())
        return {key: {str(int(size)): float(speed) for size, speed in of.items()} for key, of in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
