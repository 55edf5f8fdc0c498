"""The live view of a running study: a picture where stderr is a terminal, plain lines where it is not."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment, Segments
from rich.table import Table
from rich.text import Text

from orchestrator import forecast
from orchestrator.cli.console import View, in_ascii
from orchestrator.cli.wording import several
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

log = logging.getLogger("idenctl")
QUIET = 20.0  # seconds between plain lines
LOOKED_EVERY = 5.0  # seconds between two looks at how busy the devices are
MOST_PACKS = 8  # rows of running packs
NARROW = 60  # columns under which a running pack says less
REST = 20.0  # how many times as long as it took to say how far a run is, nothing more is said


def render(state: RunState, now: float, console: Console, busy: str = "") -> RenderableType:
    """The live view, for this console; `busy` says how busy the devices are."""
    done = forecast.share(state)
    total = Table.grid(padding=(0, 1), expand=True)
    total.add_column(ratio=1)
    total.add_column(justify="right", width=4)
    total.add_row(ProgressBar(total=1.0, completed=done), f"{done:.0%}")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("time", _times(state, now))
    facts.add_row("trials", Text(_trials(state), style="red" if state.failed else ""))
    facts.add_row("packs", _packs(state))
    if busy:
        facts.add_row("devices", Text(busy))
    if state.waiting:
        facts.add_row("waiting", Text(state.waiting))
    facts.add_row("best", Text(written(_best(state), console) or "no accuracy yet"))
    # the empty line takes the terminal's ^C, which would wrap a full line and leave a trace of the view
    packs = [_pack_rows(state, console.width)] if state.running else []
    return Group(Text(state.title, style="bold", no_wrap=True, overflow="crop"), total, facts, *packs, Text())


def _pack_rows(state: RunState, width: int) -> Table:
    narrow = width < NARROW
    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(no_wrap=True, style="dim")
    if not narrow:
        rows.add_column(no_wrap=True, style="dim")
    rows.add_column(ratio=1)
    for _ in range(2 if narrow else 3):
        rows.add_column(no_wrap=True, justify="right")
    for pack_id, pack in list(state.running.items())[:MOST_PACKS]:
        latest = pack.latest
        row: list[RenderableType] = [
            pack_id[:8],
            several(len(pack.trial_ids), "trial"),
            ProgressBar(total=1.0, completed=pack.share),
            f"{pack.share:.0%}",
            f"epoch {latest.epoch}/{latest.epochs}" if latest else "",
            latest.stage if latest else "starting",
        ]
        rows.add_row(*([row[0], row[2], row[3], row[4] or row[5]] if narrow else row))
    more = len(state.running) - MOST_PACKS
    if more > 0:
        rows.add_row("", *([] if narrow else [""]), f"and {several(more, 'more pack')}")
    return rows


class Picture:
    """What is drawn of a state, in lines without blanks at their ends, which a terminal that is made narrower wraps."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.lines: list[list[Segment]] = []
        self.width = console.width

    def draw(self, shown: RenderableType) -> RenderableType:
        """The view, to be drawn over the one before it; where that is wrapped now, the cursor is moved up to its start.

        Terminals wrap what they show anew when they are made narrower; those that cut it instead lose lines above.
        """
        width, lines = self._lines(shown)
        if width < self.width:
            wrapped = sum(max(_length(line) - 1, 0) // width for line in self.lines)
            erased = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)]
            self.console.control(Control(*erased * wrapped))
        self.width, self.lines = width, lines
        last = len(self.lines) - 1
        return Segments(
            part for n, line in enumerate(self.lines) for part in (line if n == last else [*line, Segment.line()])
        )

    def _lines(self, shown: RenderableType) -> tuple[int, list[list[Segment]]]:
        """How wide the terminal is, and the lines for it, which are made anew where it is resized meanwhile."""
        while True:
            width = self.console.width
            lines = [_stripped(line) for line in self.console.render_lines(shown, pad=False)]
            if self.console.width == width:
                return width, lines


def _length(line: list[Segment]) -> int:
    return sum(segment.cell_length for segment in line)


def _stripped(line: list[Segment]) -> list[Segment]:
    line = list(line)
    while line and not line[-1].text.rstrip():
        line.pop()
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else []


def summary(state: RunState, now: float, busy: str = "") -> str:
    """The state in one plain line."""
    parts = [f"trials {_trials(state)}", f"packs {_packs(state)}", _times(state, now)]
    best = _best(state)
    return "; ".join([*parts, *([busy] if busy else []), *([f"best so far {best}"] if best else [])])


def news(before: RunState, event: Event) -> list[str]:
    """What an event says that must not scroll by: each failure, and what packs wait for, once, as a line."""
    if isinstance(event, Waiting):
        return [event.reason] if event.reason and event.reason != before.waiting else []
    if isinstance(event, Asked | PackStarted | PackStopped):
        return []
    if isinstance(event, PackFailed):
        return [f"pack {event.pack_id[:8]} failed: {plain(event.reason)}"]
    if isinstance(event, PackCut):
        sizes = " + ".join(str(len(half.trials)) for half in event.halves)
        return [f"pack {event.pack_id[:8]} {plain(event.reason)}; cut in two, {sizes} trials"]
    if isinstance(event, PackSetBack):
        return [f"warning: pack {event.pack_id[:8]} goes on from another checkpoint: {plain(event.reason)}"]
    return failures(before, event.failed)


