"""A new study file with a comment to each key: what keys mean and what they are by default comes from their readers."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from idennet_core.naming import suggest
from orchestrator.design_sections import Design
from orchestrator.idennet import FOR_TRUNKS, NAMELESS
from orchestrator.names import quoted
from orchestrator.search.space import Parameter, Search
from orchestrator.strict_yaml import flow, read
from orchestrator.study import Profile, Study
from orchestrator.study_rules import Rules
from orchestrator.study_sections import Report
from orchestrator.trial import NUM_FOLDS, Setting

COMMENTS_AT = 34  # the column
# of the profile quick: minutes on two cores
QUICK: Mapping[str, Setting] = {"depth": 16, "epochs": 6, "batch_size": 32, "lr": 0.1, "augment": False}
QUICK_TRUNKS: Mapping[str, Mapping[str, Setting]] = {
    "emotion": {"epochs": 12, "batch_size": 32},
    "identity": {"epochs": 8, "batch_size": 32},
}


@dataclass(frozen=True)
class Range:
    """Where a search varies a number."""

    low: int | float
    high: int | float
    log: bool


@dataclass(frozen=True)
class Wanted:
    """What a new study is to say; `configurations` is None where it compares, else how many a search tries."""

    name: str
    question: str
    dataset: str
    varied: Mapping[str, Sequence[Setting] | Range]
    configurations: int | None
    folds: str | Sequence[int]
    seeds: Sequence[int]
    base: Mapping[str, Setting]  # what is not varied


def data_set(name: str, rules: Rules) -> str:
    """The name of a data set that can be studied. Raises ValueError for another."""
    known = [each for each in rules.datasets if each not in FOR_TRUNKS]
    if name not in known:
        raise ValueError(f"unknown data set {quoted(name)}; {suggest(name, known)}")
    return name


def suited(dataset: str, varied: Mapping[str, Sequence[Setting] | Range], searches: bool) -> None:
    """Raise ValueError for what cannot be asked of a data set that names nobody."""
    if dataset not in NAMELESS:
        return
    if searches:
        raise ValueError(f"a search is scored by folds of people, {dataset} names nobody; compare, or use another set")
    variants = varied.get("variant", ())
    if not isinstance(variants, Range) and {"i", "if"} & set(variants):
        raise ValueError(f"the identity loss needs people, {dataset} names nobody; keep the variants original and f")


def shared(dataset: str, varied: Collection[str], rules: Rules) -> dict[str, Setting]:
    """The settings that are not varied, as they are by default where the data set allows."""
    fitting = {"variant": "f"} if dataset in NAMELESS else {}  # both streams, no identity loss
    return {name: value for name, value in (dict(rules.settings) | fitting).items() if name not in varied}


def usual_folds(dataset: str) -> str:
    """All folds, or none where a data set names nobody."""
    return "none" if dataset in NAMELESS else "all"


def varied(items: Iterable[str], rules: Rules, searches: bool) -> dict[str, list[Setting] | Range]:
    """What `SETTING=V1,V2` and, in a search, `SETTING=LOW..HIGH` or `LOW..HIGH,log` say.

    Raises ValueError for an unknown setting and for values that it cannot have.
    """
    found: dict[str, list[Setting] | Range] = {}
    for item in items:
        name, _, text = item.partition("=")
        if name not in rules.settings:
            raise ValueError(f"unknown setting {quoted(name)}; {suggest(name, rules.settings)}")
        if name in found:
            raise ValueError(f"a setting varies once, got {name} twice; give all its values at once")
        found[name] = _range(name, text, searches) or _values(name, text)
        values = found[name]
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            rules.complete({name: value}, rules.settings)
    return found


def folds(text: str) -> str | list[int]:
    """What `all`, `none` or `0,1,2` says. Raises ValueError for anything else."""
    if text in ("all", "none"):
        return text
    numbers = _integers(text)
    if not numbers or not all(0 <= number < NUM_FOLDS for number in numbers) or len(set(numbers)) != len(numbers):
        raise ValueError(f"folds are all, none, or some of 0 to {NUM_FOLDS - 1} such as 0,1,2, got {quoted(text)}")
    return numbers


def seeds(text: str) -> list[int]:
    """What `0,1,2` says. Raises ValueError for anything else."""
    numbers = _integers(text)
    if not numbers or len(set(numbers)) != len(numbers):
        raise ValueError(f"seeds are different whole numbers of at least 0 such as 0,1,2, got {quoted(text)}")
    return numbers


def text(wanted: Wanted, rules: Rules, file: str, schema: str | None) -> str:
    """The study file, to be called `file`, with the path of its JSON schema where there is one."""
    keys = Study.model_fields
    folder = wanted.name
    lines = [
        *([f"# yaml-language-server: $schema={schema}"] if schema else []),
        f"# Made by `idenctl study new {wanted.name}`; change what you like.",
        "#",
        f"#   idenctl study plan {file}                  what would be trained, and what it takes",
        f"#   idenctl study run {file} --profile quick   a first look",
        f"#   idenctl report {folder}@quick",
        "",
        _line(f"name: {flow(wanted.name)}", keys["name"].description),
        f"question: {flow(wanted.question)}",
        _line(f"dataset: {flow(wanted.dataset)}", keys["dataset"].description),
        _line(f"folds: {flow(wanted.folds)}", keys["folds"].description),
        _line(f"seeds: {flow(wanted.seeds)}", keys["seeds"].description),
        "",
        _line("base:", keys["base"].description),
        *(_line(f"  {name}: {flow(value)}", rules.meanings.get(name)) for name, value in wanted.base.items()),
        "",
        *(_design(wanted, rules) if wanted.configurations is None else _search(wanted, rules)),
        "",
        _line("trunks:", keys["trunks"].description),
        *(f"  {task}: {flow(settings)}" for task, settings in rules.trunks.items()),
        "",
        _line("profiles:", keys["profiles"].description),
        _line("  quick:", "Minutes on two cores; for a look at the whole, not for conclusions."),
        _line(f"    base: {flow(_quick(wanted))}", Profile.model_fields["base"].description),
        "    trunks:",
        *(f"      {task}: {flow(settings)}" for task, settings in QUICK_TRUNKS.items()),
        "",
        _line("report:", keys["report"].description),
        *_report(wanted),
    ]
    return "\n".join(lines) + "\n"


def _design(wanted: Wanted, rules: Rules) -> list[str]:
    return [
        _line("design:", Study.model_fields["design"].description),
        _line("  grid:", Design.model_fields["grid"].description),
        *(_line(f"    {name}: {flow(values)}", rules.meanings.get(name)) for name, values in wanted.varied.items()),
    ]


def _search(wanted: Wanted, rules: Rules) -> list[str]:
    keys = Search.model_fields
    chosen = {name: keys[name].get_default() for name in ("sampler", "seed")}
    chosen |= {"configurations": wanted.configurations}
    chosen |= {name: keys[name].get_default() for name in ("batch", "select")}
    return [
        _line("search:", Study.model_fields["search"].description),
        *(_line(f"  {name}: {flow(value)}", keys[name].description) for name, value in chosen.items()),
        _line("  space:", keys["space"].description),
        *(
            _line(f"    {name}: {flow(_parameter(values))}", rules.meanings.get(name))
            for name, values in wanted.varied.items()
        ),
    ]


def _parameter(values: Sequence[Setting] | Range) -> dict[str, object]:
    if not isinstance(values, Range):
        return {"choices": list(values)}
    log = {"log": True} if values.log else {}
    return {"low": values.low, "high": values.high, **log}


def _report(wanted: Wanted) -> list[str]:
    """By one setting, or two in a table; in a design all cells are compared with the one of the first values."""
    keys, names = Report.model_fields, list(wanted.varied)
    by = names if len(names) == 2 else names[:1]
    lines = [_line(f"  by: {flow(by if len(by) == 2 else by[0])}", keys["by"].description)]
    if wanted.configurations is None:
        firsts = {name: values[0] for name, values in wanted.varied.items() if not isinstance(values, Range)}
        baseline = {name: value for name, value in firsts.items() if name not in by[1:]}
        lines.append(_line(f"  baselines: {flow([baseline])}", keys["baselines"].description))
    return lines


def _quick(wanted: Wanted) -> dict[str, Setting]:
    return {name: value for name, value in QUICK.items() if name not in wanted.varied}


def _range(name: str, text: str, searches: bool) -> Range | None:
    found = re.fullmatch(r"([^,]+?)\.\.([^,]+?)(,log)?", text)
    if not found:
        return None
    if not searches:
        raise ValueError(
            f"a study that compares lists values, got {quoted(f'{name}={text}')}; list them, or --search N"
        )
    (low,), (high,) = _values(name, found[1]), _values(name, found[2])
    log = bool(found[3])
    try:
        checked = Parameter.model_validate({"low": low, "high": high, "log": log})
    except ValueError as error:
        rule = re.search(r"Value error, (.*?) \[", str(error))
        wanted = rule[1] if rule else "must have numbers as low and high"
        raise ValueError(f"a range {wanted}, got {quoted(f'{name}={text}')}; give LOW..HIGH or LOW..HIGH,log") from None
    assert checked.low is not None
    assert checked.high is not None
    return Range(checked.low, checked.high, log)


def _values(name: str, text: str) -> list[Setting]:
    try:
        values = read(f"[{text}]", f"{name}={text}", numbered=False)[0]
    except ValueError:
        values = []
    if not values or not all(isinstance(value, bool | int | float | str) for value in values):
        raise ValueError(
            f"a setting varies over values such as {name}=V1,V2, got {quoted(f'{name}={text}')}; write them so"
        )
    if len(set(values)) != len(values):
        raise ValueError(f"a setting has each value once, got {quoted(f'{name}={text}')}; leave one out")
    return list(values)


def _integers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(re.fullmatch("[0-9]{1,9}", part) for part in parts) else []


def _line(text: str, comment: str | None) -> str:
    return f"{text:<{COMMENTS_AT - 2}}  # {comment}" if comment else text
