"""Hosts to run clusters on, each a set of Linux namespaces of its own.

A host has its own processes, network, host name, shared memory and disk (file systems in memory: /tmp, /run, /srv with
its home), an sshd of its own, and sees all else of this machine read-only, Python's environment too. A switch in a
network of its own joins the hosts; nothing of this machine's network is touched or reached. Whatever becomes of the
process that made a laboratory, its hosts end with it: the first process of each waits for the end of a pipe.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOME = "/srv/home"  # of each host's user, root
SHARED = "/srv/shared"  # the folder that all hosts share, where there is one
KEY = "/srv/lab/key"  # the private key that opens each host
PROGRAMS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter")
NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")
PATH = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}

# $1 is the laboratory's folder, which goes when the switch ends.
SWITCH = """
ip link add lan type bridge && ip link set lan up && echo ready
read -r _
rm -rf "$1"
"""

# $1 is the laboratory's folder, $2 the host's name, $3 the shared folder or nothing; then folders to keep in sight.
BOOT = """
set -e
read -r pid _ </proc/self/stat
laboratory=$1 name=$2 shared=$3
shift 3
mount -t tmpfs -o mode=755 kept /mnt
mkdir /mnt/lab /mnt/shared
mount --bind "$laboratory" /mnt/lab
if [ -n "$shared" ]; then mount --bind "$shared" /mnt/shared; fi
n=0
for folder; do
    n=$((n + 1))
    mkdir /mnt/$n
    mount --bind "$folder" /mnt/$n && mount -o remount,bind,ro /mnt/$n
done
while read -r _ point _; do
    case $point in
        /proc*|/sys*|/dev*|/mnt*) ;;
        *) mount -o remount,bind,ro "$point" ;;
    esac
done </proc/self/mounts
mount -t proc proc /proc
mount -t sysfs -o ro sys /sys
for folder in /srv /tmp /run; do mount -t tmpfs disk $folder; done
chmod 1777 /tmp
mount -t tmpfs memory /dev/shm
mkdir -p /srv/home /srv/lab /srv/shared /run/sshd
n=0
for folder; do
    n=$((n + 1))
    mkdir -p "$folder" 2>/dev/null || true
    mount --bind /mnt/$n "$folder"
