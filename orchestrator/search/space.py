"""The search section of a study file: which settings a search varies, how it samples, selects and ends."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, PlainValidator, model_validator

from idennet_core.naming import suggest
from orchestrator.search.pruning import Pruning
from orchestrator.sections import STRICT, Settings, Value, distinct, some
from orchestrator.strict_yaml import Place
from orchestrator.trial import Setting

Sampler = Literal["tpe", "random", "qmc", "cma-es", "gp", "nsga-ii"]
ACCURACY = "accuracy"  # the objective that every workload has; all others are costs
_MOST_CHECKED = 1000  # integers of a range that are held against the setting's rule one by one


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[int | float, PlainValidator(_number, json_schema_input_type=int | float)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = STRICT


class Parameter(_Section):
    """A setting that a search varies: from `low` to `high`, or one of `choices`.

    Integers where its setting is an integer; `step` apart; evenly over the logarithm with `log`. `when` names other
    parameters and the value at which this one counts.
    """

    low: Number | None = Field(default=None, description="The lowest value.")
    high: Number | None = Field(default=None, description="The highest value.")
    log: bool = Field(default=False, description="Draw evenly over the logarithm.")
    step: Number | None = Field(default=None, description="How far the values are apart.")
    choices: Annotated[list[Value], AfterValidator(distinct)] = Field(
        default=[], description="The values, in place of a range."
    )
    when: Settings = Field(default={}, description="The values of other parameters at which this one counts.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("must have choices alone, or low and high")
        elif self.low is None or self.high is None:
            raise ValueError("must have low and high, or choices")
        elif self.low >= self.high:
            raise ValueError("must have low below high")
        elif self.log and self.low <= 0:
            raise ValueError("must have low above 0 for a range over the logarithm")
        elif self.step is not None:
            self._stepwise(self.low, self.high, self.step)
        return self

    def _stepwise(self, low: float, high: float, step: float) -> None:
        if self.log:
            raise ValueError("must have log or step, not both")
        if step <= 0:
            raise ValueError("must have step above 0")
        if not math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-9):
            raise ValueError("must have high a whole number of steps above low")

    @property
    def integers(self) -> range | None:
        """The values of a range of integers; None for other ranges and for choices."""
        if isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None):
            return range(self.low, self.high + 1, self.step or 1)
        return None

    def typed(self, default: Setting) -> "Parameter":
        """The range in floats where the setting is a float: 0 to 1 is then more than two values."""
        if self.low is None or self.high is None or not isinstance(default, float):
            return self
        step = None if self.step is None else float(self.step)
        return self.model_copy(update={"low": float(self.low), "high": float(self.high), "step": step})

    def values(self) -> list[Setting]:
        """Values of the parameter to hold against its setting's rule: all choices and integers, else the ends."""
        if self.low is None or self.high is None:
            return list(self.choices)
        integers = self.integers
        return [self.low, self.high] if integers is None or len(integers) > _MOST_CHECKED else list(integers)

    def holds(self, value: Setting) -> bool:
        """Whether the value is in the range, or one of the choices."""
        if self.low is None or self.high is None:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        step = self.step or (1 if self.integers else None)
        return step is None or math.isclose((value - self.low) / step, round((value - self.low) / step), abs_tol=1e-9)


def _objectives(names: list[str]) -> list[str]:
    if len(names) > 2 or ACCURACY not in names:
        raise ValueError("must be accuracy, or accuracy and a cost")
    return names


class Search(_Section):
    """A search: `configurations` points of the space, asked of the sampler `batch` at a time, `enqueue` first."""

    space: dict[str, Parameter] = Field(description="The settings that vary, and where.")
    sampler: Sampler = Field(default="tpe", description="How Optuna chooses what to try next.")
    seed: int = Field(default=0, ge=0, description="Another seed samples other configurations.")
    configurations: Count = Field(description="How many are tried.")
    batch: Count = Field(default=5, description="How many are asked at once; their results decide the next ones.")
    enqueue: list[Settings] = Field(default=[], description="Points of the space that are tried first.")
    order: Literal["synchronous", "asynchronous"] = Field(
        default="synchronous", description="Whether a batch waits for all of the one before."
    )
    objectives: Annotated[list[str], AfterValidator(some), AfterValidator(distinct), AfterValidator(_objectives)] = (
        Field([ACCURACY], description="accuracy, or accuracy and a cost such as flops.")
    )
    select: Literal["validation", "test"] = Field(
        default="validation",
        description="Choose on a fold held out from training, or on the tested one, which is then biased.",
    )
    nested: bool = Field(
        default=False, description="Search again within each outer fold: what searching itself is worth."
    )
    pruning: Pruning | None = Field(default=None, description="When configurations that fall behind are dropped.")

    def typed(self, defaults: Mapping[str, Setting]) -> dict[str, Parameter]:
        """The space in the types of the settings, given by their defaults; what a `when` names comes first."""
        waiting, found = dict(self.space), dict[str, Parameter]()
        while waiting:
            ready = [name for name, parameter in waiting.items() if parameter.when.keys() <= found.keys()]
            found |= {name: waiting.pop(name).typed(defaults.get(name, "")) for name in ready}
            assert ready, "a circle of `when` is refused with the study file"
        return found


