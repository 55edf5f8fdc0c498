"""Designs: which configurations an enumerated study holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.study import Study
from orchestrator.trial import Configuration, Setting


@dataclass(frozen=True)
class Cell:
    """One configuration of a design, before its settings are completed with defaults."""

    label: Mapping[str, Setting]  # what the design says of this cell
    settings: Mapping[str, Setting]  # the study's base with the cell's settings over it
    also: tuple[Mapping[str, Setting], ...] = ()  # what else the design says of it


def cells(study: Study) -> tuple[Cell, ...]:
    """The cells of a study in the order of its design; what it says twice is one cell, where it is first."""
    found: dict[frozenset[tuple[str, Setting]], Cell] = {}
    for label, settings in study.design.points():
        cell = Cell(label, study.base | settings)
        key = frozenset(cell.settings.items())
        known = found.get(key)
        found[key] = replace(known, also=(*known.also, label)) if known else cell
    return tuple(found.values())


def same(cells: Iterable[Cell], configurations: Iterable[Configuration]) -> list[str]:
    """Which labels are one configuration, that is run once: a line for each that has several."""
    labels: dict[str, list[str]] = {}
    for cell, configuration in zip(cells, configurations, strict=True):
        labels.setdefault(configuration.configuration_id, []).extend(map(describe, _labels(cell)))
    return ["; ".join(names) for names in labels.values() if len(names) > 1]


def describe(label: Mapping[str, Setting]) -> str:
    """A cell's label as people read it: `variant=f, depth=40`."""
    return ", ".join(f"{name}={value}" for name, value in label.items()) or "base"


def _labels(cell: Cell) -> Sequence[Mapping[str, Setting]]:
    return cell.label, *cell.also
