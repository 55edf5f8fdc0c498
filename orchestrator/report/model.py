"""A study's report as data. Every format prints these numbers."""

from dataclasses import dataclass
from typing import Any

from orchestrator.statistics.folds import Comparison, Estimate


@dataclass(frozen=True)
class Expression:
    """What a cell does on the test frames of one expression, in percent.

    `accuracy` is the mean of the folds that have the expression, `pooled` and `sequence_accuracy` count every
    frame or sequence once. `comparisons` are with the baselines on the same expression.
    """

    name: str
    frames: int
    accuracy: Estimate
    pooled: float | None
    sequence_accuracy: float | None
    comparisons: tuple[Comparison | None, ...]
    reference: float | None
    deviation: float | None


@dataclass(frozen=True)
class Confusion:
    """How often an expression (row) was taken for another (column), [classes][classes], pooled over folds and seeds."""

    frames: tuple[tuple[int, ...], ...]
    sequences: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Subject:
    """What a cell does on the test frames and sequences of one person, in percent."""

    name: str
    frames: int
    accuracy: float
    sequence_accuracy: float | None


@dataclass(frozen=True)
class Row:
    """A cell of the design: what was measured and what stands beside it, in percent.

    `comparisons` has one entry a baseline of the report, None where the cell is that baseline. In a two-way
    table the cell stands in `row` and `column`. What takes the predictions of each frame is empty without them.
    """

    label: str
    row: str
    column: str
    configuration_id: str
    complete: int
    failed: int
    pruned: int
    missing: int
    accuracy: Estimate
    pooled: float | None
    sequence_accuracy: Estimate
    comparisons: tuple[Comparison | None, ...]
    reference: float | None
    deviation: float | None
    seconds: float | None  # mean of a complete trial
    expressions: tuple[Expression, ...] = ()
    confusion: Confusion | None = None
    subjects: tuple[Subject, ...] = ()


@dataclass(frozen=True)
class Tried:
    """A point that a search asked for; accuracies in percent, `values` as the sampler was told."""

    number: int
    settings: dict[str, Any]
    state: str  # complete, pruned, failed, or waiting
    repeats: int | None
    values: tuple[float, ...]
    accuracy: float | None
    best_so_far: float | None


@dataclass(frozen=True)
class Surface:
    """Mean accuracies in percent and numbers of configurations, [rows][columns], by two settings of a search.

    `log` says of rows and columns whether the setting was sampled on a logarithmic scale.
    """

    rows: str
    columns: str
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    means: tuple[tuple[float | None, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    log: tuple[bool, bool]


@dataclass(frozen=True)
class Searched:
    """What a search asked and found.

    `chosen` are numbers of points, `chosen_scores` their means over the folds that selected them. `nested` is the
    estimate of the procedure, from outer folds that it never saw.
    """

    sampler: str
    order: str
    select: str
    objectives: tuple[str, ...]
    wanted: int
    points: tuple[Tried, ...]
    chosen: tuple[int, ...]
    chosen_scores: tuple[Estimate, ...]
    importance: dict[str, float]
    surface: Surface | None
    trained_epochs: int
    whole_epochs: int
    nested: Estimate | None
    nested_points: int


@dataclass(frozen=True)
class Report:
    """A report of one study, a row a cell in the order of the design; `notes` are sentences under the tables.

    `mixed`, which the notes begin with, says what makes its comparisons misleading.
    """

    study: str
    profile: str
    question: str
    dataset: str
    synthetic: bool
    title: str
    about: str  # which data the title ends with
    unit: str
    by: str
    across: str  # what the columns of a two-way table are, '' where there is none
    show: tuple[str, ...]  # tables to print beside: details, expressions, confusion, subjects
    folds: bool  # False: the publisher's train and test split
    num_folds: int
    num_seeds: int
    baselines: tuple[str, ...]
    reference_source: str
    num_comparisons: int
    expressions: tuple[str, ...]  # in the order of the confusion matrices
    rows: tuple[Row, ...]
    mixed: tuple[str, ...]
    notes: tuple[str, ...]
    provenance: dict[str, Any]
    searched: Searched | None = None

    @property
    def heading(self) -> str:
        """The title without what it is about."""
        return self.title.removesuffix(f" - {self.about}")
