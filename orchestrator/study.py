"""Study files: YAML -> `Study`. A mistake is one line: its place, the rule, the value, the valid choices."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    ValidationError,
)

from orchestrator import strict_yaml
from orchestrator.design_sections import Component, Design, not_empty
from orchestrator.names import RULES, named, quoted
from orchestrator.search.pruning import Pruning
from orchestrator.search.space import Number, Parameter, Search
from orchestrator.sections import STRICT, Settings, Value, distinct, masked, shown, some, storage, suggest
from orchestrator.strict_yaml import Place
from orchestrator.trial import IDENNET, NUM_FOLDS

MAX_TRIALS = 1_000_000  # as many as planning was measured with
_FOLDS_RULE = f"must be all, none, or a list of folds from 0 to {NUM_FOLDS - 1}"


class Rules(Protocol):
    """What the workload of a study accepts."""

    def refused(self, part: "Study | Profile") -> Iterator[tuple[Place, str]]:
        """The place and reason of each thing in it that is not accepted."""


def _name(text: str) -> str:
    try:
        return named("a name", text)
    except ValueError:
        raise ValueError(f"must be {RULES['a name'][1]}") from None


def _object(name: str) -> str:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name, re.ASCII):
        raise ValueError(f"must be package.module:object, such as {IDENNET}")
    return name


def _named_folds(value: object) -> object:
    named = {"all": list(range(NUM_FOLDS)), "none": [None]}
    if isinstance(value, str) and value in named:
        return named[value]
    if not isinstance(value, list):
        raise ValueError(_FOLDS_RULE)
    return value


def _folds(folds: list[int | None]) -> list[int | None]:
    if folds != [None] and not all(fold is not None and 0 <= fold < NUM_FOLDS for fold in folds):
        raise ValueError(_FOLDS_RULE)
    return folds


def _seeds(seeds: list[int]) -> list[int]:
    if not all(seed >= 0 for seed in seeds):
        raise ValueError("must be integers of at least 0")
    return seeds


def _axes(value: object) -> object:
    names = value if isinstance(value, list) else [value]
    if not (all(isinstance(name, str) for name in names) and len(set(names)) == len(names) in (1, 2)):
        raise ValueError("must be a setting, or two of them as [rows, columns]")
    return value


def _published(value: object) -> object:
    return {key: _percent(number) for key, number in value.items()} if isinstance(value, dict) else _percent(value)


def _percent(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a number, or a mapping to numbers")
    return float(value)


Name = Annotated[str, AfterValidator(_name)]
Folds = Annotated[
    list[int | None],  # [None] for none
    BeforeValidator(_named_folds),
    AfterValidator(_folds),
    AfterValidator(some),
    AfterValidator(distinct),
    PlainSerializer(lambda folds: "none" if folds == [None] else folds),
]
Seeds = Annotated[list[int], AfterValidator(_seeds), AfterValidator(some), AfterValidator(distinct)]
Axes = Annotated[str | list[str], PlainValidator(_axes)]


class _Section(BaseModel):
    model_config = STRICT


class Reference(_Section):
    """Published results to set beside the measured ones: percentages by the setting `by`.

    With `by: [rows, columns]`, `values` maps a row to its columns. The columns may be `expression`.
    """

    source: str
    metric: Literal["accuracy", "sequence_accuracy"]
    by: Axes
    values: dict[Value, Annotated[float | dict[Value, float], PlainValidator(_published)]]
    note: str = ""


class Report(_Section):
    """What the report shows: accuracy by the setting `by`, each cell compared with each baseline.

    `by: [rows, columns]` is a two-way table, in which a cell is compared with the baseline of its column.
    `show` asks for more tables.
    """

    by: Axes
    baselines: list[Settings] = []
    show: Annotated[list[Literal["details", "expressions", "confusion", "subjects"]], AfterValidator(distinct)] = []


def _above_zero(number: float) -> float:
    if number <= 0:
        raise ValueError("must be above 0")
    return number


Hours = Annotated[Number, AfterValidator(_above_zero)]


class Budget(_Section):
    """When a run ends: after so many hours, or when its study's trials have taken so many hours of devices."""

    wall_clock_hours: Hours | None = None
    device_hours: Hours | None = None


class Optuna(_Section):
    """The Optuna database that shows a search while it runs, for dashboards."""

    storage: Annotated[str, AfterValidator(storage)]


