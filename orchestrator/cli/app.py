"""`idenctl`: the commands, and the one place where errors become messages."""

import errno
import logging
import os
import re
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from idennet_core.naming import nearest
from orchestrator.cli import (
    cluster,
    completion,
    dashboard,
    data,
    doctor,
    examples,
    heatmap,
    network,
    report,
    store,
    study,
    trunk,
)
from orchestrator.names import quoted, visible

app = typer.Typer(
    name="idenctl",
    help="Studies of the facial-expression network IDEnNet: many small training runs, folds first.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(trunk.app, name="trunk")
app.add_typer(study.app, name="study")
app.add_typer(cluster.app, name="cluster")
app.add_typer(store.app, name="store")
app.command("report")(report.report)
app.command("dashboard")(dashboard.dashboard)
app.command("heatmap")(heatmap.heatmap)
app.command("predict")(network.predict)
app.command("export")(network.export)
app.command("doctor")(doctor.doctor)
examples.show(app)

INTERRUPTED = 130  # the exit status
LONGEST = 2000  # characters of a message
LONGEST_NAME = 200  # of a path in it
TOO_LONG = (errno.ENAMETOOLONG, errno.ELOOP)  # of a path; it can only be the request's
WRONG_INPUT = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"idenctl {version('idenctl')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that belong to no command; `main` acts on `--debug`."""


def main() -> None:
    """Run one command; errors become one line on stderr and an exit status.

    0 done, 1 something failed, 2 the request was wrong, 130 interrupted. `--debug`, anywhere on the command
    line, shows the traceback too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as it was set for the time of loading
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if os.environ.get("COLUMNS") == "0":  # a width that nobody knows; Rich would print nothing into it
        del os.environ["COLUMNS"]
    try:
        if said := _says_nothing(arguments):
            raise ValueError(said)
        try:
            with completion.whole_names():
                status = typer.main.get_command(app).main(arguments, prog_name="idenctl", standalone_mode=False)
        finally:
            if sys.stdout:  # None where it was closed before we began
                sys.stdout.flush()
        _leave(status)
    except (KeyboardInterrupt, typer.Abort):
        _leave(INTERRUPTED)
    except TyperException as error:  # a command line that the parser refuses
        if message := _meant(_refused(error)):  # empty where the help was shown instead
            context = getattr(error, "ctx", None)
            where = context.command_path if context else "idenctl"
            print(f"error: {_one_line(message.replace('Value error, ', ''))}; see: {where} --help", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # the reader, such as head, has left; the interpreter's flush at exit must not complain about it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        wrong = isinstance(error, WRONG_INPUT) or (isinstance(error, OSError) and error.errno in TOO_LONG)
        # a disk that is full or gone is no defect; what safetensors could not write is no OSError, and ends so
        known = wrong or isinstance(error, OSError) or "(os error " in str(error)
        note = "" if known or debug else " (run with --debug for the traceback)"
        name = "error" if known else f"internal error: {type(error).__name__}"
        print(f"{name}: {_one_line(_text(error))}{note}", file=sys.stderr)
        sys.exit(2 if wrong else 1)


def _leave(status: int | None) -> NoReturn:
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another would meet Ray on its way out
    sys.exit(status)


def _says_nothing(arguments: Sequence[str]) -> str:
    """Why the command line cannot be meant where one of its values is empty, as a shell variable that is not set is."""
    for before, argument in pairwise(["", *arguments]):
        option, equals, value = argument.partition("=")
        if not argument.strip():
            place, value = before if before.startswith("-") and before.strip("-") else "an argument", argument
        elif option.startswith("--") and equals and not value.strip():
            place = option
        else:
            continue
        return f"{place} must say something, got {quoted(value)}; give a value, or leave it out"
    return ""


def _refused(error: TyperException) -> str:
    """What the parser says is wrong, with the value, which it does not always name."""
    message = error.format_message()
    if errors := getattr(error.__cause__, "errors", None):  # of Pydantic, which the parser asks
        value = quoted(str(errors()[0]["input"]))
        return message if value in message else f"{message}, got {value}"
    return message


def _meant(message: str) -> str:
    """What the parser says, and what may have been meant where it has no idea."""
    if found := re.fullmatch(r"No such command '(.*)'\.?", message):
        ends = Counter(path.rpartition(" ")[2] for path in examples.EXAMPLES if path)
        last = {path.rpartition(" ")[2]: path for path in examples.EXAMPLES if ends[path.rpartition(" ")[2]] == 1}
        if close := nearest(found[1], last):
            return f"{message.removesuffix('.')}; did you mean '{last[close]}'?"
    if (found := re.search(r"'([^']*)' is not one of (.*)", message)) and (
        close := nearest(found[1], re.findall("'([^']*)'", found[2]))
    ):
        return f"{message.removesuffix('.')}; did you mean '{close}'?"
    return message


def _text(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    room = "; make room, `idenctl store clean` shows what may go" if error.errno == errno.ENOSPC else ""
    name = "" if error.filename is None else str(error.filename)
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}...{name[-LONGEST_NAME // 2 :]}"
    return f"{name}{': ' * bool(name)}{error.strerror}{room}"


def _one_line(text: str) -> str:
    lines = "; ".join(line.strip().removesuffix(".") for line in text.splitlines() if line.strip())
    return visible(lines if len(lines) <= LONGEST else f"{lines[: LONGEST - 3]}...")


if __name__ == "__main__":
    main()
