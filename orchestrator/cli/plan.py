"""`idenctl study plan`: exactly what running a study would do."""

import json
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import Json, Profile, Set, StoreAddress, StudyFile
from orchestrator.cli.wording import duration, several

if TYPE_CHECKING:
    from orchestrator.runner import Plan
    from orchestrator.store import Store
    from orchestrator.study import Study


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
    from orchestrator import machine, runner
    from orchestrator.prices import device_price
    from orchestrator.store import at

    if price_per_hour is not None and cluster:
        raise ValueError("--price-per-hour and --cluster exclude each other, got both; give one")
    if price_per_hour is not None and not isfinite(price_per_hour):
        raise ValueError(f"--price-per-hour is a finite number of at least 0, got {price_per_hour}; give a price")
    place = at(store).open() if calibrate else at(store).check()
    wanted = loaded(file, profile, set_, place)
    planned = runner.plan(wanted, place, machine.this_machine())
    price = device_price(cluster, planned.capacity.kind) if cluster else price_per_hour
    if calibrate and (planned.packs or planned.trunks):
        print("measuring how fast this machine is at these networks", file=sys.stderr, flush=True)
        runner.calibrate(planned, place)
        planned = runner.plan(wanted, place, machine.this_machine())
    facts = facts_of(planned, place, price)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    _print_plan(planned, facts, place)


def loaded(file: Path, profile: str | None, set_: list[str] | None, store: "Store") -> "Study":
    """The study in a file, its profile and settings applied."""
    from orchestrator import runner, study

    return runner.load(file, profile, study.assignments(set_ or []), store)


def facts_of(planned: "Plan", store: "Store", price: float | None = None) -> dict[str, Any]:
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
    from rich.table import Table
    from rich.text import Text

    from orchestrator import runner
    from orchestrator.cli.console import plain_console
    from orchestrator.design import describe, same
    from orchestrator.names import visible
    from orchestrator.trial import IDENNET

    console = plain_console()
    drawn = " (synthetic)" if planned.synthetic else ""
    facing = visible(f" on {planned.study.dataset}{drawn}: {planned.study.question}")
    console.print(Text.assemble((planned.study.folder, "bold"), facing))
    if planned.study.workload != IDENNET:
        module = planned.study.workload.partition(":")[0]
        console.print(f"the file names code of its own, {planned.study.workload}: {sys.modules[module].__file__}")
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
        + (f", {planned.again} that failed to train again" if planned.again else "")
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
