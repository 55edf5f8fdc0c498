"""What a workload accepts of a study file, checked against it: each refusal names the place in the file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from idennet_core.naming import suggest
from orchestrator.design_sections import Design
from orchestrator.names import quoted
from orchestrator.search import space
from orchestrator.search.pruning import Pruning
from orchestrator.sections import shown
from orchestrator.strict_yaml import Place
from orchestrator.study import Profile, Study
from orchestrator.study_sections import Reference, axes
from orchestrator.trial import COMPONENTS, Configuration, Setting

EXPRESSION = "expression"  # an axis of a reference beside the settings; its value `all` is the whole test set
Refusals = Iterator[tuple[Place, str]]
_TYPES = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def complete(settings: Mapping[str, Setting], defaults: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings over their defaults, each of its default's type.

    Raises ValueError for an unknown name or a wrong type; a whole number is fine where its default has a fraction.
    """
    for name, value in settings.items():
        if name not in defaults:
            raise ValueError(f"unknown setting {quoted(name)}; {suggest(name, defaults)}")
        wanted = type(defaults[name])
        if type(value) is not wanted and (type(value), wanted) != (int, float):
            raise ValueError(f"{name} must be {_TYPES[wanted]}, got {shown(value)}")
    given = {name: settings.get(name, default) for name, default in defaults.items()}
    return {name: type(defaults[name])(value) for name, value in given.items()}


@dataclass(frozen=True)
class Rules:
    """What the workload of a study accepts.

    `complete(settings, defaults)` raises ValueError for an unknown setting, a wrong type or a broken rule.
    """

    settings: Mapping[str, Setting]  # the settings of a training run and their defaults
    datasets: Sequence[str]
    complete: Callable[[Mapping[str, Setting], Mapping[str, Setting]], object] = complete
    trunks: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)  # settings of each task's pre-training
    expressions: Sequence[str] = ()  # of all data sets
    costs: Mapping[str, Callable[[Configuration], float]] = field(default_factory=dict)  # what a search may keep low
    meanings: Mapping[str, str] = field(default_factory=dict)  # of settings, in a line
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)  # the values of settings that have but few

    def refused(self, part: Study | Profile) -> Refusals:
        """The place and reason of each thing in a study, or in a profile of one, that is not accepted."""
        yield from chain(self._settings(part), self._trunks(part))
        if isinstance(part, Study):
            yield from chain(self._dataset(part), self._search(part), self._report(part))
            if part.reference:
                yield from self._reference(part.reference, part.report.show)

    def _settings(self, part: Study | Profile) -> Refusals:
        for place, name, value in _given(part):
            if reason := self._refusal({name: value}, self.settings):
                yield place, reason

    def _trunks(self, part: Study | Profile) -> Refusals:
        if part.trunks and not self.trunks:
            yield ("trunks",), "the workload has no trunks to pre-train; remove trunks"
            return
        for task, settings in part.trunks.items():
            if task not in self.trunks:
                yield ("trunks", task), f"unknown trunk {quoted(task)}; {suggest(task, self.trunks)}"
                continue
            for name, value in settings.items():
                if reason := self._refusal({name: value}, self.trunks[task]):
                    yield ("trunks", task, name), reason
                elif name == "dataset" and value not in self.datasets:
                    reason = f"unknown data set {quoted(str(value))}; {suggest(str(value), self.datasets)}"
                    yield ("trunks", task, name), reason

    def _dataset(self, study: Study) -> Refusals:
        if study.dataset not in self.datasets:
            yield ("dataset",), f"unknown data set {quoted(study.dataset)}; {suggest(study.dataset, self.datasets)}"

    def _search(self, study: Study) -> Refusals:
        if study.search is None:
            return
        if study.folds == [None]:
            yield ("folds",), "a search is scored by folds, got none; set folds: all"
        if study.search.nested and len(study.folds) < 3:
            yield ("search", "nested"), f"a nested search needs 3 folds or more, got {len(study.folds)}"
        reasons = space.refused(
            study.search, self.settings, [*self.costs], lambda settings: self._refusal(settings, self.settings)
        )
        yield from ((("search", *place), reason) for place, reason in reasons)
        if study.search.pruning is not None:
            yield from self._pruning(study, study.search.pruning)

    def _pruning(self, study: Study, pruning: Pruning) -> Refusals:
        if "epochs" not in self.settings:
            yield ("search", "pruning"), "pruning stops trials between epochs, the workload has none; remove pruning"
        elif "epochs" in study.varied:
            yield (
                ("search", "space", "epochs"),
                "pruning compares after equal epochs, they must not vary; remove one",
            )
        elif reason := pruning.refused(int(study.base.get("epochs", self.settings["epochs"]))):
            yield ("search", "pruning"), reason

    def _report(self, study: Study) -> Refusals:
        row, *column = axes(study.report.by)
        if study.search and study.report.baselines:
            yield ("report", "baselines"), "a search is compared with no baseline; remove baselines"
            return
        for axis in (row, *column):
            if axis == COMPONENTS and study.design.components and not column:
                continue
            if axis not in self.settings:
                yield ("report", "by"), f"unknown setting {quoted(axis)}; {suggest(axis, self.settings)}"
            elif study.search and axis not in study.search.space:
                yield ("report", "by"), f"a search is shown by what it varies; {suggest(axis, study.search.space)}"
            elif (
                not study.search
                and column
                and any(axis not in study.base | settings for _, settings in study.design.points())
            ):
                yield ("report", "by"), f"a two-way table needs a value of {axis} in every cell; set it in base"
        for index, baseline in enumerate(study.report.baselines):
            if reason := _no_baseline(baseline, study.design, study.base, *column):
                yield ("report", "baselines", index), reason

    def _reference(self, reference: Reference, show: Sequence[str]) -> Refusals:
        row, *column = axes(reference.by)
        for axis, valid in ((row, [*self.settings]), *((name, [*self.settings, EXPRESSION]) for name in column)):
            if axis not in valid:
                yield ("reference", "by"), f"unknown setting {quoted(axis)}; {suggest(axis, valid)}"
                return
        if column == [EXPRESSION] and "expressions" not in show:
            yield ("reference", "by"), "values by expression need a table to stand in; set report: show: [expressions]"
        for key, value in reference.values.items():
            place: Place = ("reference", "values", key)
            if reason := self._no_key(row, key):
                yield place, reason
            elif isinstance(value, Mapping) != bool(column):
                wanted = f"a mapping from {column[0]} to numbers" if column else "a number"
                yield place, f"reference.values.{key} must be {wanted}, as by says, got {shown(value)}"
            elif isinstance(value, Mapping):
                yield from (((*place, inner), reason) for inner in value if (reason := self._no_key(column[0], inner)))

    def _no_key(self, axis: str, key: Setting) -> str | None:
        """Why a reference has no value for this key of an axis; a curve may also name a variant."""
        if axis == EXPRESSION:
            valid = [*self.expressions, "all"]
            return None if key in valid else f"unknown expression {quoted(str(key))}; {suggest(str(key), valid)}"
        reason = self._refusal({axis: key}, self.settings)
        return reason and (reason if self._refusal({"variant": key}, self.settings) else None)

    def _refusal(self, settings: Mapping[str, Setting], defaults: Mapping[str, Setting]) -> str | None:
        try:
            self.complete(settings, defaults)
        except ValueError as error:
            return str(error)
        return None


