"""`idenctl cluster`: start a cluster from its file, and stop it, each verified."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Clusters: up, down.", no_args_is_help=True)

ClusterFile = Annotated[Path, typer.Argument(metavar="FILE", help="A cluster file for `ray up`; see cluster/.")]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@app.command()
def up(
    file: ClusterFile,
    limit: Annotated[int, typer.Option(min=1, help="Seconds that all nodes have to come.")] = 900,
) -> None:
    """Start a cluster, or bring it up to date, and wait until every node that it starts with is there."""
    from orchestrator.cluster import lifecycle

    nodes = lifecycle.up(lifecycle.read(file), limit, _tell)
    typer.echo(f"head {nodes[0]}" + "".join(f"\nworker {node}" for node in nodes[1:]))
    _tell(f"next: ray dashboard {file}, and beside it: idenctl study submit FILE --address http://127.0.0.1:8265")


@app.command()
def down(file: ClusterFile) -> None:
    """Stop a cluster, then look whether anything of it still runs; exit status 1 where it does."""
    from orchestrator.cluster import lifecycle

    left = lifecycle.down(lifecycle.read(file), _tell)
    for line in left:
        _tell(f"left: {line}")
    if left:
        raise typer.Exit(1)
    _tell("nothing of it is left")
