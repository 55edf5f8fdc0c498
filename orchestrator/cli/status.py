"""`idenctl study status`: how far a study is, and what it took beside what it was to take."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import completion
from orchestrator.cli.options import DASHBOARD, Json, StoreAddress
from orchestrator.cli.wording import difference, duration

if TYPE_CHECKING:
    from orchestrator.costs import Took


def status(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A study that was run: NAME or NAME@PROFILE.", autocompletion=completion.studies
        ),
    ],
    address: Annotated[str | None, DASHBOARD] = None,
    store: StoreAddress = "runs",
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show how it goes on until it ends.")] = False,
) -> None:
    """Say how far a study is, and what its trunks and packs took beside what they were to take.

    With --address also how its latest job on that cluster is. With --watch the exit status is the study's own; a run
    that has begun and not planned yet is waited for, here or as a job at --address.
    """
    if watch and as_json:
        raise ValueError("--watch and --json exclude each other, got both; give one")
    from orchestrator import failures, frozen, record
    from orchestrator.cli.report import resolve
    from orchestrator.store import at

    place = at(store).check()
    studies = {study["study"]: study for study in record.stored_studies(place)}
    submitted = {}
    if address:
        from orchestrator.cluster.jobs import Jobs

        jobs = Jobs(address)
        submitted = {study: found[-1] for study, found in jobs.by_study().items()}
    begun = [*submitted, *(record.all_running(place) if watch else [])]
    name = resolve(name, list(dict.fromkeys([*studies, *begun])), f"the store {place}")
    job, study = submitted.get(name), studies.get(name)
    if watch:
        from orchestrator.cli.watch import follow

        raise typer.Exit(follow(place, name, (lambda: jobs.by_study()[name][-1]) if job else None))
    times = frozen.took(place, name) if study else []
    failed = failures.standing(place, name) if study else {}
    if as_json:
        found = (study or {}) | {"not_run": Counter(failed.values()), "times": [asdict(time) for time in times]}
        typer.echo(json.dumps(found | ({"job": asdict(job) if job else None} if address else {}), indent=1))
        return
    if address:
        typer.echo(f"{name} is {jobs.named(job)}" if job else f"{name} was never submitted to {jobs.address}")
    if study:
        show_status(study, times, failed)
    else:
        typer.echo(f"nothing of {name} is stored in {store}")


def show_status(study: Mapping[str, Any], times: Sequence["Took"], failed: Mapping[str, str]) -> None:
    """Print how many of a study's trials have which state, and what was predicted beside what it took.

    `failed` is why trials were not run, by trial_id.
    """
    from rich.table import Table
    from rich.text import Text

    from orchestrator.cli.closing import not_run
    from orchestrator.cli.console import plain_console

    console = plain_console()
    drawn = " (synthetic)" if study["synthetic"] else ""
    missing = study["trials"] - study["complete"] - study["failed"]
    counts = f"{study['complete']} of {study['trials']} trials complete, {study['failed']} failed, {missing} not stored"
    console.print(Text.assemble((study["study"], "bold"), f" on {study['dataset']}{drawn}: {counts}"))
    if study["search"]:
        console.print(
            "a search: {done} of the {asked} configurations it asked for have an outcome".format(**study["search"])
        )
    for title, text in not_run(failed).items():
        console.print(f"{title}: {text}")
    table = Table("", "trials", "predicted", "took", "difference")
    for time in times:
        wanted = duration(time.predicted) + ("" if time.measured else " (a guess)")
        found = "-" if time.actual is None else duration(time.actual)
        table.add_row(time.name, str(time.trials or "-"), wanted, found, difference([time]))
    if times:
        console.print(table)
    stored = [time for time in times if time.actual is not None]
    if stored:
        predicted, actual = sum(time.predicted for time in stored), sum(time.actual or 0 for time in stored)
        console.print(
            f"what is stored was to take {duration(predicted)} of devices and took {duration(actual)}: "
            f"{difference(stored)}"
        )
