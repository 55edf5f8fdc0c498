"""`study new`: what it writes is accepted at once, says what the code says, and takes the place of nothing."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import terminals
from conftest import idenctl
from study_files import load

from idennet_core import config
from idennet_core.datasets.scan import describe
from idennet_core.datasets.synthetic.sets import synthesise
from orchestrator import idennet, strict_yaml
from orchestrator.cli.data import scan_of
from orchestrator.study import IDENNET

COMPARES = ("--vary", "depth=10,16", "--vary", "variant=original,f")
SEARCHES = ("--search", "4", "--vary", "alpha=0.001..10,log", "--vary", "gamma=0..30", "--vary", "variant=i,if")


def new(folder, *arguments, name="fresh"):
    file = folder / f"{name}.yaml"
    return idenctl("study", "new", name, "--out", file, *arguments), file


@pytest.mark.parametrize("arguments", [COMPARES, COMPARES[:2], SEARCHES, SEARCHES[:4]], ids=" ".join)
def test_what_it_writes_is_planned_at_once(tmp_path, trained_store, arguments):
    done, file = new(tmp_path, "--dataset", "oulu-casia", "--folds", "0,3,5", "--seeds", "0,1", *arguments)
    assert done.returncode == 0, done.stderr
    for profile in ([], ["--profile", "quick"]):
        planned = idenctl("study", "plan", file, "--store", trained_store, *profile)
        assert planned.returncode == 0, planned.stderr
        assert "(3 folds x 2 seeds a configuration)" in planned.stdout


@pytest.mark.parametrize("dataset", [name for name in config.DATASETS if name not in idennet.FOR_TRUNKS])
def test_it_loads_for_every_data_set_that_can_be_studied(tmp_path, dataset):
    done, file = new(tmp_path, "--dataset", dataset, "--vary", "depth=10,16,22")
    assert done.returncode == 0, done.stderr
    assert load(file).dataset == dataset
    assert load(file, "quick").profile == "quick"


def test_which_sets_name_nobody_and_which_are_for_trunks_is_as_they_are_drawn(tmp_path):
    drawn = {}
    for name in config.DATASETS:
        synthesise(name, tmp_path / name, 10)
        drawn[name] = describe(scan_of(name, tmp_path / name))
    assert {name for name, found in drawn.items() if not found["subjects"]} == set(idennet.NAMELESS)
    assert {name for name, found in drawn.items() if not found["classes"]} == set(idennet.FOR_TRUNKS)


def test_what_is_not_asked_for_is_the_default_of_the_code(tmp_path):
    _, file = new(tmp_path, "--dataset", "mmi", *SEARCHES)
    study = load(file)
    assert dict(study.base) == {k: v for k, v in config.HEAD_DEFAULTS.items() if k not in ("alpha", "gamma", "variant")}
    assert study.trunks == config.TRUNK_DEFAULTS
    assert study.workload == IDENNET
    plain, _ = strict_yaml.read(file.read_text(), "file")
    bare = {"name": "bare", "question": "?", "dataset": "mmi", "report": plain["report"]}
    bare["search"] = {key: plain["search"][key] for key in ("configurations", "space")}
    other = tmp_path / "bare.yaml"
    other.write_text(strict_yaml.dump(bare))
    assert load(other).search == study.search
    assert (load(other).folds, load(other).seeds) == (study.folds, study.seeds)


@pytest.mark.parametrize("way", [COMPARES, SEARCHES], ids=["compares", "searches"])
def test_every_key_that_it_writes_has_a_comment(tmp_path, way):
    done, file = new(tmp_path, "--dataset", "mmi", *way)
    assert done.returncode == 0, done.stderr
    bare = [line for line in file.read_text().splitlines() if line.strip() and "#" not in line]
    words = {line.split(":")[0].strip() for line in bare}
    assert words <= {"question", "emotion", "identity", "trunks"}  # of which the line above says it


def test_it_overwrites_nothing(tmp_path):
    (tmp_path / "fresh.yaml").write_text("mine")
    done, file = new(tmp_path, "--dataset", "mmi", *COMPARES)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{file} is there already" in done.stderr
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs --dataset NAME and --vary SETTING=V1,V2, got neither; give both"),
        (("--dataset", "mmi"), "got no --vary"),
        (("--dataset", "mni", *COMPARES), "unknown data set 'mni'; did you mean 'mmi'?"),
        (("--dataset", "mmi", "--vary", "dpeth=16"), "unknown setting 'dpeth'; did you mean 'depth'?"),
        (("--dataset", "mmi", "--vary", "depth=17"), "depth must be 6n + 4"),
        (("--dataset", "mmi", "--vary", "depth="), "a setting varies over values such as depth=V1,V2, got 'depth='"),
        (("--dataset", "mmi", "--vary", "depth=16,16"), "a setting has each value once"),
        (("--dataset", "mmi", "--vary", "depth=16", "--vary", "depth=22"), "a setting varies once, got depth twice"),
        (("--dataset", "mmi", "--vary", "alpha=0..1"), "a study that compares lists values, got 'alpha=0..1'"),
        (("--dataset", "mmi", "--search", "3", "--vary", "alpha=1..0"), "low below high"),
        (("--dataset", "mmi", "--search", "3", "--vary", "alpha=0..1,log"), "low above 0"),
        (("--dataset", "mmi", "--search", "3", "--vary", "alpha=a..b"), "must be a finite number, got 'alpha=a..b'"),
        (("--dataset", "mmi", *COMPARES, "--folds", "0,10"), "folds are all, none, or some of 0 to 9 such as 0,1,2"),
        (("--dataset", "mmi", *COMPARES, "--seeds", "x"), "seeds are different whole numbers"),
        (("--dataset", "ferplus", "--search", "3", "--vary", "alpha=0..1"), "ferplus names nobody"),
        (("--dataset", "ferplus", "--vary", "variant=f,if"), "keep the variants original and f"),
    ],
)
def test_what_it_cannot_write_is_one_line_and_no_file(tmp_path, arguments, said):
    done, file = new(tmp_path, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert not file.exists()


def test_on_a_terminal_it_asks_and_asks_again(tmp_path):
    answers = ["mni", "mmi", "0", "dpeth=16", "depth=10,16", "", "0,1", "", "Does it ask?"]
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "orchestrator.cli.app", "study", "new", "asked"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "dumb"}
    ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **ends) as process:
        os.close(terminal)
        os.write(reader, "".join(f"{answer}\n" for answer in answers).encode())
        text = terminals.read_rest(reader).decode()
    assert process.returncode == 0, text
    assert "did you mean 'mmi'?" in text
    assert "did you mean 'depth'?" in text
    study = load(tmp_path / "asked.yaml")
    assert (study.dataset, study.question, study.folds, study.seeds) == ("mmi", "Does it ask?", [0, 1], [0])
    assert study.design.grid == {"depth": [10, 16]}
