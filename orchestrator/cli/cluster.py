"""`idenctl cluster`: check the file that describes a cluster, start the cluster, and stop it, each verified."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Json

app = typer.Typer(help="Clusters of machines: check, up, down.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A cluster file, such as cluster/gpu.yaml.")]


@app.command()
def check(
    file: File,
    as_json: Json = False,
) -> None:
    """Say what is wrong or unsafe in a cluster file, contacting nothing; exit status 2 where something is."""
    from orchestrator.cluster.check import check as check_file

    checked = check_file(file)
    if checked.note:
        print(f"note: {checked.note}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps({"file": str(file), **asdict(checked)}, indent=1, default=str))
    else:
        for problem in checked.problems:
            typer.echo(str(problem))
        count = f"{len(checked.problems)} to put right" if checked.problems else "nothing wrong"
        print(f"{file} ({checked.kind}): {count}", file=sys.stderr)
    if checked.problems:
        raise typer.Exit(2)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@app.command()
def up(
    file: File,
    limit: Annotated[int, typer.Option(min=1, help="Seconds that all nodes have to come.")] = 900,
) -> None:
    """Start a cluster, or bring it up to date, and wait until every node that it starts with is there."""
    from orchestrator.cluster import lifecycle
    from orchestrator.cluster.check import check as check_file

    for problem in (problems := check_file(file).problems):
        _tell(str(problem))
    if problems:
        raise ValueError(f"a cluster is started from a file that nothing is wrong in, {file} has what is said above")
    nodes = lifecycle.up(lifecycle.read(file), limit, _tell)
    typer.echo(f"head {nodes[0]}" + "".join(f"\nworker {node}" for node in nodes[1:]))
    _tell(f"next: ray dashboard {file}, and beside it: idenctl study submit FILE --address http://127.0.0.1:8265")


@app.command()
def down(file: File) -> None:
    """Stop a cluster, then look whether anything of it still runs; exit status 1 where it does."""
    from orchestrator.cluster import lifecycle

    left = lifecycle.down(lifecycle.read(file), _tell)
    for line in left:
        _tell(f"left: {line}")
    if left:
        raise typer.Exit(1)
    _tell("nothing of it is left")