def active(space: Mapping[str, Parameter], point: Mapping[str, Setting], name: str) -> bool:
    """Whether the parameter counts at this point, whose earlier parameters are set."""
    return all(other in point and point[other] == value for other, value in space[name].when.items())


def refused(
    search: Search,
    defaults: Mapping[str, Setting],
    costs: Sequence[str],
    refusal: Callable[[Mapping[str, Setting]], str | None],
) -> Iterator[tuple[Place, str]]:
    """The place in the search section and the reason of each thing that a workload does not accept.

    `costs` are the objectives beside accuracy; `refusal` says why a setting cannot have a value.
    """
    if not search.space:
        yield ("space",), "space must name a setting to vary, got {}"
    for name, parameter in search.space.items():
        if name not in defaults:
            yield ("space", name), f"unknown setting '{name}'; {suggest(name, defaults)}"
            continue
        for value in parameter.typed(defaults[name]).values():
            if reason := refusal({name: value}):
                between = value not in (*parameter.choices, parameter.low, parameter.high)
                steps = "; set step, or list choices" if between else ""
                yield ("space", name), f"{reason}{steps}"
                break
    yield from _conditions(search.space)
    yield from _enqueued(search, defaults)
    for index, objective in enumerate(search.objectives):
        if objective not in (ACCURACY, *costs):
            known = suggest(objective, [ACCURACY, *costs])
            yield ("objectives", index), f"the objective '{objective}' is not in the results; {known}"
    if reason := _unfit(search):
        yield ("sampler",), reason
    if search.nested and len(search.objectives) > 1:
        yield ("nested",), "a nested estimate is of one chosen configuration; set one objective"


def _conditions(space: Mapping[str, Parameter]) -> Iterator[tuple[Place, str]]:
    for name, parameter in space.items():
        for other, value in parameter.when.items():
            place: Place = ("space", name, "when", other)
            if other not in space or other == name:
                known = suggest(other, [known for known in space if known != name])
                yield place, f"when names no other parameter of the space, got '{other}'; {known}"
                return
            if not space[other].holds(value):
                yield place, f"{other} never is {value!a}, so {name} would never count; give a value of its space"
    settled: set[str] = set()
    for _ in space:
        settled |= {name for name, parameter in space.items() if parameter.when.keys() <= settled}
    circle = [name for name in space if name not in settled]
    if circle:
        yield ("space", circle[0], "when"), f"the conditions of {', '.join(circle)} go in a circle; remove one"


def _enqueued(search: Search, defaults: Mapping[str, Setting]) -> Iterator[tuple[Place, str]]:
    different = len({frozenset(point.items()) for point in search.enqueue})
    if different > search.configurations:
        reason = f"a search asks for {search.configurations} configurations, got {different} points to ask first"
        yield ("enqueue",), f"{reason}; raise configurations"
    for index, point in enumerate(search.enqueue):
        for name, value in point.items():
            place: Place = ("enqueue", index, name)
            if name not in search.space:
                known = suggest(name, search.space)
                yield place, f"an enqueued point gives values to parameters of the space, got '{name}'; {known}"
            elif not search.space[name].typed(defaults.get(name, "")).holds(value):
                yield place, f"the enqueued {name} {value!a} lies outside of the space; widen the space or remove it"


def _unfit(search: Search) -> str | None:
    """Why the sampler cannot draw from this space for these objectives."""
    conditional = [name for name, parameter in search.space.items() if parameter.when]
    chosen = [name for name, parameter in search.space.items() if parameter.choices]
    if conditional and search.sampler in ("qmc", "cma-es", "gp"):
        return f"{search.sampler} cannot sample conditional parameters, got {conditional[0]}; use tpe or random"
    if search.sampler == "cma-es":
        if chosen:
            return f"cma-es samples numbers alone, got the choices of {chosen[0]}; use tpe"
        if len(search.space) < 2:
            return "cma-es needs two parameters or more, got one; use tpe"
        if len(search.objectives) > 1:
            return "cma-es has one objective, got two; use nsga-ii"
    return None


def as_plain(search: Search) -> dict[str, Any]:
    """What decides the points that are asked, as plain values: all but how many, and how they are used."""
    return search.model_dump(exclude={"configurations", "nested"})