def failures(before: RunState, failed: Mapping[str, str]) -> list[str]:
    """A line for each trial that had not failed before."""
    return [
        f"trial {trial_id[:8]} ({_place(before, trial_id)}) failed: {plain(reason)}"
        for trial_id, reason in failed.items()
        if trial_id not in before.failed
    ]


def _place(state: RunState, trial_id: str) -> str:
    cell, fold = state.cells.get(trial_id, "unknown cell"), state.folds.get(trial_id)
    return cell if fold is None else f"{cell}, fold {fold}"


class Display:
    """Shows the states of a run one after the other, while it is entered; lines that it is given stay."""

    def __init__(
        self, state: RunState, load: Callable[[], str], stream: TextIO | None, clock: Callable[[], float]
    ) -> None:
        """`load` says how busy the devices are, in words; `stream` is stderr unless given."""
        self.state, self.load, self.clock = state, load, clock
        self.out = stream or sys.stderr
        self.console = View(file=self.out, markup=False, emoji=False, highlight=False)
        self.picture = Picture(self.console)
        self.shown: RenderableType = Text()
        self.busy = ""
        self.said = self.rest_until = self.look_at = clock()
        self.live = None
        if self.out.isatty() and not self.console.is_dumb_terminal:
            self.live = Live(console=self.console, get_renderable=self._drawn, transient=True, redirect_stdout=False)

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        """A line that stays, above what is drawn."""
        if self.live:
            self.console.print(Text(written(line, self.console)))
        else:
            print(written(line, self.console), file=self.out, flush=True)

    def show(self, state: RunState, lines: Iterable[str] = (), step: bool = False) -> None:
        """The state now, and lines that stay; a `step` is worth a plain line at once, others one in a while."""
        self.state = state
        for line in lines:
            self.say(line)
        now = self.clock()
        if not self.live and now >= self.rest_until and (step or now - self.said >= QUIET):
            self.say(summary(state, now, self._devices(now)))
            self.said, self.rest_until = now, self._rested(now)

    def _drawn(self) -> RenderableType:
        now = self.clock()
        if now >= self.rest_until or self.console.width != self.picture.width:
            self.shown = self.picture.draw(render(self.state, now, self.console, self._devices(now)))
            self.rest_until = self._rested(now)
        return self.shown

    def _rested(self, began: float) -> float:
        """When to say more: in a study of a million trials it takes seconds to count them."""
        ended = self.clock()
        return ended + REST * (ended - began)

    def _devices(self, now: float) -> str:
        if now >= self.look_at:
            try:
                self.busy = self.load()
            except Exception as error:  # a cluster that is just leaving: the run says so itself
                log.debug("how busy the devices are is not known: %s", error)
                self.busy = ""
            self.look_at = now + LOOKED_EVERY
        return self.busy


@contextmanager
def screen(
    state: RunState,
    *,
    load: Callable[[], str] = str,
    tracebacks: bool = False,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[Event], None]]:
    """Show a run that begins now while the block lasts; yields the listener to call with each event.

    `load` says how busy the devices are, in words. `tracebacks` shows those of packs that fail. `stream` is stderr
    unless given.
    """
    display = Display(replace(state, started=clock()), load, stream, clock)

    def listen(event: Event) -> None:
        lines = news(display.state, event)
        if tracebacks and isinstance(event, PackFailed | TrialFailed):
            lines += event.traceback.splitlines()
        display.show(display.state.apply(event, clock()), lines, isinstance(event, PackDone))

    missing, packs = len(state.cells.keys() - state.stored.keys()), state.packs
    plan = f"{missing} to train in {several(packs, 'pack')}" if packs else "more as it asks"
    display.say(f"{state.title}: {several(len(state.cells), 'trial')}, {len(state.stored)} stored, {plan}")
    try:
        with display:
            yield listen
    finally:
        ended = display.state.ended
        verb = "stopped" if ended.num_waiting else "finished"
        display.say(f"{state.title} {verb}: {summary(ended, clock())}")


def written(line: str, console: Console) -> str:
    """The line as a stream of the console's encoding has it."""
    return in_ascii(line.replace("±", "+-")) if console.options.ascii_only else line


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
    return f"{state.packs_done} of {known} done" + (f", {rate:,.0f} {state.steps}/s" if rate and state.steps else "")


def _best(state: RunState) -> str:
    best = forecast.leader(state)
    if best is None:
        return ""
    accuracy = best.accuracy
    said = f"{best.cell}: {accuracy.mean:.1f}%"
    if accuracy.half_width is not None:
        said += f" ± {accuracy.half_width:.1f}"
    if best.seen < best.trials or not accuracy.num_folds:
        return f"{said} over {best.seen} of {several(best.trials, 'trial')}"
    return f"{said} over {several(accuracy.num_folds, 'fold')}"


def _times(state: RunState, now: float) -> str:
    left = forecast.seconds_left(state, now) if state.running or state.num_waiting else None
    elapsed = f"{_duration(now - state.started)} elapsed"
    return f"{elapsed}, about {_duration(left)} left" if left else elapsed


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def plain(reason: str) -> str:
    """The reason in one line, without what a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in reason).split())
