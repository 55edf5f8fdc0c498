"""Rules for clusters of machines that one has, which `ray up` reaches over ssh."""

from collections.abc import Iterator
from typing import Any

from orchestrator.cluster.findings import Finding, items, unknown_keys

PROVIDER = ("type", "head_ip", "worker_ips", "external_head_ip")
V1 = "RAY_enable_autoscaler_v2=0"


def findings(config: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong in a file for local machines."""
    provider = config["provider"]
    yield from unknown_keys(provider, PROVIDER, ("provider",))
    head, workers = provider.get("head_ip"), items(provider.get("worker_ips"))
    if not head:
        yield ("provider", "head_ip"), "the head's address is missing", head, "name the machine that runs the head"
    if not workers:
        yield ("provider", "worker_ips"), "no worker is named", provider.get("worker_ips"), "name one machine or more"
    if len(set(map(str, [head, *workers]))) <= len(workers):
        rule = "a machine must be named once: Ray would start twice on it"
        yield ("provider", "worker_ips"), rule, [head, *workers], "remove the address"
    if workers and str(head).startswith(("127.", "localhost", "::1")):
        yield ("provider", "head_ip"), "the workers cannot reach this address", head, "use one that they reach"
    for key in ("min_workers", "max_workers"):
        if config.get(key, len(workers)) != len(workers):
            rule = f"must be the number of worker_ips, {len(workers)}, or some are never started"
            yield (key,), rule, config[key], "remove it: all that are named are started"
    for key in ("ssh_user", "ssh_private_key"):
        if not config.get("auth", {}).get(key):
            yield ("auth", key), "missing: the machines are reached over ssh, by a key", None, "name it"
    for key in ("available_node_types", "head_node_type"):
        if key in config:
            yield (key,), "Ray refuses this for machines that one has", "…", "remove it"
    for index, command in enumerate(items(config.get("head_start_ray_commands"))):
        if "ray start" in command and V1 not in command.partition("ray start")[0]:
            rule = "Ray's autoscaler v2 never contacts the workers of a local cluster, and says nothing"
            yield ("head_start_ray_commands", index), rule, None, f"put export {V1}; before ray start"
