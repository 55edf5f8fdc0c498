"""Rules for clusters on Google Cloud, whose `node_config` is what Compute Engine's instances.insert takes."""

from collections.abc import Iterator
from typing import Any

from orchestrator.cluster.findings import Finding, items, mapping, unknown_keys, within
from orchestrator.strict_yaml import Place

PROVIDER = (
    "type",
    "region",
    "availability_zone",
    "project_id",
    "use_internal_ips",
    "use_external_head_ip",
    "cache_stopped_nodes",
    "gcp_credentials",
)
# Compute Engine's instance resource, v1, and what Ray reads beside it.
INSTANCE = (
    "machineType",
    "disks",
    "networkInterfaces",
    "guestAccelerators",
    "scheduling",
    "serviceAccounts",
    "metadata",
    "tags",
    "labels",
    "description",
    "minCpuPlatform",
    "shieldedInstanceConfig",
    "confidentialInstanceConfig",
    "deletionProtection",
    "canIpForward",
    "advancedMachineFeatures",
    "networkPerformanceConfig",
    "reservationAffinity",
    "resourcePolicies",
    "displayDevice",
    "hostname",
    "keyRevocationActionType",
    "params",
    "privateIpv6GoogleAccess",
    "sourceInstanceTemplate",
)
SCHEDULING = (
    "provisioningModel",
    "preemptible",
    "instanceTerminationAction",
    "onHostMaintenance",
    "automaticRestart",
    "maxRunDuration",
    "terminationTime",
    "nodeAffinities",
    "minNodeCpus",
    "locationHint",
    "localSsdRecoveryTimeout",
    "onInstanceStopAction",
    "availabilityDomain",
    "hostErrorTimeoutSeconds",
)


def spot(node_config: dict[str, Any]) -> bool:
    """Whether these machines may be taken away at any time."""
    plan = mapping(node_config.get("scheduling"))
    return plan.get("provisioningModel") == "SPOT" or plan.get("preemptible") is True


def findings(config: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong or unsafe in a file for Google Cloud."""
    provider, head = config["provider"], config.get("head_node_type")
    yield from unknown_keys(provider, PROVIDER, ("provider",))
    for key in ("project_id", "region", "availability_zone"):
        if not provider.get(key):
            yield ("provider", key), "missing: Google asks for it", provider.get(key), "name your own"
    zone, region = str(provider.get("availability_zone")), str(provider.get("region"))
    if not zone.startswith(region):
        yield ("provider", "availability_zone"), f"must be one of the region, {region}", zone, f"such as {region}-a"
    if provider.get("use_internal_ips") is not True:
        rule = "workers must have no public address, and without this Ray asks for theirs"
        yield ("provider", "use_internal_ips"), rule, provider.get("use_internal_ips"), "set it to true"
    if not config.get("auth", {}).get("ssh_private_key"):
        rule = "missing: Ray would put a key of its own on every machine of the project"
        yield ("auth", "ssh_private_key"), rule, None, "name a key's file, and its public half in each type's metadata"
    for name, node in mapping(config.get("available_node_types")).items():
        yield from _machine(node["node_config"], ("available_node_types", name, "node_config"), name != head)


def _machine(node: dict[str, Any], place: Place, worker: bool) -> Iterator[Finding]:
    """What is unsafe in one type's `node_config`, or would be filled in by Ray with what is."""
    yield from unknown_keys(node, INSTANCE, place)
    yield from unknown_keys(node.get("scheduling"), SCHEDULING, (*place, "scheduling"))
    for key in ("machineType", "disks"):
        if not node.get(key):
            yield (*place, key), "missing: Google asks for it", node.get(key), "name your own"
    if "scheduling" in node and not isinstance(node["scheduling"], dict):
        yield (*place, "scheduling"), "must be a mapping", node["scheduling"], "write {provisioningModel: SPOT}"
    if node.get("guestAccelerators") and within(node, "scheduling", "onHostMaintenance") != "TERMINATE":
        rule = "a machine with a GPU cannot be moved"
        yield (*place, "scheduling", "onHostMaintenance"), rule, None, "set it to TERMINATE"
    wires = items(node.get("networkInterfaces"))
    if not wires:
        rule = "missing: Ray would take the first network there is, with a public address"
        yield (*place, "networkInterfaces"), rule, None, "name your own subnetwork"
    for index, wire in enumerate(wires):
        here = (*place, "networkInterfaces", index)
        if worker and within(wire, "accessConfigs"):
            rule = "workers must have no public address"
            yield (*here, "accessConfigs"), rule, wire["accessConfigs"], "remove it"
        if not within(wire, "subnetwork"):
            yield (*here, "subnetwork"), "missing: Google would take the default network", None, "name your own"
    if worker and not node.get("serviceAccounts"):
        rule = "missing: workers could not reach the store"
        yield (*place, "serviceAccounts"), rule, None, "name one that reaches the store's bucket alone"
    for index, account in enumerate(items(node.get("serviceAccounts"))):
        if "-compute@developer" in str(within(account, "email")) or within(account, "email") == "default":
            rule = "the default account may edit the whole project"
            yield (*place, "serviceAccounts", index, "email"), rule, account["email"], "name one of its own"
