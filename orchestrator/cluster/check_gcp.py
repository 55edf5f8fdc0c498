"""Rules for clusters on Google Cloud, whose `node_config` is what Compute Engine's instances.insert takes."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.cluster.findings import Finding, is_gap, items, mapping, nearest, unknown_keys, within
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
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "boolean": (bool,), "number": (int, float)}
LONG = ("int64", "uint64")  # the formats of what Google calls text and takes as a whole number


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
    yield from _model(node, place)
    for key in ("machineType", "disks"):
        if not node.get(key):
            yield (*place, key), "missing: Google asks for it", node.get(key), "name your own"
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


def _model(node: dict[str, Any], place: Place) -> Iterator[Finding]:
    """What Compute Engine itself would refuse, by Google's description of it; nothing where its client is missing."""
    if find_spec("googleapiclient") is not None:
        rest = {key: value for key, value in node.items() if key != "sourceInstanceTemplate"}  # beside the instance
        yield from _shaped(rest, _schemas()["Instance"], place)


@cache
def _schemas() -> dict[str, Any]:
    """Google's own description of Compute Engine's values, which its client has with it."""
    client = find_spec("googleapiclient")
    assert client is not None
    assert client.submodule_search_locations is not None
    documents = Path(client.submodule_search_locations[0]) / "discovery_cache" / "documents"
    described: dict[str, Any] = json.loads((documents / "compute.v1.json").read_text(encoding="utf-8"))
    schemas: dict[str, Any] = described["schemas"]
    return schemas


def _shaped(value: Any, schema: Any, place: Place) -> Iterator[Finding]:
    """Where a value has not the shape, in Google's description, that it is to have."""
    schema = _schemas()[schema["$ref"]] if "$ref" in schema else schema
    kind = schema["type"]
    if kind == "object" and isinstance(value, dict):
        inner = schema.get("properties", {})
        if "additionalProperties" not in schema:
            yield from unknown_keys(value, list(inner), place)
        for key in value:
            if (known := inner.get(key, schema.get("additionalProperties"))) is not None:
                yield from _shaped(value[key], known, (*place, key))
    elif kind == "array" and isinstance(value, list):
        for index, one in enumerate(value):
            yield from _shaped(one, schema["items"], (*place, index))
    elif type(value) not in TYPES.get(kind, ()) and not (schema.get("format") in LONG and type(value) is int):
        yield place, f"must be of type {kind}", value, "see Compute Engine's instances.insert"
    elif "enum" in schema and value not in schema["enum"] and not is_gap(value):
        yield place, "not a value that Compute Engine knows", value, nearest(str(value), schema["enum"])
