"""Why trials were not run: a pack whose code raises has no rows, and what the store says of it until it has."""

import json
from pathlib import Path

import coins
import pytest
from conftest import changed, idenctl

WHY = "RuntimeError: it stands on its edge"
RAISES = 'raise RuntimeError("it stands on its edge")'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a study one cell of which does what `edge.py` says when it runs: it raises."""
    monkeypatch.chdir(coins.written(tmp_path / "mine", sides="heads, edge"))
    Path("coin.py").write_text(changed(coins.MODULE, RAISES, 'exec(Path("edge.py").read_text())'))
    Path("helper.py").write_text(changed(coins.HELPER, "0.25", "0.25, 'edge': 0.5"))
    Path("edge.py").write_text(RAISES)
    return Path.cwd()


def run():
    return idenctl("study", "run", "coin.yaml", "--engine", "inline")


def said(*arguments):
    """What a command prints, as if its lines had no end."""
    return " ".join(idenctl(*arguments).stdout.split())


def everywhere():
    """What one is shown of the study: its report in each format that has sentences, its state, and its run again."""
    shown = [said("report", "coin", "--format", name) for name in ("terminal", "markdown", "html", "json")]
    return [*shown, said("study", "status", "coin"), run().stderr]


def test_a_pack_that_raised_is_told_with_its_reason_until_it_has_run(here):
    assert run().returncode == 1
    assert all(WHY in shown for shown in everywhere())
    assert "2 trials not run, as their pack failed</" in said("report", "coin", "--format", "html")
    assert f"Edge: 2 of 2 trials not run, as their pack failed ({WHY}), folds 0, 1." in said("report", "coin")
    assert f"not run: as their pack failed, 2 trials: {WHY} (2)" in said("study", "status", "coin")
    assert json.loads(idenctl("study", "status", "coin", "--json").stdout)["not_run"] == {WHY: 2}
    Path("edge.py").write_text("pass")
    assert run().returncode == 0
    assert not any(WHY in shown for shown in everywhere())


def test_a_study_of_which_every_pack_raised_says_why_it_has_no_report(here):
    Path("coin.yaml").write_text(coins.STUDY.format(sides="edge", takes=0.0))
    run()
    done = idenctl("report", "coin")
    assert done.returncode == 2
    assert (
        f"no trial in the store yet, as its packs failed: {WHY}; see to that and run it again: idenctl" in done.stderr
    )


def test_a_reason_goes_when_its_trial_is_taken_up_again_though_the_run_is_then_stopped(here):
    run()
    Path("edge.py").write_text("raise KeyboardInterrupt")
    run()
    # that of the other fold, which was not begun
    assert f"not run: as their pack failed, 1 trial: {WHY} (1)" in said("study", "status", "coin")


@pytest.mark.parametrize("content", ["{", "[]", '{"why": "a trial"}', '{"why": [1]}'])
def test_damaged_reasons_are_named_by_a_report_and_made_anew_by_a_run(here, content):
    run()
    kept = Path("runs/studies/coin/failures.json")
    kept.write_text(content)
    done = idenctl("report", "coin")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert str(kept) in line
    assert "delete it, it only says why trials were not run" in line
    assert "internal" not in run().stderr
    assert WHY in said("report", "coin")


def test_a_run_goes_on_where_the_reasons_cannot_be_written(here):
    Path("runs/studies/coin/.failures.json.tmp").mkdir(parents=True)  # what it is written as, beside its place
    done = run()
    assert done.returncode == 1
    assert f"failed: {WHY}" in done.stderr
    assert "2 of 4 trials complete" in done.stderr


def test_a_search_says_which_of_its_trials_were_not_run_and_what_came_of_the_others(here):
    found = "search: {sampler: random, space: {side: {choices: [heads, edge]}}, configurations: 2}"
    text = changed(coins.STUDY.format(sides="", takes=0.0), "design: {grid: {side: []}}", found)
    Path("coin.yaml").write_text(changed(text, "[0, 1]", "all"))
    assert run().returncode == 1
    report = said("report", "coin")
    assert f"10 trials that it asked for not run, as their pack failed ({WHY}); run it again, it goes on." in report
    assert "2 of 2 configurations asked (1 complete, 0 pruned, 0 failed, 1 waiting" in report
    assert "1 of the 2 configurations it asked for have an outcome" in said("study", "status", "coin")
    Path("edge.py").write_text("pass")
    assert run().returncode == 0
    assert "not run" not in said("report", "coin")
