"""cluster/slurm.sh on two nodes, played by this machine: what it starts, what it leaves, how it is stopped."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

# Slurm's own, as far as the script uses them: a command on a node runs here
SRUN = '#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
SCONTROL = "#!/usr/bin/env bash\nprintf 'one\\ntwo\\n'\n"


@pytest.fixture
def batch(tmp_path):
    """A function that starts the script with a study; the job's environment is short-lived and its home a new one."""
    work, home, tools = (tmp_path / name for name in ("work", "home", "tools"))
    for folder in (work, home, tools):
        folder.mkdir()
    for name in ("orchestrator", "idennet_core", "examples"):
        (work / name).symlink_to(ROOT / name)
    (work / ".venv").symlink_to(sys.prefix)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    with socket.create_server(("", 0)) as free:
        agent = free.getsockname()[1]
    text = (ROOT / "cluster" / "slurm.sh").read_text().replace("6379", str(port))
    worker_ports = "--min-worker-port=0 --max-worker-port=0"  # any that is free, beside the one above
    text = text.replace("ray start ", f"ray start {worker_ports} --dashboard-agent-listen-port={agent} ")
    (work / "slurm.sh").write_text(text)
    job = str(os.getpid())
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(work),
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_CPUS_ON_NODE": "1",
    }
    log = tmp_path / "log"
    started = []

    def start(*arguments):
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "slurm.sh", *arguments], cwd=work, env=environment, stdout=out, stderr=out
            )
        started.append(process)
        return process, log, home / ".ray" / f"slurm-{job}"

    yield start
    for process in started:
        process.kill()
    assert not [line for line in processes() if f"/tmp/ray-{job}" in line]


def processes():
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()


def wait_for(text, log, process):
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.2)


def test_a_study_runs_on_all_nodes_with_a_token_of_its_own_and_leaves_nothing(batch, tmp_path):
    process, log, token = batch("examples/digits.yaml", "--store", str(tmp_path / "runs"))
    wait_for("to train in", log, process)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    secret = token.read_text().strip()
    assert re.fullmatch("[0-9a-f]{64}", secret)
    assert not [line for line in processes() if secret in line]
    assert process.wait(300) == 0, log.read_text()[-3000:]
    assert "2 machines" in log.read_text()
    assert secret not in log.read_text()
    assert not token.exists()
    trials = pl.read_parquet(tmp_path / "runs" / "trials" / "*.parquet")
    assert trials["state"].to_list() == ["complete"] * 70


def test_slurms_signal_stops_the_study_with_status_130(batch, tmp_path):
    process, log, token = batch("examples/digits.yaml", "--store", str(tmp_path / "runs"))
    wait_for("elapsed", log, process)  # its packs are there
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, log.read_text()[-3000:]
    assert not token.exists()


def test_a_ray_that_does_not_come_ends_the_job_at_once_with_status_1(batch, tmp_path):
    (tmp_path / "tools" / "srun").write_text(
        SRUN.replace("exec", '[[ $1 == ray ]] && { echo "no memory"; exit 1; }; exec')
    )
    process, log, _ = batch("examples/digits.yaml", "--store", str(tmp_path / "runs"))
    assert process.wait(60) == 1
    assert "1 of 2 nodes were to have joined Ray" in log.read_text()
