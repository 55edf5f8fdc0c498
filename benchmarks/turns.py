"""Ways of doing the same work, held against each other on a machine that may do something else besides.

Each way is a process of its own that waits while the others measure; they take turns, so that whatever else the
machine does slows all of them. Figures are medians over the rounds, ratios are taken within a round.
"""

import multiprocessing
import statistics
from collections.abc import Callable, Mapping
from typing import Any

# called with its end of a pipe and the arguments: tells something when it is ready, then a number whenever it is told
# True, and ends when it is told False
Worker = tuple[Callable[..., None], tuple[Any, ...]]


def take_turns(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """What each worker tells, a value a round."""
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for name, (serve, arguments) in workers.items():
        pipes[name], end = context.Pipe()
        processes.append(context.Process(target=serve, args=(end, *arguments), daemon=True))
        processes[-1].start()
        pipes[name].recv()
    values: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            values[name].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return values


def ratios(values: Mapping[str, list[float]], to: str) -> dict[str, float]:
    """The median over rounds of each way's speed against that of `to` in the same round."""
    return {
        name: statistics.median(one / other for one, other in zip(found, values[to], strict=True))
        for name, found in values.items()
    }


def table(speeds: Mapping[str, list[float]], to: str, unit: str, digits: int) -> dict[str, dict[str, Any]]:
    """Each way's speeds, by `unit`, and its ratio to the way `to`; printed and returned."""
    found = ratios(speeds, to)
    for name, values in speeds.items():
        spread = f"({min(values):.{digits}f} to {max(values):.{digits}f})"
        print(f"  {name:40} {statistics.median(values):8.{digits}f} {spread:20} {found[name]:6.1f}x")
    return {name: {unit: values, "ratio": found[name]} for name, values in speeds.items()}
