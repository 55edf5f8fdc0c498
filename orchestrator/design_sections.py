"""The design section of a study file: which configurations an enumerated study compares."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, PlainValidator, model_validator

from idennet_core.naming import suggest
from orchestrator.sections import STRICT, Settings, Value, distinct, some
from orchestrator.strict_yaml import Place
from orchestrator.trial import Setting

MAX_CELLS = 1_000_000
COMPONENTS = "components"  # what a cell of switched components is labelled by, in place of settings
Point = tuple[dict[str, Setting], dict[str, Setting]]  # what a design says of a cell, and its settings over the base


def _names(value: object) -> object:
    if value != "all" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise ValueError("must be all, or a list of components")
    return distinct(some(value)) if isinstance(value, list) else value


Levels = dict[str, Annotated[list[Value], AfterValidator(some), AfterValidator(distinct)]]
Names = Annotated[list[str] | Literal["all"], PlainValidator(_names, json_schema_input_type=Literal["all"] | list[str])]


class Component(BaseModel):
    """A part of the network or its training: the settings that switch it on, and off."""

    model_config = STRICT

    on: Settings = Field(description="The settings with which it is there.")
    off: Settings = Field(description="The same settings as they are without it.")

    @model_validator(mode="after")
    def _switched(self) -> Self:
        if not self.on or self.on.keys() != self.off.keys():
            raise ValueError("must give the same settings a value on and off")
        if self.on == self.off:
            raise ValueError("must differ on and off")
        return self


class Design(BaseModel):
    """The configurations to compare: what its parts list, one part after the other.

    `cells` as written. `grid`: all combinations, the last setting moving fastest. `zip`: the first values of all
    settings, then the second, and so on. `one_at_a_time`: the base, then the base with one value of one setting.
    `leave_one_out`: all components on, then all but one. `add_one_in`: none, then only one.
    """

    model_config = STRICT

    cells: list[Settings] = Field(default=[], description="Configurations as they are written.")
    grid: Levels = Field(default={}, description="All combinations of these values; the last setting moves fastest.")
    zip: Levels = Field(default={}, description="The first values of all settings, then the second, and so on.")
    one_at_a_time: Levels = Field(default={}, description="The base, then the base with one value of one setting.")
    components: dict[str, Component] = Field(default={}, description="Named parts, and what switches each on and off.")
    leave_one_out: Names | None = Field(
        default=None, description="all, or some components: all on, then all but one of these."
    )
    add_one_in: Names | None = Field(
        default=None, description="all, or some components: none on, then only one of these."
    )

    def points(self) -> list[Point]:
        """Every cell in order, also those that are said twice."""
        grid = [dict(zip(self.grid, point, strict=True)) for point in product(*self.grid.values())]
        zipped = [dict(zip(self.zip, point, strict=True)) for point in zip(*self.zip.values(), strict=True)]
        around = [{}, *({name: value} for name, values in self.one_at_a_time.items() for value in values)]
        written = [
            *self.cells,
            *(grid if self.grid else []),
            *zipped,
            *(around if self.one_at_a_time else []),
        ]
        return [*((label, label) for label in written), *self._switched()]

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that the design gives a value, in file order."""
        return tuple(dict.fromkeys(name for _, name, _ in self.given()))

    def given(self) -> Iterator[tuple[Place, str, Setting]]:
        """Every setting that is given a value: its place in the section, name, value."""
        for index, cell in enumerate(self.cells):
            for name, value in cell.items():
                yield ("cells", index, name), name, value
        for part, levels in (("grid", self.grid), ("zip", self.zip), ("one_at_a_time", self.one_at_a_time)):
            for name, values in levels.items():
                for index, value in enumerate(values):
                    yield (part, name, index), name, value
        for component, switch in self.components.items():
            for state, settings in (("on", switch.on), ("off", switch.off)):
                for name, value in settings.items():
                    yield (COMPONENTS, component, state, name), name, value

    def refused(self) -> Iterator[tuple[Place, str]]:
        """The place in the section and reason of each thing in it that cannot be."""
        if (size := prod(map(len, self.grid.values()))) > MAX_CELLS:
            yield ("grid",), f"a grid has at most {MAX_CELLS:,} cells, got {size:,}; give some settings fewer values"
        lengths = {name: len(values) for name, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            yield ("zip",), f"the lists of zip must have the same length, got {found}; pair every value"
        owners: dict[str, str] = {}
        for component, switch in self.components.items():
            for name in switch.on:
                owner = owners.setdefault(name, component)
                if owner != component:
                    reason = f"a setting belongs to one component, got {name} in {owner} and {component}"
                    yield (COMPONENTS, component), f"{reason}; find settings that switch them apart"
        parts = {"leave_one_out": self.leave_one_out, "add_one_in": self.add_one_in}
        if self.components and not any(parts.values()):
            yield (COMPONENTS,), "components are switched by leave_one_out or add_one_in, got neither; add one"
        for part, names in parts.items():
            if names and len(self.components) < 2:
                known = ", ".join(self.components) or "none"
                yield (part,), f"{part} needs at least two components, got {known}; name more, or list cells"
            elif names:
                yield from (((part, index), reason) for index, reason in _unknown(names, self.components))

    def _switched(self) -> list[Point]:
        every = list(self.components)
        found: list[Point] = []
        if self.leave_one_out:
            left = every if self.leave_one_out == "all" else self.leave_one_out
            found += [self._cell("all", every)]
            found += [self._cell(f"all but {name}", [other for other in every if other != name]) for name in left]
        if self.add_one_in:
            added = every if self.add_one_in == "all" else self.add_one_in
            found += [self._cell("none", []), *(self._cell(f"only {name}", [name]) for name in added)]
        return found

    def _cell(self, label: str, on: Sequence[str]) -> Point:
        settings: dict[str, Setting] = {}
        for name, switch in self.components.items():
            settings |= switch.on if name in on else switch.off
        return {COMPONENTS: label}, settings


def not_empty(design: Design) -> Design:
    """The design; raises ValueError for one without a cell."""
    parts = (design.cells, design.grid, design.zip, design.one_at_a_time, design.components)
    if not any(parts):
        raise ValueError(
            "must list cells, a grid, zip, one_at_a_time or components with leave_one_out or add_one_in, "
            "or the study has no trials"
        )
    return design


def _unknown(names: Sequence[str], components: Mapping[str, Component]) -> Iterator[tuple[int, str]]:
    for index, name in enumerate([] if names == "all" else names):
        if name not in components:
            yield index, f"unknown component '{name}'; {suggest(name, components)}"
