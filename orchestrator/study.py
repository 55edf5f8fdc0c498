"""Study files: YAML -> `Study`. A mistake is one line: its place, the rule, the value, the valid choices."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
)

from idennet_core.naming import nearest, suggest
from orchestrator import strict_yaml
from orchestrator.design_sections import Component, Design, not_empty
from orchestrator.names import RULES, named, quoted
from orchestrator.search.pruning import Pruning
from orchestrator.search.space import Parameter, Search
from orchestrator.sections import STRICT, Settings, distinct, masked, shown, some
from orchestrator.strict_yaml import Place
from orchestrator.study_sections import Budget, Optuna, Reference, Report
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


Name = Annotated[str, AfterValidator(_name)]
Folds = Annotated[
    list[int | None],  # [None] for none
    BeforeValidator(
        _named_folds,
        json_schema_input_type=Literal["all", "none"]
        | list[Annotated[int, Field(ge=0, lt=NUM_FOLDS)] | None],  # of nulls one alone
    ),
    AfterValidator(_folds),
    AfterValidator(some),
    AfterValidator(distinct),
    PlainSerializer(lambda folds: "none" if folds == [None] else folds),
]
Seeds = Annotated[
    list[Annotated[int, Field(json_schema_extra={"minimum": 0})]],
    AfterValidator(_seeds),
    AfterValidator(some),
    AfterValidator(distinct),
]


class _Section(BaseModel):
    model_config = STRICT


class Profile(_Section):
    """What `--profile` changes in a study: mappings are merged key by key, all else is replaced."""

    base: Settings = Field(default={}, description="Settings in the place of the study's.")
    design: Design = Field(default=Design(), description="Parts of a design in the place of the study's.")
    search: dict[str, Any] = Field(
        default={}, description="Keys of a search in the place of the study's."
    )  # checked merged
    budget: Budget = Field(default=Budget(), description="Another budget.")
    trunks: dict[str, Settings] = Field(default={}, description="Settings of pre-training, by trunk.")
    folds: Folds | None = Field(default=None, description="Other folds.")
    seeds: Seeds | None = Field(default=None, description="Other seeds.")


class Study(_Section):
    """One question and the training runs that answer it; `profile` and `overrides` say what was applied."""

    name: Name = Field(description="What the study is called in the store and in reports.")
    question: str = Field(description="What it is to find out, in a sentence.")
    workload: Annotated[str, AfterValidator(_object)] = Field(
        default=IDENNET, description="What is trained, package.module:object; IDEnNet where it is left out."
    )
    dataset: str = Field(description="The prepared data set that is trained on and tested.")
    folds: Folds = Field(
        default=list(range(NUM_FOLDS)),
        description=f"all, a list of 0 to {NUM_FOLDS - 1} by subject, or none: the publisher's train and test split.",
    )
    seeds: Seeds = Field(default=[0], description="Each seed trains every configuration on every fold once more.")
    base: Settings = Field(default={}, description="What all configurations share; --set KEY=VALUE changes these.")
    design: Annotated[Design, AfterValidator(not_empty)] = Field(
        default=Design(), description="The configurations that are compared; a study has a design or a search."
    )
    search: Search | None = Field(default=None, description="Where the best configuration is looked for.")
    budget: Budget = Field(default=Budget(), description="When a run ends by itself.")
    optuna: Optuna | None = Field(default=None, description="The database that shows a search while it runs.")
    trunks: dict[str, Settings] = Field(
        default={}, description="How the frozen feature extraction groups are pre-trained."
    )
    profiles: dict[Name, Profile] = Field(default={}, description="What --profile NAME changes.")
    reference: Reference | None = Field(default=None, description="Published results to set beside the measured ones.")
    report: Report = Field(description="What the report shows.")
    profile: Name | None = Field(default=None, description="Of a study that was run: its profile. Not to be written.")
    overrides: Settings = Field(
        default={}, description="Of a study that was run: what --set changed. Not to be written."
    )

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that the design or the search gives a value."""
        return tuple(self.search.space) if self.search else self.design.varied

    @property
    def folder(self) -> str:
        """The study's folder in the store: its name, and its profile where it has one."""
        return f"{self.name}@{self.profile}" if self.profile else self.name


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
        if value is None:
            raise ValueError(f"{at}: a setting has a value, got none; write one after the =")
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
            raise ValueError(f"--set takes key=value, got '{item}'; write a setting, = and its value, as in depth=16")
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
    if key in Study.model_fields:
        raise ValueError(f"{at}: a key is a setting, or trunks.TASK.SETTING, got '{key}'; edit the study file instead")
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
        if ("design" in data) == (found.search is not None):
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
            valid = re.findall("'([^']*)'", rule) if first["type"] == "literal_error" else ()
            if close := nearest(str(first["input"]), valid):
                reason += f"; did you mean '{close}'?"
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
        folders = [path.parent] if path.parent != Path() else [Path("studies"), path.parent]
        others = {other.stem: str(other) for folder in folders for other in sorted(folder.glob("*.y*ml"))}
        close = nearest(path.stem, others)
        hint = f"did you mean '{others[close]}'? " if close else ""
        listed = ", ".join([*others.values()][:10]) or "none here; next: idenctl study new NAME"
        raise FileNotFoundError(f"no study file {path}; {hint}valid: {listed}")
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
