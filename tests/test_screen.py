import io
import itertools
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from idennet_core.pretraining import Progress as trunk_at
from orchestrator import forecast
from orchestrator.cli import trunk, wording
from orchestrator.cli.console import plain_console
from orchestrator.cli.screen import QUIET, REST, news, render, screen, summary
from orchestrator.costs import Took
from orchestrator.progress import PackDone, PackFailed, PackStarted, Progress, RunState, Waiting

CELLS = {"t1": "f", "t2": "f", "t3": "id_rate=1", "t4": "id_rate=1", "t5": "id_rate=1"}


def state(**changes):
    return replace(RunState("study", CELLS, stored={"t5": 0.5}, packs=2, started=0.0), **changes)


def progress(steps, epoch=1, pack="p1", accuracies=None, failed=None, total=100):
    return Progress(pack, steps, total, epoch, 10, "heads", accuracies or {}, failed or {})


def after(*events, every=10.0, start=None):
    now, current = 0.0, start or state()
    for event in events:
        current = current.apply(event, now)
        now += every
    return current


def leads(current):
    found = forecast.leader(current)
    return found.cell, pytest.approx(found.accuracy.mean), found.seen, found.trials


def text(current, width, now=0.0):
    console = Console(file=io.StringIO(), width=width)
    console.print(render(current, now, console))
    return console.file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_trial_is_stored_waiting_running_done_or_failed_and_only_one_of_them():
    events = [
        PackStarted("p1", ("t1", "t2")),
        progress(50, failed={"t2": "NaN"}),
        PackStarted("p2", ("t3",)),
        PackDone("p1", {"t1": 0.9}, {"t2": "NaN"}),
        PackDone("p2", {"t3": 0.8}, {}),
    ]
    counts = []
    for end in range(len(events) + 1):
        now = after(*events[:end])
        counts.append((now.num_waiting, now.num_running, len(now.done), len(now.failed)))
        assert sum(counts[-1]) + len(now.stored) == len(CELLS)
    assert counts == [(4, 0, 0, 0), (2, 2, 0, 0), (2, 1, 0, 1), (1, 2, 0, 1), (1, 1, 1, 1), (1, 0, 2, 1)]


def test_the_trials_of_a_failed_pack_wait_again():
    now = after(PackStarted("p1", ("t1", "t2")), progress(50), PackFailed("p1", ("t1", "t2"), "out of memory"))
    assert (now.num_waiting, now.num_running, now.packs_done) == (4, 0, 0)


def test_a_trial_that_left_its_pack_is_pruned_and_nothing_else_and_done_with_its_pack():
    gone = {"t2": "below the cut-off"}
    events = [
        PackStarted("p1", ("t1", "t2")),
        progress(20, accuracies={"t1": 0.6, "t2": 0.9}),
        replace(progress(20, total=60), pruned=gone),
        PackDone("p1", {"t1": 0.7}, {}, gone),
    ]
    counts = []
    for end in range(1, len(events) + 1):
        now = after(*events[:end])
        counts.append((now.num_waiting, now.num_running, len(now.done), len(now.pruned), len(now.failed)))
        assert sum(counts[-1]) + len(now.stored) == len(CELLS)
    assert counts == [(2, 2, 0, 0, 0), (2, 2, 0, 0, 0), (2, 1, 0, 1, 0), (2, 0, 1, 1, 0)]
    assert "1 done, 2 waiting, 1 pruned, 1 stored before" in summary(now, 30.0)
    assert after(*events[:3], PackFailed("p1", ("t1", "t2"), "out of memory")).num_waiting == 4


def test_a_pruned_trial_does_not_make_a_cell_the_best():
    good = after(PackStarted("p1", ("t1",)), progress(10, accuracies={"t1": 0.9}))
    assert leads(good) == ("f", 90, 1, 2)
    assert leads(good.apply(replace(progress(20), pruned={"t1": "below"}), 30.0)) == ("id_rate=1", 50, 1, 3)


def test_when_trials_leave_nobody_worked_faster():
    """Two trials of 50 steps each: 20 done, then one leaves and 40 remain, at 20 steps in 10 s."""
    start = after(PackStarted("p1", ("t1", "t2")), progress(20))
    assert start.steps_a_second == pytest.approx(2)
    left = start.apply(replace(progress(20, total=60), pruned={"t2": "below"}), 10.0)
    assert left.steps_a_second == pytest.approx(2)


