"""What a study takes and what it took: figures frozen when it is run, beside what the store holds afterwards. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.planning import Capacity, Estimate, wall_seconds
from orchestrator.trial import Pack, Trial


@dataclass(frozen=True)
class Cost:
    """What trunks and packs will take: wall time, and time of all devices together; `guesses` were not measured."""

    seconds: float
    device_seconds: float
    guesses: int


@dataclass(frozen=True)
class Took:
    """A pack or a trunk: the seconds that it was to take, and those that it took, None before it is stored."""

    name: str
    trials: int  # 0 for a trunk
    predicted: float
    actual: float | None
    measured: bool  # False: the prediction was a guess


def cost(packs: Sequence[Estimate], trunks: Sequence[Estimate], capacity: Capacity) -> Cost:
    """The cost of packs, after trunks that are trained side by side: on one device all at once, else one a device."""
    one_device = capacity.devices == 1
    first = wall_seconds(trunks, capacity.cpus if one_device else capacity.devices)
    of_trunks = first if one_device else sum(estimate.seconds for estimate in trunks)
    return Cost(
        seconds=first + wall_seconds(packs, capacity.devices * capacity.share),
        device_seconds=of_trunks + sum(estimate.seconds for estimate in packs) / capacity.share,
        guesses=sum(not estimate.measured for estimate in (*packs, *trunks)),
    )


def shared(stored: Iterable[Trial], plans: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How many of the stored trials each study has, by name, several the same one; `plans` are their plan.json.

    What a search asks beside those that it tests at the end is in no plan.
    """
    parts = {
        name: ({cell["configuration_id"] for cell in plan["cells"]}, set(plan["folds"]), set(plan["seeds"]))
        for name, plan in plans.items()
    }
    counts = dict.fromkeys(plans, 0)
    for trial in (trial for trial in stored if trial.without is None):
        for name, (ids, folds, seeds) in parts.items():
            counts[name] += trial.configuration.configuration_id in ids and trial.fold in folds and trial.seed in seeds
    return {name: count for name, count in counts.items() if count}


def predicted(
    packs: Sequence[Pack],
    estimates: Sequence[Estimate],
    alone: Sequence[Estimate],
    trunks: Mapping[str, Estimate],
    earlier: Mapping[str, Any],
) -> dict[str, Any]:
    """What a run is expected to take, for plan.json; with what `earlier` runs expected of other trials and trunks.

    `alone` is what the first trial of each pack would take in a pack of its own.
    """
    planned = {trial_id for pack in packs for trial_id in pack.trial_ids}
    return {
        "packs": [
            *(pack for pack in earlier.get("packs", ()) if pack["trial_id"] not in planned),
            *(
                {
                    "pack_id": pack.pack_id,
                    "trial_id": pack.trials[0].trial_id,  # the trials of a pack are stored together
                    "trials": len(pack.trials),
                    "seconds": estimate.seconds,
                    "alone_seconds": one.seconds * len(pack.trials),
                    "memory_bytes": estimate.memory,
                    "measured": estimate.measured,
                }
                for pack, estimate, one in zip(packs, estimates, alone, strict=True)
            ),
        ],
        "trunks": {
            **earlier.get("trunks", {}),
            **{name: {"seconds": e.seconds, "measured": e.measured} for name, e in trunks.items()},
        },
    }


def packing(frozen: Mapping[str, Any]) -> tuple[float, float] | None:
    """Predicted seconds of packs, each trial alone and together; None where nothing was predicted of both."""
    both = [(pack["alone_seconds"], pack["seconds"]) for pack in frozen.get("packs", ()) if "alone_seconds" in pack]
    return (sum(one for one, _ in both), sum(packed for _, packed in both)) if both else None


def took(
    frozen: Mapping[str, Any], rows: Collection[tuple[str, str, float]], trunks: Mapping[str, float]
) -> list[Took]:
    """Trunks and packs as `predicted`, beside what they took.

    `rows` are trial_id, pack_id and seconds of stored trials, `trunks` the seconds of stored trunks by trunk_id.
    """
    stored_in = {trial_id: pack_id for trial_id, pack_id, _ in rows}
    spent: dict[str, float] = {}
    for _, pack_id, seconds in rows:
        spent[pack_id] = spent.get(pack_id, 0.0) + seconds
    of_trunks = [
        Took(f"trunk {name[:8]}", 0, trunk["seconds"], trunks.get(name), trunk["measured"])
        for name, trunk in frozen.get("trunks", {}).items()
    ]
    of_packs = [
        Took(
            f"pack {pack['pack_id'][:8]}",
            pack["trials"],
            pack["seconds"],
            spent.get(stored_in.get(pack["trial_id"], "")),
            pack["measured"],
        )
        for pack in frozen.get("packs", ())
    ]
    return of_trunks + of_packs
