"""`idenctl store`: what lies in a store without use is removed, and what is left made compact."""

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.address import is_address
from orchestrator.cli.options import Json, StoreAddress
from orchestrator.cli.wording import several

if TYPE_CHECKING:
    from orchestrator.cleaning import Leftover
    from orchestrator.store import Store

app = typer.Typer(help="Clean a store and make it compact.", no_args_is_help=True)
DAY = 24 * 3600.0


@app.command()
def clean(
    store: StoreAddress = "runs",
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, metavar="DAYS", help="Leave what was changed in the last DAYS days.")
    ] = 7.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Show what nothing in the store refers to, and remove it when told to."""
    from orchestrator import cleaning, record

    if is_address(store) and older_than < 1:
        raise ValueError(
            f"nothing shows who is at work in a bucket, so what is younger than a day stays, "
            f"got --older-than {older_than:g}; give 1 or more"
        )
    place, age = _opened(store), older_than * DAY
    with record.alone(place):
        place.send()  # or what lies here alone would count as stored
        found = cleaning.leftovers(place, age)
        if not as_json:
            _show(place, found)
        removes = bool(found) and (yes or (not as_json and _asks() and typer.confirm("remove all this?", err=True)))
        told = cleaning.clear(place, found, age) if removes else found
    if as_json:
        facts = {"store": str(place), "leftovers": [_facts(place, each) for each in told], "removed": removes}
        typer.echo(json.dumps(facts, indent=1))
    elif removes:
        typer.echo(f"{several(len(told), 'leftover')} removed", err=True)
    elif found:
        typer.echo("nothing was removed; next: the same with --yes", err=True)


@app.command()
def compact(store: StoreAddress = "runs", as_json: Json = False) -> None:
    """Keep one row of each trial, in few files; readers may read meanwhile."""
    from orchestrator import cleaning, record

    if is_address(store):
        raise ValueError(
            f"stores in folders are made compact, as who reads a bucket meanwhile would miss rows, got {store}; "
            f"copy it to a folder first"
        )
    place = _opened(store)
    with record.alone(place):
        found = cleaning.compact(place)
    if as_json:
        typer.echo(json.dumps({"store": str(place)} | asdict(found), indent=1))
    elif found.packs_before == found.packs_after and not found.rows_removed:
        typer.echo(f"{place}: nothing to compact in {several(found.packs_before, 'pack')}")
    else:
        typer.echo(
            f"{place}: {several(found.packs_before, 'pack')} became {found.packs_after}, "
            f"{several(found.rows_removed, 'superseded row')} of trials removed, "
            f"{size(found.bytes_before)} became {size(found.bytes_after)}"
        )


def _opened(address: str) -> "Store":
    """The store at this address. Raises FileNotFoundError where there is none."""
    from orchestrator.store import at

    place = at(address).check()
    # of a bucket that is empty all of a sudden the mirror may be the last copy
    if not (place.bucket.has("store.json") if place.bucket else (place.root / "store.json").is_file()):
        raise FileNotFoundError(f"a store holds store.json, {place} does not; give another --store")
    return place


def _asks() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _facts(place: "Store", leftover: "Leftover") -> dict[str, object]:
    where = str(leftover.path) if leftover.here or not place.bucket else place.bucket.address_of(leftover.path)
    return {"kind": leftover.kind, "path": where, "why": leftover.why, "bytes": leftover.bytes}


def _show(place: "Store", found: list["Leftover"]) -> None:
    from rich.table import Column, Table

    from orchestrator.cli.console import plain_console

    console = plain_console()
    if not found:
        console.print(f"nothing to clean in {place}")
        return
    table = Table("", Column("what", overflow="fold"), Column("size", justify="right"), "last changed", "why")
    for each in found:
        day = time.strftime("%Y-%m-%d", time.localtime(each.changed))
        table.add_row(each.kind, str(each.path.relative_to(place.root)), size(each.bytes), day, each.why)
    console.print(table)
    console.print(f"{several(len(found), 'leftover')} in {place}, {size(sum(each.bytes for each in found))}")


def size(number: float) -> str:
    """`12 kB`, `3.4 MB`."""
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number / 1e3:,.0f} kB"