def test_time_left_is_the_work_left_at_the_rate_of_the_work_done():
    # 2 of 4 trials at half after 20 s: one trial's worth done, three to go
    now = after(PackStarted("p1", ("t1", "t2")), progress(25), progress(50))
    assert forecast.share(now) == pytest.approx(0.25)
    assert forecast.seconds_left(now, 20) == pytest.approx(10 / 0.25 * 0.5 + 2 * 20)
    assert now.steps_a_second == pytest.approx(50 / 20)  # a pack's steps are those of all its trials


def test_work_from_before_a_checkpoint_does_not_count_as_speed():
    resumed = after(PackStarted("p1", ("t1", "t2")), progress(50, epoch=5), progress(60, epoch=6))
    assert resumed.steps_a_second == pytest.approx(10 / 20)


def test_a_rate_is_read_from_the_recent_past():
    events = [PackStarted("p1", ("t1",)), progress(1, total=1000)]
    slow = after(*events, every=10_000)
    for second in range(1, 200):
        slow = slow.apply(progress(1 + second, total=1000), 10_000.0 + second)
    assert slow.steps_a_second == pytest.approx(1, rel=0.02)
    assert len(slow.samples) < 150


def test_nothing_is_known_of_the_time_left_before_anything_moves():
    assert forecast.seconds_left(after(), 0.0) is None
    assert forecast.seconds_left(after(PackStarted("p1", ("t1",))), 0.0) is None
    assert "left" not in summary(after(PackStarted("p1", ("t1",))), 5.0)


def test_the_best_cell_is_the_highest_mean_over_the_trials_seen_stored_ones_included():
    now = after(PackStarted("p1", ("t1", "t3")), progress(10, accuracies={"t1": 0.7, "t3": 0.8}))
    assert leads(now) == ("f", 70, 1, 2)
    later = now.apply(progress(20, accuracies={"t1": 0.7, "t3": 0.95}), 30.0)
    assert leads(later) == ("id_rate=1", (50 + 95) / 2, 2, 3)


def test_a_failed_trial_does_not_make_a_cell_the_best():
    good = after(PackStarted("p1", ("t1",)), progress(10, accuracies={"t1": 0.9}))
    assert leads(good) == ("f", 90, 1, 2)
    assert leads(good.apply(progress(20, failed={"t1": "NaN"}), 30.0)) == ("id_rate=1", 50, 1, 3)


def test_a_failure_is_news_once():
    now = after(PackStarted("p1", ("t1",)))
    event = progress(10, failed={"t1": "the loss is NaN\n\x1b[31mat epoch 3"})
    assert news(now, event) == ["trial t1 (f) failed: the loss is NaN [31mat epoch 3"]
    (of_a_fold,) = news(replace(now, folds={"t1": 3}), event)
    assert of_a_fold.startswith("trial t1 (f, fold 3) failed: ")
    assert news(now.apply(event, 1.0), event) == []
    assert news(now, PackFailed("p1", ("t1", "t2"), "out of memory")) == ["pack p1 failed: out of memory"]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_view_fits_its_terminal(width):
    busy = after(*(PackStarted(f"pack{n}", ("t1", "t2")) for n in range(12)), progress(50, pack="pack0"))
    lines = text(replace(busy, title="a_study_with_a_long_name" * 4), width, now=4000).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 20


@pytest.mark.parametrize("width", [80, 160])
def test_the_view_shows_trials_packs_rate_times_best_cell_and_each_running_pack(width):
    events = [PackStarted("0123456789", ("t1", "t2")), progress(50, 5, "0123456789", {"t1": 0.9, "t2": 0.8})]
    shown = text(after(*events), width, now=75)
    facts = [
        "0 done, 2 running, 2 waiting, 1 stored",
        "0 of 2 done",
        "1:15 elapsed",
        "f: 85.0% over 2 of 2 trials",
    ]
    assert not [fact for fact in facts if fact not in shown]
    assert re.search(r"01234567 +2 trials .+ 50% +epoch 5/10 +heads", shown)


def test_drawn_data_says_so_in_the_title():
    for stream in (io.StringIO(), Terminal()):
        with screen(state(title="study (synthetic)"), stream=stream):
            pass
        assert "study (synthetic)" in stream.getvalue()