class Profile(_Section):
    """What `--profile` changes in a study: mappings are merged key by key, all else is replaced."""

    base: Settings = {}
    design: Design = Design()
    search: dict[str, Any] = {}  # checked with the study that it is merged into
    budget: Budget = Budget()
    trunks: dict[str, Settings] = {}
    folds: Folds | None = None
    seeds: Seeds | None = None


class Study(_Section):
    """One question and the training runs that answer it; `profile` and `overrides` say what was applied."""

    name: Name
    question: str
    workload: Annotated[str, AfterValidator(_object)] = IDENNET
    dataset: str
    folds: Folds = list(range(NUM_FOLDS))
    seeds: Seeds = [0]
    base: Settings = {}
    design: Annotated[Design, AfterValidator(not_empty)] = Design()
    search: Search | None = None
    budget: Budget = Budget()
    optuna: Optuna | None = None
    trunks: dict[str, Settings] = {}
    profiles: dict[Name, Profile] = {}
    reference: Reference | None = None
    report: Report
    profile: Name | None = None
    overrides: Settings = {}

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that the design or the search gives a value."""
        return tuple(self.search.space) if self.search else self.design.varied

    @property
    def folder(self) -> str:
        """The study's folder in the store: its name, and its profile where it has one."""
        return f"{self.name}@{self.profile}" if self.profile else self.name


def axes(by: str | Sequence[str]) -> tuple[str, ...]:
    """The rows of a table, and its columns where it is a two-way table."""
    return (by,) if isinstance(by, str) else tuple(by)


def load(
    path: Path,
    profile: str | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    rules_of: Callable[[str], Rules],
) -> Study:
    """The study in a YAML file, its profile merged over it and `overrides` (text by key) over that.

    The result holds no profiles any more. `rules_of` gives the rules of the workload that the file names, or raises
    ValueError. Raises ValueError for whatever the file, the profile, an override or the rules do not allow, and
    FileNotFoundError where there is no file.
    """
    data, places = strict_yaml.read(_text(path), str(path))
    if not isinstance(data, dict):
        raise ValueError(f"{path}:1: a study is a mapping of keys such as name and design, got {shown(data)}")
    study = _validated(data, places)
    recorded = [key for key in ("profile", "overrides") if study.profiles and key in data]
    if recorded:
        raise ValueError(f"{places[recorded[0],]}: '{recorded[0]}' is what a frozen study records; remove it")
    try:
        rules = rules_of(study.workload)
    except ValueError as error:
        raise ValueError(f"{_at(places, ('workload',))}: {error}") from error
    for name, part in study.profiles.items():
        _check(part, ("profiles", name), places, rules)
    data.pop("profiles", None)
    if profile is not None:
        if profile not in study.profiles:
            raise ValueError(f"{path}: unknown profile {quoted(profile)}; {suggest(profile, study.profiles)}")
        data = _merged(data, study.profiles[profile].model_dump(exclude_unset=True)) | {"profile": profile}
        chosen = ("profiles", profile)
        places |= {place[2:]: at for place, at in places.items() if place[:2] == chosen and len(place) > 2}
        study = _validated(data, places)
    for key, text in (overrides or {}).items():
        at = f"--set {key}={text}"
        place = _override_place(key, study.varied, at)
        value = strict_yaml.read(text, at, numbered=False)[0]
        change: Any = value
        for part_of_key in reversed(place):
            change = {part_of_key: change}
        data = _merged(data, change | {"overrides": {key: value}})
        places |= {place[:2]: places.get(place[:2], at), place: at, ("overrides", key): at}
    study = _validated(data, places)
    _check(study, (), places, rules)
    return study


def dump(study: Study) -> str:
    """The study as YAML that loads to an equal `Study`."""
    unsaid = {"profiles", "design" if study.search else "search"}
    return strict_yaml.dump(study.model_dump(exclude=unsaid, exclude_none=True))


