"""How counts and times read in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.costs import Took


def difference(times: Sequence["Took"]) -> str:
    """What they took over what they were to take, `+12%`; `-` where one of the two is nothing."""
    predicted, actual = sum(time.predicted for time in times), sum(time.actual or 0 for time in times)
    return f"{round(actual / predicted - 1, 2) + 0.0:+.0%}" if predicted and actual else "-"


def several(count: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {what}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """`12 s`, `5 min` or `1.7 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
