"""`idenctl study`: plan a study, run it, see what is there."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.status import duration, several, show_status
from orchestrator.cli.trunk import Address, Profile, Set, StoreAddress, train_missing

if TYPE_CHECKING:
    from orchestrator.runner import Plan
    from orchestrator.search.packs import SearchPacks
    from orchestrator.store import Store

app = typer.Typer(help="Studies: plan, run, status, list.", no_args_is_help=True)

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The study file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


class Engine(StrEnum):
    """What runs the packs."""

    TUNE = "tune"
    INLINE = "inline"


@app.command()
def plan(
    file: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    store: StoreAddress = "runs",
    as_json: Json = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First measure what the times are made of; seconds.")
    ] = False,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Of a device, in any currency.")] = None,
    cluster: Annotated[Path | None, typer.Option(help="A Ray cluster file whose node types state prices.")] = None,
) -> None:
    """Say exactly what `run` would do: trials, those stored, packs, memory, time and money."""
    from orchestrator import runner
    from orchestrator.prices import device_price
    from orchestrator.store import at

    if price_per_hour is not None and cluster:
        raise ValueError("--price-per-hour and --cluster exclude each other, got both; give one")
    place = at(store).open() if calibrate else at(store).check()
    planned = _plan(file, profile, set_, place)
    price = device_price(cluster, planned.capacity.kind) if cluster else price_per_hour
    if calibrate and (planned.packs or planned.trunks):
        print("measuring how fast this machine is at these networks", file=sys.stderr, flush=True)
        runner.calibrate(planned, place)
        planned = _plan(file, profile, set_, place)
    facts = _facts(planned, place, price)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    _print_plan(planned, facts, place)


@app.command()
def run(
    file: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    store: StoreAddress = "runs",
    engine: Annotated[Engine, typer.Option(help="Ray Tune, or this process for debugging.")] = Engine.TUNE,
    address: Address = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what Ray and Tune say, and tracebacks.")] = False,
) -> None:
    """Run what the store lacks of a study. Run it again after any interruption: it goes on where it was."""
    from orchestrator import record, runner
    from orchestrator.cli.screen import screen
    from orchestrator.store import at

    place = at(store).open()
    planned = _plan(file, profile, set_, place)
    command = ["idenctl", *sys.argv[1:]]
    with record.only_run(place, planned.study.folder), _mirrored(planned) as show:
        record.freeze(planned, place, command)
        try:
            train_missing(planned.trunks, place, planned.capacity, address)
            if planned.packs:
                stored = runner.accuracies(planned, place)
                title, count = planned.study.folder, 0 if planned.search else len(planned.packs)
                with screen(
                    title, runner.names(planned, stored), stored, count, synthetic=planned.synthetic, tracebacks=verbose
                ) as listen:
                    runner.run_packs(planned, place, listen, engine.value, address, verbose, show)
        except KeyboardInterrupt:
            _conclude(runner.plan(planned.study, place, planned.capacity), place)
            raise
        after = runner.plan(planned.study, place, planned.capacity)
        if after.search:
            record.freeze(after, place, command)
            after.search.write()
            show(after.search)
    raise typer.Exit(_conclude(after, place))


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
    from rich.console import Console
    from rich.table import Column, Table

    counted = ("cells", "trials", "complete", "failed", "searched")
    columns: list[Column | str] = [Column("study", no_wrap=True), "data set"]
    columns += [Column(name, no_wrap=True) for name in counted]
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for study in studies:
        drawn = " (synthetic)" if study["synthetic"] else ""
        counts = [str(study[key]) for key in ("cells", "trials", "complete", "failed")]
        searched = "{done} of {asked}".format(**study["search"]) if study["search"] else ""
        table.add_row(study["study"], study["dataset"] + drawn, *counts, searched)
    Console().print(table if studies else f"no studies in {store}; next: idenctl study run FILE")


@app.command()
def status(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A study that was run: NAME or NAME@PROFILE.")],
    store: StoreAddress = "runs",
    as_json: Json = False,
) -> None:
    """Say how far a study is, and what its trunks and packs took beside what they were to take."""
    from orchestrator import record
    from orchestrator.cli.report import resolve
    from orchestrator.store import at

    place = at(store).check()
    studies = {study["study"]: study for study in record.stored_studies(place)}
    study = studies[resolve(name, list(studies))]
    times = record.took(place, study["study"])
    if as_json:
        typer.echo(json.dumps(study | {"times": [asdict(time) for time in times]}, indent=1))
        return
    show_status(study, times)


def _plan(file: Path, profile: str | None, set_: list[str] | None, store: "Store") -> "Plan":
    from orchestrator import machine, runner, study

    wanted = runner.load(file, profile, study.assignments(set_ or []), store)
    return runner.plan(wanted, store, machine.this_machine())


@contextmanager
def _mirrored(planned: "Plan") -> Iterator[Callable[["SearchPacks"], None]]:
    """What shows a search in the Optuna database that its study names; nothing where it names none."""
    if planned.study.optuna is None:
        yield lambda search: None
        return
    from orchestrator.search import mirror

    with mirror.following(mirror.address(planned.study.optuna.storage), planned.synthetic) as show:
        yield show


def _facts(planned: "Plan", store: "Store", price: float | None) -> dict[str, Any]:
    """A plan as JSON; `price` is a device's an hour."""
    from orchestrator import record, runner

    cost = runner.cost(planned, store)
    return {
        "study": planned.study.folder,
        "workload": planned.study.workload,
        "dataset": planned.study.dataset,
        "synthetic": planned.synthetic,
        "cells": [
            {
                "label": dict(cell.label),
                "also": [dict(label) for label in cell.also],
                "configuration_id": configuration.configuration_id,
            }
            for cell, configuration in zip(planned.cells, planned.configurations, strict=True)
        ],
        "search": planned.search.trials_to_come() if planned.search else None,
        "trials": len(planned.trials),
        "stored": len(planned.states),
        "failed": len(planned.failed),
        "trunks_to_train": [dict(recipe) for recipe in planned.trunks.values()],
        "device": {
            "kind": planned.capacity.kind,
            "count": planned.capacity.devices,
            "cpus": planned.capacity.cpus,
        },
        "packs": [
            {
                "pack_id": pack.pack_id,
                "trials": len(pack.trials),
                "first_epoch": pack.first_epoch,
                "seconds": estimate.seconds,
                "memory_bytes": estimate.memory,
                "measured": estimate.measured,
            }
            for pack, estimate in zip(planned.packs, planned.estimates, strict=True)
        ],
        "seconds": cost.seconds,
        "device_hours": cost.device_seconds / 3600,
        "price_per_hour": price,
        "money": None if price is None else price * cost.device_seconds / 3600,
        "guesses": cost.guesses,  # of these times, what was not measured
        "stored_by_study": record.stored_by_study(planned, store),
    }


