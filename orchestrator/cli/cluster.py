"""`idenctl cluster`: clusters of machines, described by files."""

import json
import sys
from dataclasses import asdict
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