def test_where_stderr_is_a_file_lines_are_plain_and_few():
    stream, seconds = io.StringIO(), 0.0
    with screen(state(), stream=stream, clock=lambda: seconds) as listen:
        listen(PackStarted("p1", ("t1", "t2", "t3", "t4")))
        for step in range(100):
            seconds += 1.0
            listen(progress(step + 1))
        listen(PackDone("p1", dict.fromkeys(("t1", "t2", "t3", "t4"), 0.9), {}))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "study: 5 trials, 1 stored, 4 to train in 2 packs"
    assert lines[-1].startswith("study finished: trials 4 done, 1 stored before")
    assert len(lines) == 1 + 100 // QUIET + 1 + 1  # the start, one in a while, the pack's end, the end
    assert all(line.isprintable() for line in lines)


def test_a_run_whose_trials_take_long_to_count_is_told_of_seldom():
    stream, ticks = io.StringIO(), itertools.count()  # each look at the clock takes a second, and so does a line
    with screen(state(), stream=stream, clock=lambda: float(next(ticks))) as listen:
        for pack in range(100):
            listen(PackStarted(f"p{pack}", ("t1",)))
            listen(PackDone(f"p{pack}", {"t1": 0.9}, {}))
    assert next(ticks) / (REST + 2) - 3 < len(stream.getvalue().splitlines()) < next(ticks) / REST + 3


@pytest.mark.parametrize("wanted", [True, False])
def test_the_traceback_of_a_failed_pack_is_shown_where_it_is_wanted(wanted):
    stream = io.StringIO()
    with screen(state(), tracebacks=wanted, stream=stream) as listen:
        listen(PackFailed("p1", ("t1", "t2"), "OSError: gone", "Traceback:\n  in line 7\nOSError: gone"))
    shown = ["Traceback:", "  in line 7", "OSError: gone"] if wanted else []
    assert stream.getvalue().splitlines()[1:-1] == ["pack p1 failed: OSError: gone", *shown]


def test_a_run_that_ends_early_says_so():
    stream = io.StringIO()

    def interrupted():
        with screen(state(stored={}), stream=stream) as listen:
            listen(PackStarted("p1", ("t1",)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "study stopped: trials 0 done, 5 waiting" in stream.getvalue()


def test_on_a_terminal_the_view_is_drawn_in_place_and_failures_stay():
    stream = Terminal()
    with screen(state(stored={}), stream=stream) as listen:
        listen(PackStarted("p1", ("t1",)))
        listen(PackFailed("p1", ("t1", "t2"), "out of memory"))
    assert "\x1b[" in stream.getvalue()
    assert "pack p1 failed: out of memory" in stream.getvalue()


def test_what_packs_wait_for_is_said_once_and_shown_until_they_wait_no_more():
    reason = Waiting("waiting for 1 GPU: the cluster has 0, the autoscaler is starting 2")
    assert news(state(), reason) == [reason.reason]
    waiting = after(reason)
    assert news(waiting, reason) == []
    assert reason.reason in text(waiting, 120)
    assert news(waiting, Waiting("")) == []
    assert "GPU" not in text(after(reason, Waiting("")), 120)


def test_the_bars_of_trunks_say_all_they_know_in_80_columns_and_nothing_cut_in_40(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for width in ("80", "40"):
        monkeypatch.setenv("COLUMNS", width)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", Terminal())
        recipes = [{"task": task, "dataset": "x", "depth": 40} for task in ("emotion", "identity")]
        with trunk._progress(recipes) as on_progress:
            for task in ("emotion", "identity"):
                on_progress(trunk_at(task, 1033, 2024, 1.83, 0.286))
        rows = [line for line in sys.stderr.getvalue().splitlines() if "1033" in line]
        assert rows
        for row in rows:
            assert "1033/2024" in row
            assert "…" not in row
            assert ("loss 1.83, held-out accuracy 28.6%" in row) == (width == "80")


def test_tables_are_ascii_where_the_locale_has_no_more(monkeypatch, capsys):
    for locale, ascii_alone in (("C", True), ("C.UTF-8", False)):
        monkeypatch.setenv("LC_ALL", locale)
        table = Table("study", "trials")
        table.add_row("first", "30")
        plain_console().print(table)
        assert capsys.readouterr().out.isascii() == ascii_alone


def test_a_time_that_was_as_predicted_has_no_minus():
    assert wording.difference([Took("p", 1, 10.0, 9.99, True)]) == "+0%"
    assert wording.difference([Took("p", 1, 10.0, 9.0, True)]) == "-10%"
