"""The reference of the command line, from the parser that reads it."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from manual.markdown import code, table, text
from orchestrator.cli.app import app


def page(root: Any = None) -> str:
    """Every command: what it does, how it is called, its arguments and options."""
    return "\n".join(_section(*each) for each in every(root or typer.main.get_command(app)))


def every(command: Any, name: str = "idenctl", parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """Name, command and context of each command below this one, groups too."""
    context = command.context_class(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield name, command, context
    for inner in getattr(command, "commands", {}).values():
        yield from every(inner, f"{name} {inner.name}", context)


def _section(name: str, command: Any, context: Any) -> str:
    inner = getattr(command, "commands", {})
    parts = [f"{'##' if inner else '###'} {name}", inspect.cleandoc(command.help or "")]
    if not inner:
        parts.append(f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```")
    records = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    rows = [(code(given), text(said)) for given, said in records if given != "--help"]
    if rows:
        parts.append(table(("argument or option", "what it says"), rows))
    if command.epilog:
        parts.append(f"```text\n{inspect.cleandoc(command.epilog)}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"
