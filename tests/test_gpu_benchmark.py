"""The benchmark of a GPU, where there is none: it says so, and runs from end to end on a CPU in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
# what a bare machine lacks: the script must not need it
LACKING = ["numba", "ray", "polars", "optuna", "scipy", "rich", "typer", "pydantic", "altair"]
SCRIPT = (
    f"import sys, runpy; sys.modules |= dict.fromkeys({LACKING}); runpy.run_module('benchmarks.gpu', None, '__main__')"
)


def run(*arguments):
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # sizes this small only wait for each other
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=one_thread)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_2():
    ended = run()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr == "the GPU benchmark needs a CUDA device, torch sees none; run it on one, or with --device cpu\n"
    )


@pytest.mark.slow
def test_it_runs_from_end_to_end_with_no_more_than_a_bare_machine_has(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"cpu": 1}')
    small = ["--depth", 10, "--batch", 8, "--pictures", 120, "--members", 2, "--processes", 1, "--seconds", 0.01]
    ended = run("--device", "cpu", "--json", path, *small)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(path.read_text())
    assert found["cpu"] == 1
    assert found["gpu"]["same"]
    assert set(found["gpu"]["idenctl"]["fp32"]) == {"1", "2"}
    assert found["gpu"]["peers"].keys() >= {"PyTorch, one process", "vmap over 8 heads"}
