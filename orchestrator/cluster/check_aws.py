"""Rules for clusters on AWS, whose `node_config` is what EC2's RunInstances takes, with botocore's model of it."""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

from orchestrator.cluster.findings import Finding, is_gap, items, mapping, nearest, unknown_keys, within
from orchestrator.strict_yaml import Place

PROVIDER = (
    "type",
    "region",
    "availability_zone",
    "use_internal_ips",
    "use_external_head_ip",
    "cache_stopped_nodes",
    "security_group",
    "key_pair",
    "cloudwatch",
    "aws_credentials",
)
WORLD = ("0.0.0.0/0", "::/0")
TYPES = {"string": str, "integer": int, "long": int, "boolean": bool, "float": float, "double": float, "timestamp": str}


def spot(node_config: dict[str, Any]) -> bool:
    """Whether these machines may be taken away at any time."""
    market: str | None = within(node_config, "InstanceMarketOptions", "MarketType")
    return market == "spot"


def findings(config: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong or unsafe in a file for AWS."""
    provider, head = config["provider"], config.get("head_node_type")
    yield from unknown_keys(provider, PROVIDER, ("provider",))
    if not provider.get("region"):
        yield ("provider", "region"), "missing: Ray would start its machines in us-west-2", None, "name your region"
    if provider.get("use_internal_ips") is not True:
        rule = "workers must have no public address, and without this Ray takes only subnets that give them one"
        yield ("provider", "use_internal_ips"), rule, provider.get("use_internal_ips"), "set it to true"
    for index, rule_in in enumerate(items(within(provider, "security_group", "IpPermissions"))):
        yield from _open(rule_in, ("provider", "security_group", "IpPermissions", index))
    if not config.get("auth", {}).get("ssh_private_key"):
        rule = "missing: Ray would make a key pair of its own in your account"
        yield ("auth", "ssh_private_key"), rule, None, "name the file of the key pair that KeyName names"
    for name, node in mapping(config.get("available_node_types")).items():
        place = ("available_node_types", name, "node_config")
        yield from _machine(node["node_config"], place, name != head)
    yield from _model(config)


def _open(permission: Any, place: Place) -> Iterator[Finding]:
    for ranges, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
        for index, one in enumerate(items(within(permission, ranges))):
            if within(one, key) in WORLD:
                rule = "the whole world could connect"
                yield (*place, ranges, index, key), rule, one[key], "name the range that you connect from"


def _machine(node: dict[str, Any], place: Place, worker: bool) -> Iterator[Finding]:
    """What is unsafe in one type's `node_config`, or would be filled in by Ray with what is."""
    wires = [(index, mapping(wire)) for index, wire in enumerate(items(node.get("NetworkInterfaces")))]
    wanted = {
        "InstanceType": "AWS would start an m1.small",
        "ImageId": "Ray would take an image of 2022",
        "KeyName": "Ray asks for it where ssh_private_key is given",
        "IamInstanceProfile": "Ray would give its head full access to EC2 and S3, and workers none to the store",
    }
    if not wires:
        wanted["SubnetIds"] = "Ray would take any, such as public ones"
        wanted["SecurityGroupIds"] = "Ray would make a group that opens ssh to the whole world"
    for key, otherwise in wanted.items():
        if not node.get(key):
            yield (*place, key), f"missing: {otherwise}", node.get(key), "name your own"
    for key, instead in (("SubnetId", "SubnetIds"), ("SecurityGroups", "SecurityGroupIds")):
        if key in node:
            yield (*place, key), "Ray does not read this, and chooses itself", node[key], f"use {instead}"
    if "LaunchTemplate" in node:
        yield (*place, "LaunchTemplate"), "what it holds cannot be seen here", node["LaunchTemplate"], "write it out"
    for index, wire in wires:
        here = (*place, "NetworkInterfaces", index)
        if worker and wire.get("AssociatePublicIpAddress") is True:
            rule = "workers must have no public address"
            yield (*here, "AssociatePublicIpAddress"), rule, True, "set it to false"
        for key in ("SubnetId", "Groups"):
            if not wire.get(key):
                yield (*here, key), "Ray asks for it on every network interface", wire.get(key), "name your own"
    for key in ("SubnetId", "SubnetIds", "SecurityGroupIds"):
        if wires and key in node:
            yield (*place, key), "Ray refuses this beside NetworkInterfaces", node[key], "remove one of them"
    tokens = within(node, "MetadataOptions", "HttpTokens")
    if tokens != "required":
        rule = "the machine's role must not be had without a token (IMDSv2)"
        yield (*place, "MetadataOptions", "HttpTokens"), rule, tokens, "set it to required"
    volumes = items(node.get("BlockDeviceMappings"))
    if not volumes:
        rule = "missing: the image's own volume is not encrypted"
        yield (*place, "BlockDeviceMappings"), rule, None, "list the root volume with Encrypted: true"
    for index, volume in enumerate(volumes):
        if (disk := mapping(within(volume, "Ebs"))) and disk.get("Encrypted") is not True:
            where = (*place, "BlockDeviceMappings", index, "Ebs", "Encrypted")
            yield where, "volumes must be encrypted", disk.get("Encrypted"), "set it to true"


def _model(config: dict[str, Any]) -> Iterator[Finding]:
    """What EC2 itself would refuse, by botocore's model of it; nothing where botocore is not installed."""
    if find_spec("botocore") is None:
        return
    shape, regions = _ec2()
    region = config["provider"].get("region")
    if region and region not in regions and not is_gap(region):
        yield ("provider", "region"), "not a region", region, nearest(str(region), regions)
    for name, node in mapping(config.get("available_node_types")).items():
        place = ("available_node_types", name, "node_config")
        subnets = node["node_config"].get("SubnetIds", [])
        if not isinstance(subnets, list) or not all(isinstance(subnet, str) for subnet in subnets):
            yield (*place, "SubnetIds"), "must be a list of ids", subnets, "write [subnet-…]"
        rest = {key: value for key, value in node["node_config"].items() if key != "SubnetIds"}
        yield from _shaped(rest, shape, place)


@cache
def _ec2() -> tuple[Any, list[str]]:
    """The shape of what RunInstances takes, and the names of all regions."""
    from botocore.session import Session

    session = Session()
    parts = session.get_available_partitions()
    regions = [name for part in parts for name in session.get_available_regions("ec2", part)]
    return session.get_service_model("ec2").operation_model("RunInstances").input_shape, regions


def _shaped(value: Any, shape: Any, place: Place) -> Iterator[Finding]:
    """Where a value has not the shape, in botocore's model, that it is to have."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        yield from unknown_keys(value, list(shape.members), place)
        for key in [key for key in value if key in shape.members]:
            yield from _shaped(value[key], shape.members[key], (*place, key))
    elif kind == "list" and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _shaped(inner, shape.member, (*place, index))
    elif kind in ("structure", "list"):
        yield place, f"must be a {'mapping' if kind == 'structure' else 'list'}", value, "see EC2's RunInstances"
    elif kind in TYPES and type(value) is not TYPES[kind]:
        yield place, f"must be of type {kind}", value, "see EC2's RunInstances"
    elif getattr(shape, "enum", None) and value not in shape.enum and not is_gap(value):
        yield place, "not a value that EC2 knows", value, nearest(str(value), shape.enum)
