"""What a shell completes: names out of folders and small files, without a library that is slow to load."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import typer

SHOWN = "*.y*ml"  # study files


@contextmanager
def whole_names() -> Iterator[None]:
    """Take each NAME@PROFILE for one word, where bash asks for completion and has split it into three at the @.

    The @ and what comes after it is then what bash wants to hear.
    """
    words, cursor = os.environ.get("COMP_WORDS", "").split("\n"), os.environ.get("COMP_CWORD", "")
    if "@" not in words[1:] or not cursor.isdecimal():
        yield
        return
    joined: list[str] = []
    at = 0  # the word that the cursor is in
    for number, word in enumerate(words):
        if joined and (word == "@" or joined[-1].endswith("@")):
            joined[-1] += word
        else:
            joined.append(word)
        if number == int(cursor):
            at = len(joined) - 1
    os.environ |= {"COMP_WORDS": "\n".join(joined), "COMP_CWORD": str(at)}
    begun = joined[at].rpartition("@")[0]
    answer = StringIO()
    try:
        with redirect_stdout(answer):
            yield
    finally:
        print("\n".join(line.removeprefix(begun) for line in answer.getvalue().splitlines()))


def datasets(incomplete: str) -> Iterator[str]:
    """The data sets that are known."""
    from idennet_core.config import DATASETS

    return _beginning(incomplete, DATASETS)


def studies(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """The studies that were run, in the store of the command line."""
    return _beginning(incomplete, sorted(path.parent.name for path in _store(ctx).glob("studies/*/plan.json")))


def files(incomplete: str) -> Iterator[str]:
    """Study files, and folders on the way to them."""
    for path in sorted(Path().glob(f"{incomplete}*")) if not incomplete.startswith("/") else _absolute(incomplete):
        if path.is_dir() and not path.name.startswith("."):
            yield f"{path}/"
        elif path.match(SHOWN):
            yield str(path)
    if not incomplete:
        yield from map(str, sorted(Path("studies").glob(SHOWN)))


def profiles(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """The profiles of the study file that the command line names."""
    from orchestrator import strict_yaml

    # where the line ends with --profile, without a value, the parser leaves what it has not come to among the rest
    file = str(ctx.params.get("file") or [*ctx.args, ""][0])
    try:
        content, _ = strict_yaml.read(Path(file).read_text(encoding="utf-8"), file)
        return _beginning(incomplete, content["profiles"])
    except (OSError, ValueError, TypeError, KeyError):  # there is nothing to complete from
        return iter(())


def settings(incomplete: str) -> Iterator[str]:
    """The settings of IDEnNet and of its trunks, up to the value."""
    from idennet_core.config import HEAD_DEFAULTS, TRUNK_DEFAULTS

    of_trunks = (f"trunks.{task}.{name}" for task, defaults in TRUNK_DEFAULTS.items() for name in defaults)
    return _beginning(incomplete, [f"{name}=" for name in (*HEAD_DEFAULTS, *of_trunks)])


def _store(ctx: typer.Context) -> Path:
    """The store's folder; of a bucket, what this machine holds of it."""
    from orchestrator.address import is_address, parsed, resolved

    store = str(ctx.params.get("store") or os.environ.get("IDENCTL_STORE") or "runs")
    try:
        return resolved(parsed(store)).mirror if is_address(store) else Path(store)
    except ValueError:
        return Path(store)


def _absolute(incomplete: str) -> list[Path]:
    return sorted(Path("/").glob(f"{incomplete[1:]}*"))


def _beginning(incomplete: str, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name.startswith(incomplete))
