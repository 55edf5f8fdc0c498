"""`idenctl study new`: a commented study file, from options or from questions."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from orchestrator.cli import completion

if TYPE_CHECKING:
    from orchestrator.new_study import Wanted
    from orchestrator.study_rules import Rules

SCHEMA = "schema.json"  # beside study files, where it is kept
T = TypeVar("T")


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the study is to be called.")],
    dataset: Annotated[
        str | None, typer.Option(help="The data set to train and test on.", autocompletion=completion.datasets)
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=V1,V2",
            help="What varies, and its values; repeat for all combinations. With --search also LOW..HIGH, or "
            "LOW..HIGH,log.",
        ),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Search for the best of N configurations, do not compare all."),
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="all, none, or such as 0,1,2.", show_default="all that the data set has")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2.")] = "0",
    question: Annotated[str | None, typer.Option(help="What it is to find out.", show_default="made of --vary")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write.", show_default="NAME.yaml")] = None,
) -> None:
    """Write a study file with a comment to each key; asks for what is not given where it runs in a terminal."""
    from orchestrator import new_study
    from orchestrator.idennet import FOR_TRUNKS, Idennet
    from orchestrator.names import named

    rules = Idennet.rules
    named("a name", name)
    file = out or Path(f"{name}.yaml")
    _check_place(file)
    asks = dataset is None or not vary
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        got = "neither" if dataset is None and not vary else "no --dataset" if dataset is None else "no --vary"
        raise ValueError(f"a new study needs --dataset NAME and --vary SETTING=V1,V2, got {got}; give both")
    if dataset is None:
        sets = ", ".join(each for each in rules.datasets if each not in FOR_TRUNKS)
        dataset = _asked(f"Data set ({sets})", lambda text: new_study.data_set(text, rules), rules.datasets[0])
    new_study.data_set(dataset, rules)
    if asks and search is None:
        search = _asked("How many configurations to search, 0 to compare those you list", _count, "0") or None
    if not vary:
        vary = _asked_settings(rules, search is not None)
    varied = new_study.varied(vary, rules, search is not None)
    new_study.suited(dataset, varied, search is not None)
    usual = folds or new_study.usual_folds(dataset)
    if asks:
        chosen = _asked("Folds: all, none, or such as 0,1,2", new_study.folds, usual)
        repeated = _asked("Seeds, such as 0,1,2", new_study.seeds, seeds)
    else:
        chosen, repeated = new_study.folds(usual), new_study.seeds(seeds)
    way = f"How does accuracy on {dataset} depend on {' and '.join(varied)}?"
    if question is None:
        question = _asked("The question", str, way) if asks else way
    base = new_study.shared(dataset, varied, rules)
    wanted = new_study.Wanted(name, question, dataset, varied, search, chosen, repeated, base)
    text = _checked(wanted, rules, file)
    with file.open("x", encoding="utf-8") as opened:  # whoever has made it since keeps it
        opened.write(text)
    typer.echo(f"{file} written; next: idenctl study plan {file}", err=True)


def _check_place(file: Path) -> None:
    if os.path.lexists(file):
        raise ValueError(f"a new study overwrites nothing, {file} is there already; give another NAME or --out")
    if not file.parent.is_dir():
        raise NotADirectoryError(f"--out must be in an existing folder, got {file}; create {file.parent}")


def _checked(wanted: "Wanted", rules: "Rules", file: Path) -> str:
    """The text of the study file, which loads."""
    from orchestrator import new_study, study

    text = new_study.text(wanted, rules, str(file), _schema_from(file.parent))
    with TemporaryDirectory() as folder:
        draft = Path(folder) / file.name
        draft.write_text(text, encoding="utf-8")
        try:
            for profile in (None, "quick"):
                study.load(draft, profile, rules_of=lambda _: rules)
        except ValueError as error:
            raise ValueError(str(error).replace(str(draft), str(file))) from None
    return text


def _schema_from(folder: Path) -> str | None:
    """The way from a folder of study files to their schema, where one is kept there or in `studies`."""
    found = [place for place in (folder / SCHEMA, Path("studies") / SCHEMA) if place.is_file()]
    return os.path.relpath(found[0], folder) if found else None


def _asked_settings(rules: "Rules", searches: bool) -> list[str]:
    from orchestrator import new_study

    for setting, default in rules.settings.items():
        typer.echo(f"  {setting:15} {default!s:8} {rules.meanings[setting]}", err=True)
    form = "SETTING=V1,V2 or SETTING=LOW..HIGH" if searches else "SETTING=V1,V2"
    found: list[str] = []
    while True:

        def one(text: str) -> str:
            if text or not found:
                new_study.varied([*found, text], rules, searches)
            return text

        more = _asked(f"What varies ({form})" if not found else "What else (nothing ends)", one, "")
        if not more:
            return found
        found.append(more)


def _asked(question: str, read: Callable[[str], T], default: str) -> T:
    """The answer to a question on the terminal, asked again until `read` raises no ValueError."""
    while True:
        answer = typer.prompt(question, default=default, show_default=bool(default), err=True)
        try:
            return read(answer)
        except ValueError as error:
            typer.echo(f"{error}", err=True)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"a search tries a whole number of configurations, got {text!a}")
    return int(text)