def assignments(items: Iterable[str]) -> dict[str, str]:
    """`key=value` arguments as a mapping. Raises ValueError for one without `=` and for a key given twice."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not key or not equals:
            raise ValueError(f"--set takes key=value, got '{item}'")
        if key in found:
            raise ValueError(f"--set gives '{key}' twice: {found[key]} and {text}; keep one")
        found[key] = text
    return found


def _check(part: Study | Profile, at: Place, places: Mapping[Place, str], rules: Rules) -> None:
    cannot_be = (
        ((("design", *place), reason) for place, reason in part.design.refused()) if isinstance(part, Study) else ()
    )
    for place, reason in chain(cannot_be, _too_many(part), rules.refused(part)):
        raise ValueError(f"{_at(places, (*at, *place))}: {reason}")


def _too_many(part: Study | Profile) -> Iterator[tuple[Place, str]]:
    if isinstance(part, Study):
        cells = part.search.configurations if part.search else len(part.design.points())
        trials = cells * len(part.folds) * len(part.seeds)
        if trials > MAX_TRIALS:
            place: Place = ("search", "configurations") if part.search else ("design",)
            yield place, f"a study has at most {MAX_TRIALS:,} trials, got {trials:,}; make several studies of it"


def _override_place(key: str, varied: Sequence[str], at: str) -> Place:
    if key in varied:
        raise ValueError(f"{at}: the study varies {key}; edit its design or search instead")
    parts = tuple(key.split("."))
    if len(parts) == 1:
        return ("base", key)
    if len(parts) == 3 and parts[0] == "trunks":
        return parts
    raise ValueError(f"{at}: a key is a setting, or trunks.TASK.SETTING, got '{key}'")


def _merged(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {key: _merged(under.get(key), value) for key, value in over.items()}


def _validated(data: Mapping[Any, Any], places: Mapping[Place, str]) -> Study:
    try:
        found = Study.model_validate(data)
        if ("design" in data) == ("search" in data):
            raise ValueError(
                f"{places[()]}: a study has a design or a search, got {'both' if found.search else 'none'}; write one"
            )
        if found.optuna and not found.search:
            raise ValueError(
                f"{places['optuna',]}: an Optuna database shows searches, got a study with a design; remove optuna"
            )
        return found
    except ValidationError as error:
        # a misspelt key is also a missing one: name what was written, not what was not
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        place = tuple(part for part in first["loc"] if part != "[key]")
        where = ascii(".".join(map(str, place)))[1:-1]
        if first["type"] == "extra_forbidden":
            reason = f"unknown key '{masked(where)}'; {suggest(str(place[-1]), _keys(place[:-1]))}"
        elif first["type"] == "missing":
            reason = f"the key '{where}' is missing; add it"
        else:
            rule = re.sub("^(Value error,|Input) | or instance of .*", "", first["msg"])
            rule = rule.replace("dictionary", "mapping").replace("a valid boolean", "true or false")
            reason = f"{where} {rule}, got {shown(first['input'])}"
        raise ValueError(f"{_at(places, place)}: {reason}") from None


def _keys(place: Place) -> Iterable[str]:
    """The keys that a section of a study file may have."""
    if place[:1] == ("profiles",):
        return Profile.model_fields if len(place) == 2 else _keys(place[2:])
    if place[:2] == ("search", "space"):
        return Parameter.model_fields
    if place[:2] == ("design", "components"):
        return Component.model_fields
    sections: dict[Place, type[BaseModel]] = {
        ("design",): Design,
        ("search",): Search,
        ("search", "pruning"): Pruning,
        ("budget",): Budget,
        ("optuna",): Optuna,
        ("reference",): Reference,
        ("report",): Report,
    }
    return sections.get(place, Study).model_fields


def _at(places: Mapping[Place, str], place: Place) -> str:
    while place not in places:
        place = place[:-1]
    return places[place]


def _text(path: Path) -> str:
    if not path.exists():
        others = sorted(str(other) for other in path.parent.glob("*.y*ml"))
        near = difflib.get_close_matches(str(path), others, n=10, cutoff=0)
        hint = suggest(str(path), near) if near else "give the path of a YAML file, such as studies/oulu_idrate.yaml"
        raise FileNotFoundError(f"no study file {path}; {hint}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a study file")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe, a socket or a device; give a study file")
    if (size := path.stat().st_size) > 4 * strict_yaml.MAX_CHARACTERS:  # bytes, of which a character has four at most
        raise ValueError(f"{path}: a file may have {strict_yaml.MAX_CHARACTERS:,} characters, got {size:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path}: a study file is UTF-8 text, got the byte {byte:#04x}") from None
