"""`idenctl cluster down` of what is no cluster here, and of one that the cloud says nothing of."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import idenctl

FILES = Path(__file__).parent.parent / "cluster"


@pytest.mark.parametrize(
    "content", ["name: x", "provider: {}", "provider: {type: local, head_ip: a}", "provider: {type: [aws]}"]
)
def test_what_is_no_cluster_is_neither_stopped_nor_a_crash(tmp_path, content):
    file = tmp_path / "cluster.yaml"
    file.write_text(content)
    ended = idenctl("cluster", "down", file)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"see: idenctl cluster check {file}" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kuberay.yaml", "a cluster here, got one for KubeRay; next: kubectl apply -f, or kubectl delete -f"),
        ("slurm.sh", "a cluster here, got one for Slurm; its job is started by sbatch and ended by scancel"),
        ("gpu.yaml", "what is started has no gaps, got 'FILL_IN"),
        ("local.yaml", "what is started has no gaps, got 'FILL_IN"),
    ],
)
def test_down_says_of_a_file_that_started_nothing_here_what_it_is(name, said):
    ended = idenctl("cluster", "down", FILES / name)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert f"{name}: " in ended.stderr
    assert said in ended.stderr


def test_down_that_the_cloud_does_not_answer_says_so_and_what_to_do(tmp_path):
    file = tmp_path / "gpu.yaml"
    file.write_text(re.sub(r"FILL_IN_\w+", "subnet-1", (FILES / "gpu.yaml").read_text()))
    none = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    none |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "orchestrator.cli.app", "cluster", "down", file]
    ended = subprocess.run(command, env=none, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: what of it still runs aws does not say: Unable to locate credentials; mend that")
    assert last.endswith(f"idenctl cluster down {file}")
