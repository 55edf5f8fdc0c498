"""The training of trunks, side by side: a thread each in this process, or a Ray task each on devices of their own."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from idennet_core import sealing
from idennet_core.datasets import prepared
from idennet_core.ids import content_id
from orchestrator import calibration
from orchestrator.planning import Capacity, Estimate
from orchestrator.store import Store
from orchestrator.trial import Setting

if TYPE_CHECKING:
    from idennet_core.pretraining import Progress
    from orchestrator.cluster.placement import Cluster

REPORT_EVERY = 1.0  # seconds between two progress reports of a trunk in another process


def train(
    recipes: Sequence[Mapping[str, Setting]],
    store: Store,
    capacity: Capacity,
    on_progress: "Callable[[Progress], None]",
    cluster: "Cluster | None" = None,
    on_waiting: Callable[[str], None] = lambda reason: None,
) -> None:
    """Train the trunks of these recipes into the store.

    On several GPUs, or on a Ray cluster, each is a Ray task with a device of its own. Else all are
    threads of this process, on CPUs as many at once as there are cores; a trunk computes on one thread either way.
    """
    if cluster or capacity.devices > 1:
        from orchestrator import tune_engine

        def one(recipe: Mapping[str, Setting], tell: "Callable[[Progress], None]") -> None:
            _in_threads([recipe], store, capacity.kind, 1, _seldom(tell))

        tune_engine.train_trunks(recipes, one, capacity, on_progress, cluster, on_waiting)
        store.refresh()
    else:
        _in_threads(recipes, store, capacity.kind, capacity.cpus, on_progress)


def ended_checkpoints(store: Store) -> Iterator[Path]:
    """The checkpoints of trunks that are stored: who is killed between the two leaves them."""
    for path in sorted(store.checkpoints.glob("trunk-*.safetensors")):
        if sealing.is_whole(store.trunks / id_of(path)):
            yield path


def id_of(checkpoint: Path) -> str:
    """The trunk that a checkpoint belongs to."""
    return checkpoint.name.split(".")[0].removeprefix("trunk-")


def estimates(recipes: Mapping[str, Mapping[str, Setting]], store: Store, capacity: Capacity) -> dict[str, Estimate]:
    """What the pre-training of each trunk will take, by trunk_id."""
    together = _side_by_side(recipes, capacity)
    return {
        name: calibration.trunk_estimate(recipe, store, capacity.kind, together) for name, recipe in recipes.items()
    }


def calibrate(recipes: Mapping[str, Mapping[str, Setting]], store: Store, capacity: Capacity) -> None:
    """Measure on this machine how fast such trunks are trained, for `estimates`."""
    calibration.measure_trunks(list(recipes.values()), store, capacity.kind, _side_by_side(recipes, capacity))


def _side_by_side(recipes: Collection[object], capacity: Capacity) -> int:
    """How many trunks share a device."""
    return min(len(recipes), capacity.cpus) if capacity.devices == 1 else 1


def _in_threads(
    recipes: Sequence[Mapping[str, Setting]],
    store: Store,
    device: str,
    threads: int,
    on_progress: "Callable[[Progress], None]",
) -> None:
    from idennet_core.pretraining import train_trunk
    from idennet_core.training import single_threads

    place = calibration.place_of(device)

    def one(recipe: Mapping[str, Setting]) -> None:
        folder = store.fetch_all("trunks", content_id(dict(recipe)))
        try:
            sealing.trunk(folder)
            return  # another run has stored it meanwhile
        except FileNotFoundError:
            store.fetch_all("checkpoints", only=f"trunk-{folder.name}.*")
        except sealing.Damaged:
            store.drop(folder / "trunk.json")
        faces = prepared.load(store.fetch_all("data", str(recipe["dataset"])))
        keep, drop = partial(store.keep, later=True), partial(store.drop, later=True)
        train_trunk(recipe, faces, store.trunks, store.checkpoints, place, on_progress, keep=keep, drop=drop)
        store.keep(folder, once=True)

    with single_threads(threads) as pool:
        for future in [pool.submit(one, recipe) for recipe in recipes]:
            future.result()


def _seldom(tell: "Callable[[Progress], None]") -> "Callable[[Progress], None]":
    """`tell`, at most once every `REPORT_EVERY` seconds, and of the last step."""
    told = 0.0

    def on_progress(progress: "Progress") -> None:
        nonlocal told
        if progress.done == progress.total or time.monotonic() - told >= REPORT_EVERY:
            told = time.monotonic()
            tell(progress)

    return on_progress
