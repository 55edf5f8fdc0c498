"""The live view of a running study: a picture where stderr is a terminal, plain lines where it is not."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.status import several
from orchestrator.progress import (
    Asked,
    Event,
    PackCut,
    PackDone,
    PackFailed,
    PackSetBack,
    PackStarted,
    PackStopped,
    RunState,
    TrialFailed,
    Waiting,
)

QUIET = 20.0  # seconds between plain lines
MOST_PACKS = 8  # rows of running packs
REST = 20.0  # how many times as long as it took to say how far a run is, nothing more is said


def render(state: RunState, now: float) -> RenderableType:
    """The live view, as wide as the console it is printed on."""
    head = Table.grid(expand=True)
    head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    head.add_row(Text(state.title, style="bold"), _times(state, now))
    total = Table.grid(padding=(0, 1), expand=True)
    total.add_column(ratio=1)
    total.add_column(justify="right", width=4)
    total.add_row(ProgressBar(total=1.0, completed=state.share), f"{state.share:.0%}")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(no_wrap=True, overflow="ellipsis")
    facts.add_row("trials", Text(_trials(state), style="red" if state.failed else ""))
    facts.add_row("packs", _packs(state))
    if state.waiting:
        facts.add_row("devices", Text(state.waiting))
    facts.add_row("best", Text(_best(state) or "no accuracy yet"))
    # the empty line takes the terminal's ^C, which would wrap a full line and leave a trace of the view
    return Group(head, total, facts, *([_pack_rows(state)] if state.running else []), Text())


def _pack_rows(state: RunState) -> Table:
    rows = Table.grid(padding=(0, 2), expand=True)
    for _ in range(2):
        rows.add_column(no_wrap=True, style="dim")
    rows.add_column(ratio=1)
    for _ in range(3):
        rows.add_column(no_wrap=True, justify="right")
    for pack_id, pack in list(state.running.items())[:MOST_PACKS]:
        latest = pack.latest
        rows.add_row(
            pack_id[:8],
            several(len(pack.trial_ids), "trial"),
            ProgressBar(total=1.0, completed=pack.share),
            f"{pack.share:.0%}",
            f"epoch {latest.epoch}/{latest.epochs}" if latest else "",
            latest.stage if latest else "starting",
        )
    more = len(state.running) - MOST_PACKS
    if more > 0:
        rows.add_row("", f"and {several(more, 'more pack')}")
    return rows


def summary(state: RunState, now: float) -> str:
    """The state in one plain line."""
    parts = [f"trials {_trials(state)}", f"packs {_packs(state)}", _times(state, now)]
    best = _best(state)
    return "; ".join([*parts, f"best so far {best}"] if best else parts)


def news(before: RunState, event: Event) -> list[str]:
    """What an event says that must not scroll by: each failure, and what packs wait for, once, as a line."""
    if isinstance(event, Waiting):
        return [event.reason] if event.reason and event.reason != before.waiting else []
    if isinstance(event, Asked | PackStarted | PackStopped):
        return []
    if isinstance(event, PackFailed):
        return [f"pack {event.pack_id[:8]} failed: {_plain(event.reason)}"]
    if isinstance(event, PackCut):
        sizes = " + ".join(str(len(half.trials)) for half in event.halves)
        return [f"pack {event.pack_id[:8]} {_plain(event.reason)}; cut in two, {sizes} trials"]
    if isinstance(event, PackSetBack):
        return [f"warning: pack {event.pack_id[:8]} goes on from another checkpoint: {_plain(event.reason)}"]
    return [
        f"trial {trial_id[:8]} ({before.cells.get(trial_id, 'unknown cell')}) failed: {_plain(reason)}"
        for trial_id, reason in event.failed.items()
        if trial_id not in before.failed
    ]


@contextmanager
def screen(
    study: str,
    cells: Mapping[str, str],
    stored: Mapping[str, float],
    packs: int,
    *,
    synthetic: bool,
    tracebacks: bool = False,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[Event], None]]:
    """Show a run while the block lasts; yields the listener to call with each event.

    `cells` names the cell of every trial of the study by trial_id, `stored` holds the accuracies (shares) of
    those already in the store, `packs` is the number to run, 0 for a search that has not asked.
    `tracebacks` shows those of packs that fail. `stream` is stderr unless given.
    """
    out = stream or sys.stderr
    console = Console(file=out, markup=False, emoji=False)
    title = f"{study} (synthetic)" if synthetic else study
    state = RunState(title, cells, stored, packs, started=clock())
    last_line = rest_until = state.started
    shown: RenderableType = Text()

    def rested(began: float) -> float:
        """When to say more: in a study of a million trials it takes seconds to count them."""
        ended = clock()
        return ended + REST * (ended - began)

    def picture() -> RenderableType:
        nonlocal shown, rest_until
        now = clock()
        if now >= rest_until:
            shown = render(state, now)
            rest_until = rested(now)
        return shown

    live = None
    if out.isatty() and not console.is_dumb_terminal:
        live = Live(console=console, get_renderable=picture, transient=True, redirect_stdout=False)

    def say(line: str) -> None:
        if live:
            console.print(Text(line))
        else:
            print(line, file=out, flush=True)

    def listen(event: Event) -> None:
        nonlocal state, last_line, rest_until
        now = clock()
        lines = news(state, event)
        if tracebacks and isinstance(event, PackFailed | TrialFailed):
            lines += event.traceback.splitlines()
        state = state.apply(event, now)
        if not live and now >= rest_until and (isinstance(event, PackDone) or now - last_line >= QUIET):
            lines.append(summary(state, now))
            last_line, rest_until = now, rested(now)
        for line in lines:
            say(line)

    plan = f"{len(cells.keys() - stored.keys())} to train in {several(packs, 'pack')}" if packs else "more as it asks"
    say(f"{title}: {several(len(cells), 'trial')}, {len(stored)} stored, {plan}")
    try:
        with live or nullcontext():
            yield listen
    finally:
        ended = replace(state, running={})
        say(f"{title} {'stopped' if ended.num_waiting else 'finished'}: {summary(ended, clock())}")


def _trials(state: RunState) -> str:
    counts = {
        "running": state.num_running,
        "waiting": state.num_waiting,
        "pruned": len(state.pruned),
        "failed": len(state.failed),
        "stored before": len(state.stored),
    }
    others = [f"{number} {word}" for word, number in counts.items() if number]
    return ", ".join([f"{len(state.done)} done", *others])


def _packs(state: RunState) -> str:
    # a pack that is cut in two adds to those planned
    known = max(state.packs, state.packs_done + len(state.running))
    rate = state.steps_a_second
    return f"{state.packs_done} of {known} done" + (f", {rate:,.0f} trial steps/s" if rate else "")


def _best(state: RunState) -> str:
    if state.best is None:
        return ""
    cell, accuracy, seen, trials = state.best
    return f"{cell}: {accuracy:.1%} over {seen} of {several(trials, 'trial')}"


def _times(state: RunState, now: float) -> str:
    left = state.seconds_left
    elapsed = f"{_duration(now - state.started)} elapsed"
    return f"{elapsed}, about {_duration(left)} left" if left and state.left else elapsed


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _plain(reason: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in reason).split())
