"""`idenctl report`: what the store knows of a study, as tables."""

import os
import shutil
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from idennet_core.naming import suggest
from orchestrator.cli import completion
from orchestrator.cli.options import StoreAddress
from orchestrator.names import named
from orchestrator.report import Format


def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME", help="Studies that were run: NAME or NAME@PROFILE.", autocompletion=completion.studies
        ),
    ],
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.TERMINAL,
    out: Annotated[Path | None, typer.Option(help="Write to this file, not the terminal.")] = None,
    store: StoreAddress = "runs",
    details: Annotated[bool, typer.Option("--details", help="Say more of each difference.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Also draw the study: a file .svg, .png or .pdf.")] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Let drawn and real data stand in one report, marked.")
    ] = False,
) -> None:
    """Print a study's accuracies, intervals, differences and the paper's values beside them."""
    from orchestrator.frozen import read_plan
    from orchestrator.report import formats, stored, tables
    from orchestrator.store import at

    results = at(store).check()
    if figure:
        check_figure(figure, names)
        if out and out.absolute() == figure.absolute():
            raise ValueError(f"--out and --figure are two files, got {out} for both; give the figure another name")
    if out:
        check_out(out)
    elif format is Format.HTML and sys.stdout.isatty():
        raise ValueError("a page is for a browser, not for a terminal; give --out report.html")
    known = sorted(path.parent.name for path in results.studies.glob("*/plan.json"))
    meant = [resolve(name, known, f"the store {results}") for name in names]
    plans = [read_plan(results.studies / study / "plan.json") for study in meant]
    if format is Format.HTML:
        plans = [stored.with_everything(plan) for plan in plans]
    elif details:
        plans = [stored.with_details(plan) for plan in plans]
        for plan in plans:
            if not plan["report"]["baselines"]:
                typer.echo(f"{tables.full_name(plan)} compares with no baseline, so there are no --details", err=True)
    found = stored.gather(results, plans, exact=format is Format.JSON)
    reports = [one.report for one in found]
    stored.check_mixed(reports, mixed)
    # a file or a pipe has no width of its own: COLUMNS, or enough for the drawn intervals
    width = shutil.get_terminal_size(fallback=(120, 24)).columns if out is None else 120
    evidence = [one.evidence for one in found] if format is Format.HTML else []
    text = formats.render(reports, format, width, out is None and sys.stdout.isatty(), evidence)
    from orchestrator.cli.console import has_ascii_alone, in_ascii

    if out is None and format is Format.TERMINAL and has_ascii_alone(sys.stdout):
        text = in_ascii(text)
    drawn = b""
    if figure:
        from orchestrator.report import figure as figures

        drawn = figures.draw(reports[0], found[0].trials, figure.suffix)  # before a word: it may be refused
    if out is None:
        typer.echo(text, nl=False)
    else:
        write(out, text)
        typer.echo(f"report written to {out}", err=True)
    if figure:
        write(figure, drawn)
        typer.echo(f"figure written to {figure}", err=True)


def resolve(name: str, known: Collection[str], where: str = "the store") -> str:
    """The stored study that `name` means: itself, or its only profiled run, `name@profile`; `where` they are known.

    Raises ValueError for what is no name, when there is none, naming the similar ones, and when several profiles
    were run.
    """
    try:
        named("a study's name", name)
    except ValueError as error:
        raise ValueError(f"{error}; next: idenctl study list") from None
    if name in known:
        return name
    profiled = [study for study in known if study.startswith(f"{name}@")]
    if len(profiled) == 1:
        return profiled[0]
    if profiled:
        raise ValueError(f"study '{name}' was run with several profiles; name one of {', '.join(profiled)}")
    if not known:
        raise ValueError(f"no study '{name}': {where} holds no study yet; next: idenctl study run FILE")
    raise ValueError(f"no study '{name}' in {where}; {suggest(name, known)}")


def check_figure(path: Path, names: Sequence[str]) -> None:
    """Raise ValueError or NotADirectoryError unless one study can be drawn into this file."""
    from orchestrator.report import FIGURES

    if path.suffix not in FIGURES:
        raise ValueError(f"--figure must end in {', '.join(FIGURES)}, got {path}; give another name")
    if path.is_dir():
        raise IsADirectoryError(f"--figure is a file, got the folder {path}; give the name of a file")
    if len(names) > 1:
        raise ValueError(f"--figure draws one study, got {len(names)}; name one")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"--figure must be in an existing folder, got {path}; create {path.parent}")


def check_out(path: Path, suffix: str = "", what: str = "--out") -> None:
    """Raise ValueError or NotADirectoryError unless `what` names a file with this suffix in an existing folder."""
    if not path.name.endswith(suffix):
        raise ValueError(f"{what} must end in {suffix}, got {path}; give another name")
    if path.is_dir():
        raise IsADirectoryError(f"{what} is a file, got the folder {path}; give the name of a file in it")
    if path == Path("-"):
        raise ValueError(f"{what} is a file, got -; leave it out to print, or give another name")
    if path.parent.exists() and not path.parent.is_dir():
        raise NotADirectoryError(f"{what} must be in a folder, got {path}; {path.parent} is none, give another")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"{what} must be in an existing folder, got {path}; create {path.parent}")


def write(path: Path, content: str | bytes) -> None:
    """Write a file beside and move it in place: a reader finds the old one or the new one, never half.

    What is no plain file, as a pipe, or lies in /dev, as stdout, is written to: nothing may take its place.
    """
    check_out(path)
    content = content.encode() if isinstance(content, str) else content
    in_place = Path("/dev") in path.absolute().parents or (path.exists() and not path.is_file())
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if in_place:
            path.write_bytes(content)
        else:
            beside.write_bytes(content)
            beside.replace(path)
    except PermissionError:
        raise PermissionError(
            f"{path.parent} must be writable for {path.name}, it is not; give another place"
        ) from None
    except OSError as error:  # a full disk, which does not say for which file, or a read-only one
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):  # half of it, where something was written
            beside.unlink()
