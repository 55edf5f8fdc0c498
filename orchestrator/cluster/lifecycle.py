"""A cluster's start and end: `ray up` and `ray down`, each followed by a look at what is really there.

`ray up` ends with status 0 although no worker was started, `ray down` although everything runs on.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import strict_yaml
from orchestrator.cluster import check_ray_up, leftovers, token
from orchestrator.cluster.check import other_kind, text_of
from orchestrator.cluster.findings import gaps, mapping, within
from orchestrator.sections import shown

LOOK_EVERY = 3.0  # seconds between two looks at the cluster
GONE_WITHIN = 300.0  # seconds that a provider has to end machines
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """A cluster file for `ray up`."""

    path: Path
    config: dict[str, Any]

    @property
    def local(self) -> bool:
        """Whether its machines are there anyway, and only Ray on them comes and goes."""
        return bool(self.config["provider"]["type"] == "local")

    @property
    def nodes(self) -> int:
        """How many machines it has from the start: the head, and each type's least number."""
        if self.local:
            return len(self.hosts)
        return 1 + sum(int(kind.get("min_workers", 0)) for kind in self.config["available_node_types"].values())

    @property
    def hosts(self) -> list[str]:
        """The addresses of a local cluster's machines, the head's first."""
        return [self.config["provider"]["head_ip"], *self.config["provider"]["worker_ips"]]

    @property
    def gcs(self) -> str:
        """Where a local cluster's head listens, host:port."""
        commands = " ".join(self.config.get("head_start_ray_commands", []))
        port = re.search(r"--port[= ](\d+)", commands)
        return f"{self.hosts[0]}:{port[1] if port else 6379}"


def read(path: Path) -> Cluster:
    """The cluster in a file. Raises FileNotFoundError, and ValueError for what is not a file for `ray up`."""
    text = text_of(path)
    if other := other_kind(text):
        raise ValueError(f"{path}: only a file for `ray up` starts and stops a cluster here, got one for {other}")
    config, _ = strict_yaml.read(text, str(path))
    provider = mapping(within(config, "provider"))
    addresses = isinstance(provider.get("head_ip"), str) and isinstance(provider.get("worker_ips"), list)
    if "type" not in provider or (provider["type"] == "local" and not addresses):
        raise ValueError(
            f"{path}: only a file for `ray up` starts and stops a cluster: with a provider, its type and, of machines "
            f"that one has, head_ip and worker_ips; see: idenctl cluster check {path}"
        )
    if refused := next(check_ray_up.refused_by_ray(config), None):
        place, rule, value, _ = refused
        key = ".".join(map(str, place))
        raise ValueError(f"{path}: {key}: {rule}, got {shown(value)}; see: idenctl cluster check {path}")
    if left := next(gaps(config), None):
        raise ValueError(f"{path}: what is started has no gaps, got {left[2]!r}; see: idenctl cluster check {path}")
    return Cluster(path, config)


def up(cluster: Cluster, limit: float, tell: Tell) -> list[str]:
    """Start the cluster and wait, at most `limit` seconds, until all nodes that it starts with are there.

    Gives the nodes' addresses, the head's first. Raises ConnectionError where they do not come, with the reason.
    """
    began = time.monotonic()
    token.keep()
    if cluster.local:
        _reach(cluster)
    status = _ray(cluster, "up", "--yes", "--no-config-cache")
    stop = f"idenctl cluster down {cluster.path}"
    if status:
        raise ConnectionError(f"ray up ended with status {status}, see above; what was started is stopped by: {stop}")
    tell(f"head up after {time.monotonic() - began:.0f} s; waiting for {cluster.nodes - 1} more")
    while len(nodes := _alive(cluster)) < cluster.nodes:
        if time.monotonic() - began > limit:
            tell(_on_head(cluster, "ray status; tail -n 20 /tmp/ray/session_latest/logs/monitor.*"))
            raise ConnectionError(
                f"{len(nodes)} of {cluster.nodes} nodes came within {limit:.0f} s, what the head says is above; "
                f"put it right and start again, or stop it: {stop}"
            )
        time.sleep(LOOK_EVERY)
    tell(f"{len(nodes)} of {cluster.nodes} nodes up after {time.monotonic() - began:.0f} s")
    return nodes


def down(cluster: Cluster, tell: Tell) -> list[str]:
    """Stop the cluster, and whatever of it `ray down` leaves; gives what is there still, or may be."""
    status = _ray(cluster, "down", "--yes")
    if status:
        tell(f"ray down ended with status {status}")
    if not cluster.local:
        return _machines(cluster)
    with ThreadPoolExecutor(max_workers=32) as pool:
        ended = list(pool.map(lambda host: _stop_on(cluster, host), cluster.hosts))
    for host, (stopped, _) in zip(cluster.hosts, ended, strict=True):
        for process in stopped:
            tell(f"{host}: ray down left {process}; stopped")
    return [f"{host}: {left}" for host, (_, rest) in zip(cluster.hosts, ended, strict=True) for left in rest]


