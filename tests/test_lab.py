"""What the tests on clusters rest on: hosts of namespaces are apart, can be cut off and lost, and leave nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lab import ROOT, laboratory, wait_until

SSH = "ssh -i /srv/lab/key -o StrictHostKeyChecking=no -o LogLevel=ERROR"
IN_VAIN = f"{SSH} -o ConnectTimeout=1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with laboratory("one", "two", shared=tmp_path_factory.mktemp("shared")) as hosts:
        yield hosts


def test_a_host_has_a_disk_a_name_and_processes_of_its_own_and_sees_the_rest_read_only(lab):
    script = f"hostname; touch /tmp/mine ~/mine; ls /proc | grep -c '^[0-9]'; touch {ROOT}/x || echo refused"
    name, count, refused = lab["one"].run(script).stdout.split()
    assert (name, refused) == ("one", "refused")
    assert int(count) < 10
    shown = lab["two"].run("ls /tmp ~").stdout.replace("/srv/home:", "").replace("/tmp:", "").split()
    assert not set(shown) - set(ROOT.parts), "only what leads to the code, where that lies below /tmp"
    assert lab["two"].run("python -c 'import idennet_core; print(idennet_core.__file__)'").stdout.startswith(str(ROOT))


def test_hosts_share_a_folder_and_reach_each_other_over_ssh_alone(lab):
    lab["one"].run("echo hello >/srv/shared/file")
    assert lab["one"].run(f"{SSH} two 'hostname; cat /srv/shared/file; pwd'").stdout.split() == [
        "two",
        "hello",
        "/srv/home",
    ]
    assert lab["two"].listening() == set()
    addresses = lab["one"].run("ip -4 -o address | awk '{ print $2, $4 }'").stdout.splitlines()
    assert addresses == ["lo 127.0.0.1/8", "eth0 10.77.0.1/24"]


def test_a_host_that_is_cut_off_hears_nothing_until_it_is_healed(lab):
    lab.cut("two")
    assert lab["one"].run(f"{IN_VAIN} two hostname", check=False).returncode == 255
    lab.heal("two")
    assert lab["one"].run(f"{SSH} two hostname").stdout == "two\n"


def test_a_host_that_is_lost_takes_its_processes_and_its_disk_along(lab):
    lab["two"].run("echo precious >/srv/home/file")
    sleep = lab["two"].start("exec sleep 1234")
    (pid,) = wait_until(lab["two"].processes, 120)
    lab.lose("two")
    sleep.communicate()
    assert not Path(f"/proc/{pid}").exists()
    assert lab["one"].run(f"{IN_VAIN} two hostname", check=False).returncode == 255
    assert lab.boot("two").run("ls -A /srv/home").stdout.split() == [".bashrc", ".profile"]
    assert lab["one"].run(f"{SSH} two hostname").stdout == "two\n"


@pytest.mark.usefixtures("lab")  # which says whether there can be any
def test_a_laboratory_whose_process_is_killed_leaves_nothing():
    script = (
        "import sys, time; from lab import Laboratory\n"
        "lab = Laboratory(['three'])\n"
        "lab['three'].start('exec sleep 1235')\n"
        "print(lab.folder, lab['three'].pid, lab.switch.pid, flush=True)\n"
        "time.sleep(1000)"
    )
    maker = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True)
    folder, *pids = maker.stdout.readline().split()
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    wait_until(lambda: not any(Path(path).exists() for path in (folder, *(f"/proc/{pid}" for pid in pids))), 120)
