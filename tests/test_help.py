"""Every command's help ends with an example, which the commands' own parser takes; a name nearly right is guessed."""

import shlex
from pathlib import Path

import pytest
import typer
from conftest import idenctl
from study_files import GOOD, written

from idennet_core.naming import nearest, suggest
from orchestrator.cli.app import app

ROOT = Path(__file__).parent.parent


def walked(command, path=()):
    """Every command and group of commands by its words."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walked(inner, (*path, name))


COMMANDS = dict(walked(typer.main.get_command(app)))


def parsed(words):
    """The words as the commands' parser takes them, without running anything: the command's path, its parameters."""
    context = COMMANDS[()].make_context("idenctl", list(words))
    path = ()
    while rest := [*context._protected_args, *context.args] if hasattr(context.command, "commands") else []:
        name, command, rest = context.command.resolve_command(context, rest)
        path = (*path, name)
        context = command.make_context(name, rest, parent=context)
    return path, context.params


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_of_a_command_is_one_that_its_parser_takes(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(COMMANDS[path].epilog.removeprefix("Example: "))
    found, parameters = parsed(words)
    assert program == "idenctl"
    assert found[: len(path)] == path
    assert not hasattr(COMMANDS[found], "commands"), "an example runs something"
    for value in parameters.values():
        if isinstance(value, Path) and value.parts[0] in ("studies", "cluster", "examples"):
            assert value.is_file()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_the_example(path):
    shown = idenctl(*path, "--help").stdout
    assert " ".join(COMMANDS[path].epilog.split()) in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stduy", "list"], "did you mean 'study'?"),
        (["study", "lits"], "did you mean 'list'?"),
        (["plan", "x"], "did you mean 'study plan'?"),
        (["pln", "x"], "did you mean 'study plan'?"),
        (["cluster", "chekc", "x"], "did you mean 'check'?"),
        (["report", "x", "--formt", "html"], "--format"),
        (["report", "x", "--format", "markdwon"], "did you mean 'markdown'?"),
        (["study", "run", "x.yaml", "--engine", "inlin"], "did you mean 'inline'?"),
        (["data", "show", "Oulu-CASIA", "--root", "x"], "did you mean 'oulu-casia'?"),
        (["data", "synth", "ferplus+", "--out", "x"], "did you mean 'ferplus'?"),
        (["study", "plan", "oulu_idrate"], "did you mean 'studies/oulu_idrate.yaml'?"),
        (["study", "plan", "studies/oulu_idrat.yaml"], "did you mean 'studies/oulu_idrate.yaml'?"),
        (["cluster", "check", "cluster/gpus.yaml"], "did you mean 'cluster/gpu.yaml'?"),
        (["study", "plan", "studies/ck_depths.yaml", "--profile", "papr"], "did you mean 'paper'?"),
        (["study", "plan", "studies/ck_depths.yaml", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["study", "plan", "studies/ck_depths.yaml", "--set", "trunks.emotoin.lr=3"], "did you mean 'emotion'?"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_name_that_is_nearly_right_is_guessed(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("IDENCTL_STORE", str(tmp_path))
    done = idenctl(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said.casefold() in done.stderr.casefold()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "tinny"], "did you mean 'tiny'?"),
        (["study", "status", "tinyy"], "did you mean 'tiny'?"),
        (["study", "stop", "Tiny"], "did you mean 'tiny'?"),
        (["heatmap", "tny", "--out", "x.png"], "did you mean 'tiny'?"),
        (["heatmap", "tiny", "--out", "x.png", "--cell", "varaint=f"], "did you mean 'variant=f'?"),
        (["predict", "x.jpg", "--study", "tinny"], "did you mean 'tiny'?"),
        (["dashboard", "tiyn"], "did you mean 'tiny'?"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_study_that_is_nearly_in_the_store_is_guessed(trained_store, words, said):
    done = idenctl(*words, "--store", trained_store)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert said in done.stderr


def test_a_value_of_few_that_is_nearly_right_is_guessed(tmp_path):
    file = written(
        tmp_path, f"{GOOD}search: {{space: {{alpha: {{low: 0, high: 1}}}}, configurations: 2, sampler: tep}}"
    )
    assert "got 'tep'; did you mean 'tpe'?" in idenctl("study", "plan", file).stderr


def test_the_nearest_name_is_blind_to_case_and_knows_beginnings_but_guesses_no_further():
    names = ["oulu-casia", "ck+", "mmi", "ferplus", "casia-webface"]
    assert nearest("CK+", names) == "ck+"
    assert nearest("oulu", names) == "oulu-casia"
    assert nearest("c", names) is None
    assert nearest("", names) is None
    assert suggest("lfw", names) == "valid: oulu-casia, ck+, mmi, ferplus, casia-webface"
    assert suggest("x", []) == "valid: none"
