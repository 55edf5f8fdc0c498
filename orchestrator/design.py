"""Designs: which configurations an enumerated study holds."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.study import Study
from orchestrator.trial import Setting


@dataclass(frozen=True)
class Cell:
    """One configuration of a design, before its settings are completed with defaults."""

    label: Mapping[str, Setting]  # what the design says of this cell
    settings: Mapping[str, Setting]  # the study's base with the label over it


def cells(study: Study) -> tuple[Cell, ...]:
    """The cells of a study in file order: those listed, then the grid with its last setting moving fastest.

    Raises ValueError when two cells have the same settings.
    """
    found = tuple(Cell(label, study.base | label) for label in study.design.labels())
    seen: dict[frozenset[tuple[str, Setting]], Cell] = {}
    for cell in found:
        first = seen.setdefault(frozenset(cell.settings.items()), cell)
        if first is not cell:
            raise ValueError(
                f"study {study.name}: the cells '{describe(first.label)}' and '{describe(cell.label)}' "
                f"of its design are the same configuration; remove one"
            )
    return found


def describe(label: Mapping[str, Setting]) -> str:
    """A cell's label as people read it: `variant=f, depth=40`."""
    return ", ".join(f"{name}={value}" for name, value in label.items()) or "base"
