"""What the benchmarks compare is the same work."""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import plot, steps, time_left, turns
from benchmarks.peers import Work

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("batch", [32, 128])
def test_a_round_of_ours_has_as_many_pictures_of_a_bank_to_a_step_as_a_whole_epoch(batch):
    whole, shares = Work.drawn(16, batch), []
    for work in (whole, steps.part_of(whole)):
        pack, _, faces = steps.pack_of(work, 10, epochs=1)
        shares.append(sum(member.steps_per_epoch for member in pack) / len(faces.faces))
    assert shares[1] == pytest.approx(shares[0], rel=0.02)


def test_a_ratio_is_taken_within_a_round_so_that_a_slow_round_does_not_show():
    slow = 0.1
    values = {"peer": [1.0, slow * 1.0, 1.0], "ours": [20.0, slow * 20.0, 20.0]}
    assert turns.ratios(values, to="peer") == {"peer": 1.0, "ours": 20.0}


def test_the_plot_shows_the_median_of_every_pack_and_its_spread():
    curve = {"1": {"steps_per_second": [1.0, 3.0, 2.0]}, "60": {"steps_per_second": [12.0]}}
    one = {"members": 1, "speed": 2.0, "least": 1.0, "most": 3.0}
    assert plot.points(curve) == [one, {"members": 60, "speed": 12.0, "least": 12.0, "most": 12.0}]
    assert plot.chart({"cores": 2, "measured_at": "2026-01-01", "cpu": {"depth": 40, "curve": curve, "steps": {
        steps.RAY: {"steps_per_second": [0.5]}}}}).to_dict()["layer"]  # fmt: skip


def test_the_time_left_of_a_run_that_goes_as_told_is_never_off_and_its_table_has_the_rows_of_the_manual(
    tmp_path, monkeypatch, capsys
):
    """Two packs of 100 s, one after the other, half of each banks and half head steps."""
    parts, events = {"trunk": 50.0, "head": 50.0}, []
    for place, pack in enumerate(("a", "b")):
        events.append((100 * place, "PackStarted", {"pack_id": pack, "trial_ids": [pack]}))
        for second in range(101):
            facts = {"pack_id": pack, "steps": second, "total_steps": 100, "epoch": 0, "epochs": 1, "stage": "heads"}
            told = facts | {"share": second / 100, "takes": parts}
            events.append((100 * place + second, "Progress", told))
        events.append((100 * place + 100, "PackDone", {"pack_id": pack, "accuracies": {pack: 0.5}, "failed": {}}))
    plan = {pack: {"trial_ids": [pack], "seconds": 100.0, "parts": parts} for pack in ("a", "b")}
    for name in time_left.STUDIES:
        (tmp_path / f"{name}.json").write_text(json.dumps({"measured": plan, "guess": plan, "events": events}))
    monkeypatch.setattr(sys, "argv", ["time_left", str(tmp_path)])
    time_left.main()
    head, _, *rows = (line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines())
    assert {error for _, *errors in rows for error in errors} <= {"+0%", "-0%"}
    manual = (ROOT / "docs/how-to/watch.md").read_text()
    assert [f"| {row[0]} |" for row in rows] == re.findall(r"^\| `oulu_\w+`, .*? \|", manual, re.MULTILINE)
    assert f"| {' | '.join(head)} |" in manual
