"""`idenctl trunk`: pre-train the trunks that a study needs, list those there are."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import completion
from orchestrator.cli.options import Address, ClusterFile, Json, Profile, Set, StoreAddress

if TYPE_CHECKING:
    from idennet_core.pretraining import Progress
    from orchestrator.cluster.placement import Cluster
    from orchestrator.planning import Capacity
    from orchestrator.store import Store

app = typer.Typer(help="Pre-trained feature extractors, the trunks.", no_args_is_help=True)
QUIET = 20.0  # seconds between plain lines
MEASURED_WIDTH = 72  # columns from which on there is room for loss and accuracy beside the bars


@app.command()
def train(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The study file whose trunks to train.", autocompletion=completion.files),
    ],
    profile: Profile = None,
    set_: Set = None,
    store: StoreAddress = "runs",
    address: Address = None,
    cluster: ClusterFile = None,
) -> None:
    """Train the trunks that a study needs and the store lacks; `study run` does this by itself."""
    from orchestrator import runner, study
    from orchestrator.store import at

    place = at(store).open()
    wanted = runner.load(file, profile, study.assignments(set_ or []), place)
    capacity, running = devices(address, cluster)
    planned = runner.plan(wanted, place, capacity)
    if not planned.trunks:
        typer.echo("every trunk of this study is stored")
    train_missing(planned.trunks, place, planned.capacity, running)


@app.command("list")
def list_(
    store: StoreAddress = "runs",
    as_json: Json = False,
) -> None:
    """List the trunks in the store."""
    from orchestrator.store import at

    place = at(store).check()
    trunks = place.trunk_facts()
    if as_json:
        typer.echo(json.dumps(trunks, indent=1))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from orchestrator.cli.console import plain_console

    heads = ("trunk", "task", "depth", "data", "pictures", "held out", "epochs", "accuracy", "seconds")
    table = Table(*heads, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for trunk in trunks:
        recipe = trunk["recipe"]
        drawn = "\n(synthetic)" if trunk["synthetic"] else ""
        accuracy = trunk["held_out_accuracy"]
        table.add_row(
            trunk["trunk_id"][:8],
            recipe["task"],
            str(recipe["depth"]),
            recipe["dataset"] + drawn,
            f"{trunk['training_pictures']:,}",
            _held_out(trunk),
            str(recipe["epochs"]),
            "-" if accuracy is None else f"{accuracy:.1%}",
            f"{trunk['seconds']:.0f}",
        )
    plain_console().print(table if trunks else f"no trunks in {place}; next: idenctl trunk train FILE")


def _held_out(trunk: Mapping[str, Any]) -> str:
    """How many pictures were kept from training, and their share of the two."""
    held_out, training = trunk["held_out_pictures"], trunk["training_pictures"]
    return f"{held_out:,} ({held_out / (held_out + training):.1%})"


def devices(address: str | None, cluster_file: Path | None) -> "tuple[Capacity, Cluster | None]":
    """The devices that a study runs on: those of the running Ray at `address`, which is named on stderr, or our own."""
    if address is None:
        if cluster_file:
            raise ValueError("--cluster says what a running Ray can start, got no --address; give both or neither")
        from orchestrator import machine

        return machine.this_machine(), None
    from orchestrator import tune_engine

    capacity, cluster, words = tune_engine.devices(address, cluster_file)
    print(f"Ray at {cluster.address}: {words}", file=sys.stderr, flush=True)
    return capacity, cluster


def train_missing(
    recipes: Mapping[str, Mapping[str, Any]], store: "Store", capacity: "Capacity", cluster: "Cluster | None" = None
) -> None:
    """Train these trunks into the store, showing how far they are, and what they wait for, on stderr."""
    from orchestrator import trunks

    def on_waiting(reason: str) -> None:
        if reason:
            print(reason, file=sys.stderr, flush=True)

    if recipes:
        with _progress(list(recipes.values())) as on_progress:
            trunks.train(list(recipes.values()), store, capacity, on_progress, cluster, on_waiting)


@contextmanager
def _progress(recipes: Sequence[Mapping[str, Any]]) -> "Iterator[Callable[[Progress], None]]":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    from orchestrator.cli.console import plain_console

    names = ", ".join(f"{recipe['task']} on {recipe['dataset']} (depth {recipe['depth']})" for recipe in recipes)
    print(f"pre-training {len(recipes)} trunks: {names}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        said: dict[str, float] = {}

        def say(progress: "Progress") -> None:
            now = time.monotonic()
            if progress.done == progress.total or now - said.setdefault(progress.task, now) >= QUIET:
                said[progress.task] = now
                line = f"{progress.task} trunk: step {progress.done} of {progress.total}{_measured(progress)}"
                print(line, file=sys.stderr, flush=True)

        yield say
        return
    console = plain_console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description:9}"), BarColumn(None)]
    columns += [MofNCompleteColumn(), TimeRemainingColumn(compact=True)]
    if console.width >= MEASURED_WIDTH:
        columns.append(TextColumn("{task.fields[measured]}"))
    with Bars(*columns, console=console, transient=True, expand=True) as bars:
        rows = {str(recipe["task"]): bars.add_task(str(recipe["task"]), total=None, measured="") for recipe in recipes}
        yield lambda progress: bars.update(
            rows[progress.task],
            completed=progress.done,
            total=progress.total,
            measured=_measured(progress).removeprefix(", "),
        )


def _measured(progress: "Progress") -> str:
    loss = "" if progress.loss is None else f", loss {progress.loss:.2f}"
    return loss if progress.accuracy is None else f"{loss}, held-out accuracy {progress.accuracy:.1%}"