def check_data(study: Study, classes: Sequence[str], subjects: Sequence[str]) -> None:
    """Raise ValueError where a study asks for more than its data set has."""
    name = study.dataset
    if not classes:
        raise ValueError(f"a study needs expressions, {name} has none; set dataset to another one")
    if study.folds != [None] and not subjects:
        way = "search another data set" if study.search else "set folds: none to use its splits"
        raise ValueError(f"folds are made of subjects, {name} has no subjects; {way}")
    if "subjects" in study.report.show and not subjects:
        raise ValueError(f"report: show: [subjects] needs subjects, {name} has none; leave it out")
    if study.reference and EXPRESSION in axes(study.reference.by):
        named = {key: None for row in study.reference.values.values() if isinstance(row, dict) for key in row}
        strange = [str(key) for key in named if key not in (*classes, "all")]
        if strange:
            raise ValueError(
                f"reference: values are by the expressions of {name} ({', '.join(classes)}), "
                f"got {', '.join(strange)}; remove them"
            )


def _given(part: Study | Profile) -> Iterator[tuple[Place, str, Setting]]:
    """Every setting that is given a value for training runs: place, name, value."""
    for name, value in part.base.items():
        yield ("base", name), name, value
    for place, name, value in part.design.given():
        yield ("design", *place), name, value


def _no_baseline(
    baseline: dict[str, Setting], design: Design, base: dict[str, Setting], column: str | None = None
) -> str | None:
    """Why the cells cannot be compared with this baseline: one cell, in a two-way table one in each column."""
    points = design.points()
    if column is None:
        labels = [label for label, _ in points]
        if baseline in labels:
            return None
        such = [label for label in labels if baseline.items() <= label.items()] or labels
        named = f"; name all that a cell says, as in {shown(such[0])}" if such else ""
        return f"a baseline must be one cell of the design, got {shown(baseline)}{named}"
    whole = {frozenset((base | settings).items()): base | settings for _, settings in points}  # each once
    for value in dict.fromkeys(settings.get(column) for settings in whole.values()):
        found = [settings for settings in whole.values() if {**baseline, column: value}.items() <= settings.items()]
        if len(found) != 1 or column in baseline:
            hint = f"leave {column} out" if column in baseline else f"{len(found)} cells are such at {value}"
            return f"a baseline of a two-way table must be one cell at each {column}, got {shown(baseline)}; {hint}"
    return None