def _ray(cluster: Cluster, command: str, *options: str) -> int:
    """Run `ray COMMAND FILE`, all that it prints on stderr; its exit status."""
    line = [*_RAY, command, *options, str(cluster.path)]
    return subprocess.run(line, env=_environment(cluster), stdout=sys.stderr).returncode


_RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def _environment(cluster: Cluster) -> dict[str, str]:
    # the second autoscaler never contacts the workers of a local cluster
    second = {"RAY_UP_enable_autoscaler_v2": "0"} if cluster.local else {}
    return {**os.environ, token.MODE: "token", **second}


def _on_head(cluster: Cluster, command: str) -> str:
    """What a command prints on the head; empty where it could not be run."""
    line = [*_RAY, "exec", str(cluster.path), f"export {token.MODE}=token; {command}"]
    return subprocess.run(line, env=_environment(cluster), capture_output=True, text=True).stdout


def _alive(cluster: Cluster) -> list[str]:
    """The addresses of the nodes that the head counts as alive, its own first."""
    said = _on_head(
        cluster, "command -v ray || echo no-'ray'; echo nodes-'='; ray list nodes --limit 10000 --format json"
    )
    if "no-ray" in said:  # then `ray down` would stop nothing
        raise ConnectionError(
            "a login shell on the head finds no `ray`; let setup_commands add it to PATH in ~/.bashrc, "
            f"then stop what was started: idenctl cluster down {cluster.path}"
        )
    listed = said.rpartition("nodes-=")[2].strip()
    try:
        nodes, _ = json.JSONDecoder().raw_decode(listed)
    except ValueError:  # the head does not answer yet
        return []
    alive = [node for node in nodes if node["state"] == "ALIVE"]
    return [node["node_ip"] for node in sorted(alive, key=lambda node: (not node["is_head_node"], node["node_ip"]))]


def _machines(cluster: Cluster) -> list[str]:
    """The cluster's machines that its provider still counts, after it had time to end them.

    Raises ConnectionError where the provider does not say, as without credentials.
    """
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells what it does
            return _counted(cluster)
    except Exception as error:
        reason, again = " ".join(str(error).split()), f"idenctl cluster down {cluster.path}"
        kind = cluster.config["provider"]["type"]
        raise ConnectionError(
            f"what of it still runs {kind} does not say: {reason}; mend that, then: {again}"
        ) from error


def _counted(cluster: Cluster) -> list[str]:
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    config = _bootstrap_config(cluster.config)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    end = time.monotonic() + GONE_WITHIN
    while (machines := provider.non_terminated_nodes({})) and time.monotonic() < end:
        time.sleep(LOOK_EVERY)
    return [f"{config['provider']['type']} still has {machine}" for machine in machines]


def _ssh(cluster: Cluster, host: str) -> list[str]:
    """The start of a command line that runs something on a host of a local cluster, as Ray itself would."""
    auth, provider = cluster.config["auth"], cluster.config["provider"]
    options = ["BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    command = ["ssh", "-o", "LogLevel=ERROR", *(word for option in options for word in ("-o", option))]
    if auth.get("ssh_private_key"):
        command += ["-o", "IdentitiesOnly=yes", "-i", str(Path(auth["ssh_private_key"]).expanduser())]
    outside = provider.get("external_head_ip", cluster.hosts[0])
    if auth.get("ssh_proxy_command"):
        command += ["-o", f"ProxyCommand={auth['ssh_proxy_command']}"]
    elif outside != cluster.hosts[0] and host != cluster.hosts[0]:  # the others are known to the head alone
        command += ["-o", f"ProxyCommand={' '.join(command)} -W %h:%p {auth['ssh_user']}@{outside}"]
    return [*command, f"{auth['ssh_user']}@{outside if host == cluster.hosts[0] else host}"]


def _reach(cluster: Cluster) -> None:
    """Raise ConnectionError where a host does not let us in, or lacks what Ray needs: it would try for minutes."""

    def fault(host: str) -> str:
        line = [*_ssh(cluster, host), "command -v python3 && command -v rsync || echo no rsync or python3 >&2"]
        done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return f"{host}: {_last_line(done.stderr)}" if done.stderr.strip() or done.returncode else ""

    with ThreadPoolExecutor(max_workers=32) as pool:
        if faults := [found for found in pool.map(fault, cluster.hosts) if found]:
            user = cluster.config["auth"]["ssh_user"]
            raise ConnectionError(f"not reached over ssh as {user}: {'; '.join(faults)}; nothing was started")


def _stop_on(cluster: Cluster, host: str) -> tuple[Sequence[str], Sequence[str]]:
    """End what is left on a host: what was stopped, and what is there still or may be."""
    script = Path(leftovers.__file__).read_text(encoding="utf-8")
    line = [*_ssh(cluster, host), f"python3 - {cluster.gcs}"]
    done = subprocess.run(line, input=script, capture_output=True, text=True)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return [], [f"not reached, so what runs there is unknown: {_last_line(done.stderr)}"]
    return said["stopped"], said["left"]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1]