def _print_plan(planned: "Plan", facts: dict[str, Any], store: "Store") -> None:
    from rich.console import Console
    from rich.table import Table

    from orchestrator import runner
    from orchestrator.design import describe, same

    console = Console(highlight=False)
    drawn = " (synthetic)" if planned.synthetic else ""
    console.print(f"[bold]{planned.study.folder}[/] on {planned.study.dataset}{drawn}: {planned.study.question}")
    cells = "; ".join(describe(cell.label) for cell in planned.cells)
    if planned.search:
        console.print(_search_line(planned))
        console.print(f"chosen: {cells or 'nothing yet'}; {planned.search.progress}")
    else:
        console.print(f"{several(len(planned.cells), 'cell')}: {cells}")
    for labels in same(planned.cells, planned.configurations):
        console.print(f"the same configuration, run once: {labels}")
    folds, seeds = several(len(planned.study.folds), "fold"), several(len(planned.study.seeds), "seed")
    parts = "train and test split" if planned.study.folds == [None] else folds
    so_far = " so far" if planned.search else ""
    console.print(
        f"{len(planned.trials)} trials{so_far} ({parts} x {seeds} a configuration), "
        f"{len(planned.states)} of them stored, {len(planned.trials) - len(planned.states)} to train"
    )
    if facts["stored_by_study"]:
        held = ", ".join(f"{count} in {name}" for name, count in facts["stored_by_study"].items())
        console.print(f"stored trials by study: {held}")
    for recipe in planned.trunks.values():
        way = (
            f"{recipe['epochs']} epochs of {recipe['dataset']}" if recipe["epochs"] else "its first weights, untrained"
        )
        console.print(f"first, pre-train the {recipe['task']} trunk: depth {recipe['depth']}, {way}")
    if not planned.packs:
        console.print(f"nothing to train; next: idenctl report {planned.study.folder} --store {store}")
        return
    table = Table("pack", "trials", "from epoch", "time", "memory")
    for pack, estimate in zip(planned.packs, planned.estimates, strict=True):
        table.add_row(
            pack.pack_id[:8],
            str(len(pack.trials)),
            str(pack.first_epoch),
            duration(estimate.seconds),
            f"{estimate.memory / 2**30:.1f} GiB",
        )
    console.print(table)
    capacity = planned.capacity
    device = "the CPU" if capacity.kind == "cpu" else several(capacity.devices, "GPU")
    beside = f", {capacity.share} side by side" if capacity.share > 1 else ""
    what = "trunks and packs" if planned.trunks else "the packs"
    console.print(
        f"about {duration(facts['seconds'])} for {what} on {device}{beside} "
        f"with {several(capacity.threads, 'thread')} each, once started"
    )
    unit = "GPU" if capacity.kind == "gpu" else "machine"
    money = "" if facts["money"] is None else f", {facts['money']:.2f} at {facts['price_per_hour']:g} an hour"
    console.print(f"{facts['device_hours']:.{2 if facts['device_hours'] >= 0.1 else 4}f} {unit}-hours{money}")
    if facts["guesses"]:
        times = len(planned.packs) + len(planned.trunks)
        some = f"{facts['guesses']} of " if facts["guesses"] < times else ""
        way = "; --calibrate measures it in seconds" if runner.measures(planned, store) else ""
        console.print(f"{some}these times are guesses, for nothing like it has run here{way}")


def _search_line(planned: "Plan") -> str:
    """How many trials a search is, its nested part apart."""
    assert planned.search is not None
    assert planned.study.search is not None
    found, wanted = planned.search.trials_to_come(), planned.study.search
    line = f"a search by {wanted.sampler} for {wanted.configurations} configurations, {wanted.batch} at a time: "
    line += f"{found['search']} trials"
    if found["refit"]:
        line += f", then {found['refit']} of each that is chosen"
    return line + (f"; nested within outer folds: {found['nested']} trials beside" if found["nested"] else "")


def _conclude(after: "Plan", store: "Store") -> int:
    """Say what is in the store now; the exit status: 1 where a trial failed or something is still to be run."""
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
    if complete:
        print(f"next: idenctl report {after.study.folder} --store {store}", file=sys.stderr)
    return 1 if failed or not after.done else 0
