"""`idenctl cluster`: clusters of machines, described by files."""

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Clusters of machines, and the files that describe them.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A cluster file, such as cluster/gpu.yaml.")]


@app.command()
def check(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Say what is wrong or unsafe in a cluster file, contacting nothing; exit status 2 where something is."""
    from orchestrator.cluster.check import check as check_file

    kind, problems = check_file(file)
    if find_spec("botocore") is None:
        print("note: EC2's own names are checked where the extra 'aws' is installed; all else is", file=sys.stderr)
    if as_json:
        found = [asdict(problem) for problem in problems]
        typer.echo(json.dumps({"file": str(file), "kind": kind, "problems": found}, indent=1, default=str))
    else:
        for problem in problems:
            typer.echo(str(problem))
        count = f"{len(problems)} to put right" if problems else "nothing wrong"
        typer.echo(f"{file} ({kind}): {count}", err=bool(problems))
    if problems:
        raise typer.Exit(2)
