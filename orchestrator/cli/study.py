"""`idenctl study`: plan a study, run it, see what is there."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import jobs, new, plan, status
from orchestrator.cli.options import Address, ClusterFile, Json, Profile, Set, StoreAddress, StudyFile
from orchestrator.cli.plan import loaded
from orchestrator.cli.trunk import devices, train_missing

if TYPE_CHECKING:
    from orchestrator.cluster.placement import Cluster
    from orchestrator.progress import Event
    from orchestrator.runner import Plan
    from orchestrator.search.packs import SearchPacks
    from orchestrator.store import Store

app = typer.Typer(help="Studies: new, plan, run, submit, status, stop, list.", no_args_is_help=True)
app.command("new")(new.new)
app.command("plan")(plan.plan)


class Engine(StrEnum):
    """What runs the packs."""

    TUNE = "tune"
    INLINE = "inline"


@app.command()
def run(
    file: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    store: StoreAddress = "runs",
    engine: Annotated[Engine, typer.Option(help="Ray Tune, or this process for debugging.")] = Engine.TUNE,
    address: Address = None,
    cluster: ClusterFile = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write TensorBoard's files here.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="Also tell MLflow: sqlite:////…/mlflow.db, http://HOST:5000.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what Ray and Tune say, and tracebacks.")] = False,
) -> None:
    """Run what the store lacks of a study. Run it again after any interruption: it goes on where it was.

    SIGTERM is an interruption as Ctrl-C is.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from orchestrator.sections import masked

    command = ["idenctl", *(masked(word) for word in sys.argv[1:] if word != "--debug")]  # it is stored
    raise typer.Exit(
        conduct(file, profile, set_, store, engine, address, cluster, verbose, command, tensorboard, mlflow)
    )


def conduct(
    file: Path,
    profile: str | None,
    set_: list[str] | None,
    store: str,
    engine: Engine,
    address: str | None,
    cluster: Path | None,
    verbose: bool,
    command: list[str],
    tensorboard: Path | None = None,
    mlflow: str | None = None,
) -> int:
    """Run what the store lacks of a study, as `command` asks for; gives the exit status."""
    from orchestrator import failures, record, runner, trunks
    from orchestrator.cli.screen import screen
    from orchestrator.store import at

    began = time.monotonic()
    place = at(store).check()
    wanted = loaded(file, profile, set_, place)
    with ExitStack() as held:
        held.enter_context(record.only_run(place, wanted.folder))  # first: who is refused changes nothing
        place.begin()
        capacity, running = devices(address, cluster)
        planned = runner.plan(wanted, place, capacity)
        state = runner.watched(planned, place, engine.value)
        # what trackers refuse is refused before anything is written
        tell = held.enter_context(_tracked(planned, state.cells, tensorboard, mlflow))
        show = held.enter_context(_mirrored(planned))
        record.freeze(planned, place, command)
        note = failures.keeping(place, wanted.folder)
        try:
            train_missing(planned.trunks, place, planned.capacity, running)
            if planned.packs:
                with screen(state, load=_load(running), tracebacks=verbose) as listen:

                    def heard(event: "Event") -> None:
                        listen(event)
                        tell(event)
                        note(event)

                    runner.run_packs(planned, place, heard, engine.value, running, verbose, show)
        except (KeyboardInterrupt, ConnectionError):
            _conclude(runner.plan(planned.study, place, planned.capacity), place)
            raise
        place.drop_checkpoints()
        for path in trunks.ended_checkpoints(place):
            place.drop(path)
        place.send()
        after = runner.plan(planned.study, place, planned.capacity)
        if after.search:
            record.freeze(after, place, command)
            after.search.write()
            show(after.search)
    return _conclude(after, place, time.monotonic() - began)


app.command("submit")(jobs.submit)
app.command("status")(status.status)
app.command("stop")(jobs.stop)


@app.command("list")
def list_(store: StoreAddress = "runs", as_json: Json = False) -> None:
    """List the studies in the store, with how many of their trials are stored."""
    from orchestrator import record
    from orchestrator.store import at

    studies = record.stored_studies(at(store).check())
    if as_json:
        typer.echo(json.dumps(studies, indent=1))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    from orchestrator.cli.console import plain_console

    counted = ("cells", "trials", "complete", "failed", "searched")
    columns: list[Column | str] = [Column("study", overflow="fold"), "data set"]
    columns += [Column(name, no_wrap=True) for name in counted]
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for study in studies:
        drawn = " (synthetic)" if study["synthetic"] else ""
        counts = [str(study[key]) for key in ("cells", "trials", "complete", "failed")]
        searched = "{done} of {asked}".format(**study["search"]) if study["search"] else ""
        table.add_row(study["study"], study["dataset"] + drawn, *counts, searched)
    plain_console().print(table if studies else f"no studies in {store}; next: idenctl study run FILE")


@app.command()
def schema() -> None:
    """Print the JSON schema of study files, by which editors complete and check them."""
    from orchestrator import schema
    from orchestrator.idennet import Idennet

    typer.echo(schema.text(Idennet.rules), nl=False)


@contextmanager
def _tracked(
    planned: "Plan", cells: Mapping[str, str], tensorboard: Path | None, mlflow: str | None
) -> "Iterator[Callable[[Event], None]]":
    """What tells events to TensorBoard and MLflow where they are wanted."""
    if not tensorboard and not mlflow:
        yield lambda event: None
        return
    from orchestrator import trackers

    with trackers.tracked(planned, cells, tensorboard, mlflow) as tell:
        yield tell


def _load(cluster: "Cluster | None") -> Callable[[], str]:
    """What says how busy the devices are that packs run on."""
    if cluster is None:
        from orchestrator import machine

        return machine.Load()
    from orchestrator.cluster import load

    return load.busy


@contextmanager
def _mirrored(planned: "Plan") -> Iterator[Callable[["SearchPacks"], None]]:
    """What shows a search in the Optuna database that its study names; nothing where it names none."""
    if planned.study.optuna is None:
        yield lambda search: None
        return
    from orchestrator.search import mirror

    with mirror.following(mirror.address(planned.study.optuna.storage), planned.synthetic) as show:
        yield show


def _conclude(after: "Plan", store: "Store", seconds: float | None = None) -> int:
    """Say what is in the store now, and after a run of so many seconds what it found; the exit status.

    It is 1 where a trial failed or something is still to be run.
    """
    from orchestrator import runner

    states = list(after.states.values())
    failed, complete = states.count("failed"), states.count("complete")
    line = f"{after.study.folder}: {complete} of {len(after.trials)} trials complete in {store}"
    if pruned := states.count("pruned"):
        line += f", {pruned} pruned"
    if failed:
        line += f", {failed} failed"
    if after.left:
        line += f", {after.left} not run"
    if after.search:
        line += f"; {after.search.progress}"
    if not after.done and runner.used_up(after, store):
        line += f": its budget of {after.study.budget.device_hours:g} device-hours is used up; raise it and run again"
    elif not after.done:
        line += ": run the same command again, it goes on from the last checkpoint"
    print(line, file=sys.stderr)
    if seconds is not None:
        from orchestrator.cli.closing import closing

        closing(store, after.study.folder, seconds)
    if complete:
        print(f"next: idenctl report {after.study.folder} --store {store}", file=sys.stderr)
    return 1 if failed or not after.done else 0
