"""The options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import completion

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The study file.", autocompletion=completion.files)]
StoreAddress = Annotated[
    str, typer.Option("--store", envvar="IDENCTL_STORE", help="The store: a folder, or a bucket, s3://BUCKET/PREFIX.")
]
Profile = Annotated[
    str | None, typer.Option(help="A profile of the study file, such as quick.", autocompletion=completion.profiles)
]
Address = Annotated[str | None, typer.Option(help="A running Ray, auto or HOST:PORT; else one on this machine.")]
DASHBOARD = typer.Option("--address", help="The cluster's dashboard, http://HOST:8265.")
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="The cluster file of --address, whose autoscaler can start what it says."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.", autocompletion=completion.settings),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
