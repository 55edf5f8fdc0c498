"""What the benchmarks compare is the same work."""

import pytest

from benchmarks import plot, steps, turns
from benchmarks.peers import Work


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