done
mount --bind /mnt/lab /srv/lab
mount --bind /srv/lab/passwd /etc/passwd
mount --bind /srv/lab/hosts /etc/hosts
if [ -n "$shared" ]; then mount --bind /mnt/shared /srv/shared; fi
umount -l /mnt
cp /etc/skel/.bashrc /etc/skel/.profile /srv/home/
hostname "$name"
ip link set lo up
$(command -v sshd) -f /srv/lab/sshd_config -E /run/sshd.log
echo "$pid"
set +e
read -r _
"""


def lacking():
    """What keeps this machine from having hosts, in a line; nothing where it can have them."""
    absent = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
    if absent:
        return f"{', '.join(absent)} not installed; next: make debian, as root"
    if os.geteuid() != 0:
        return "hosts of namespaces are made by root"
    trial = "ip link add lan type bridge && mount -t tmpfs disk /mnt"
    done = subprocess.run(["unshare", *NAMESPACES, "--fork", "sh", "-c", trial], capture_output=True, text=True)
    if done.returncode:
        return f"namespaces are forbidden here: {done.stderr.strip()}"
    return None


class Host:
    """One host: its name, its address, and the first of its processes as this machine numbers them."""

    def __init__(self, name, address, pid, process):
        self.name, self.address, self.pid, self.process = name, address, pid, process

    def command(self, line, **environment):
        """The command that runs a line of bash on this host, in its user's home."""
        given = {"HOME": HOME, "USER": "root", "PATH": PATH, "LANG": "C.UTF-8", **ENVIRONMENT, **environment}
        enter = ["nsenter", "--target", str(self.pid), *NAMESPACES, f"--wdns={HOME}"]
        return [*enter, "env", "-i", *(f"{key}={value}" for key, value in given.items()), "bash", "-c", line]

    def run(self, line, check=True, timeout=600, **environment):
        """A line of bash that has ended: exit status, and what it printed."""
        command = self.command(line, **environment)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as late:
            said = [(text or b"").decode(errors="replace") for text in (late.stdout, late.stderr)]
            raise AssertionError(f"{self.name}: not within {timeout} s: {line}\n{said[0]}\n{said[1]}") from None
        assert not check or done.returncode == 0, f"{self.name}: {line}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, line, **environment):
        """A line of bash that goes on; its `stdout` and `stderr` are pipes of text."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(self.command(line, **environment), text=True, **pipes)

    def processes(self):
        """The command lines of what runs on it beyond its first process and sshd, by this machine's process ids."""
        here, found = Path(f"/proc/{self.pid}/ns/pid").readlink(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or is not ours to see
                if (folder / "ns" / "pid").readlink() == here:
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
        lines = {pid: line for pid, line in found.items() if pid != self.pid and not line.startswith("sshd")}
        return {pid: line for pid, line in lines.items() if line}  # a process that has ended has none

    def listening(self):
        """The addresses with ports that processes on it listen on, sshd's left out."""
        lines = self.run("ss --tcp --listening --numeric --no-header").stdout.splitlines()
        return {line.split()[3] for line in lines} - {"0.0.0.0:22", "[::]:22"}


class Laboratory:
    """Hosts by name, on one switch; each can be cut off, lost and booted again."""

    def __init__(self, names, shared=None):
        self.folder, self.shared, self.hosts = Path(tempfile.mkdtemp(prefix="lab-")), shared, {}
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, start=1)}
        switch = ["unshare", "--net", "bash", "-c", SWITCH, "switch", str(self.folder)]
        self.switch = subprocess.Popen(switch, env={"PATH": PATH}, **PIPES)
        try:
            self._write()
            assert self.switch.stdout.readline() == "ready\n", "the switch did not come up"
            for name in names:
                self.boot(name)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name):
        return self.hosts[name]

    def boot(self, name):
        """Start the host of that name, with an empty disk."""
        address = self.addresses[name]
        keep = dict.fromkeys([ROOT, Path(sys.prefix), Path(sys.base_prefix)])  # in this order, once each
        arguments = [self.folder, name, self.shared or "", *keep]
        command = ["unshare", *NAMESPACES, "--fork", "--kill-child", "bash", "-c", BOOT, "boot", *map(str, arguments)]
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, stderr=log, env={"PATH": PATH}, cwd="/", **PIPES)
        pid = process.stdout.readline().strip()
        assert pid, f"{name} did not boot: {(self.folder / f'{name}.log').read_text()}"
        host = self.hosts[name] = Host(name, address, int(pid), process)
        card = f"02:00:00:00:00:{address.rpartition('.')[2]:0>2}"  # the same after a loss: others remember it
        self._wire(f"ip link add {name} type veth peer name eth0 address {card} netns {pid}")
        self._wire(f"ip link set {name} master lan up")
        host.run(f"ip addr add {address}/24 dev eth0; ip link set eth0 up; ip route add default via 10.77.0.254")
        return host

    def cut(self, name):
        """From now on nothing reaches that host, and nothing of it reaches another: packets are lost silently."""
        self._wire(f"ip link set {name} nomaster")

    def heal(self, name):
        """Undo `cut`."""
        self._wire(f"ip link set {name} master lan")

    def lose(self, name):
        """That host is gone at once, disk and all, without a word to the others."""
        host = self.hosts.pop(name)
        if host.process.poll() is None:
            self._wire(f"ip link delete {name}")
            os.kill(host.pid, signal.SIGKILL)
        host.process.communicate(timeout=300)

    def close(self):
        """Lose all hosts, the switch and the laboratory's folder."""
        for name in list(self.hosts):
            self.lose(name)
        self.switch.communicate(timeout=300)

    def _wire(self, line):
        subprocess.run(["nsenter", "--target", str(self.switch.pid), "--net", *line.split()], check=True)

    def _write(self):
        """Keys, sshd's configuration, and the names of users and hosts, into the laboratory's folder."""
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)], check=True)
        users = Path("/etc/passwd").read_text().splitlines()
        users = [f"root:x:0:0:root:{HOME}:/bin/bash" if line.startswith("root:") else line for line in users]
        hosts = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        sshd = [
            "HostKey /srv/lab/host_key",
            "AuthorizedKeysFile /srv/lab/key.pub",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "StrictModes no",
            "UseDNS no",
            "MaxStartups 100",
            "PidFile none",
            "SetEnv " + " ".join(f"{key}={value}" for key, value in ENVIRONMENT.items()),
        ]
        for name, lines in {"passwd": users, "hosts": hosts, "sshd_config": sshd}.items():
            (self.folder / name).write_text("\n".join(lines) + "\n")


@contextmanager
def laboratory(*names, shared=None):
    """Hosts of these names (short: an interface has each), which share a folder of this machine at `SHARED`.

    The test is skipped where this machine cannot have them.
    """
    if reason := lacking():
        pytest.skip(reason)
    made = Laboratory(names, shared)
    try:
        yield made
    finally:
        made.close()


def wait_until(what, seconds, every=0.2):
    """What a function returns once that is true; AssertionError where it is not within the time."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds} s: {what.__name__}"
        time.sleep(every)
    return found
