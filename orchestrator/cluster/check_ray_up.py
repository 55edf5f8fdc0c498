"""Rules for the files of `ray up`, whatever they start: Ray's schema, token, dashboard, scale, installation."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema

from orchestrator.cluster import check_aws, check_gcp, check_local
from orchestrator.cluster.findings import (
    OWN_MACHINE,
    SECRETS,
    UNKNOWN,
    Finding,
    gaps,
    image_findings,
    items,
    loose_installations,
    mapping,
    nearest,
    within,
)
from orchestrator.strict_yaml import Place

TOKEN = "~/.ray/auth_token"
LONGEST_IDLE = 60  # minutes that a machine may be paid for with nothing to do
STOP_SECONDS = 30  # the least time that a job needs to save its state
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
CREDENTIALS = (".ssh", ".aws", ".config/gcloud", ".netrc", ".kube", ".docker")  # folders of one's own, below home
PROVIDERS: dict[str, Callable[[dict[str, Any]], Iterator[Finding]]] = {
    "aws": check_aws.findings,
    "gcp": check_gcp.findings,
    "local": check_local.findings,
}


def read_otherwise(value: Any, as_1_1: Any, place: Place = ()) -> Iterator[Finding]:
    """Values that YAML 1.1, by which Ray reads its files, takes for something else than is written."""
    if isinstance(value, dict):
        if "<<" in value:
            yield (*place, "<<"), "merge keys are not supported", "<<", "write out what it stands for"
            return
        for (key, inner), (old_key, old_inner) in zip(value.items(), as_1_1.items(), strict=True):
            yield from read_otherwise(key, old_key, (*place, key))
            yield from read_otherwise(inner, old_inner, (*place, key))
    elif isinstance(value, list):
        for index, (inner, old_inner) in enumerate(zip(value, as_1_1, strict=True)):
            yield from read_otherwise(inner, old_inner, (*place, index))
    elif type(value) is not type(as_1_1) or value != as_1_1:
        yield place, f"Ray reads this as {as_1_1!r}, by YAML 1.1", value, "put it in quotes, or write it otherwise"


def findings(config: dict[str, Any]) -> Iterator[Finding]:
    """Everything wrong in a `ray up` file; only what its schema says where it does not have the shape of one."""
    broken = list(refused_by_ray(config))
    yield from broken
    yield from gaps(config)
    if any(rule != UNKNOWN for _, rule, _, _ in broken):
        return  # the others take its shape for granted
    kind = config["provider"]["type"]
    if str(kind) not in PROVIDERS:
        hint = nearest(str(kind), PROVIDERS)
        yield ("provider", "type"), "not a provider whose rules this knows", kind, hint
    for rules in (_token, _dashboard, _starts, _stops, _installs, _secrets):
        yield from rules(config)
    if kind != "local":
        yield from _scale(config)
    if kind in PROVIDERS:
        yield from PROVIDERS[kind](config)


def unseen(config: dict[str, Any]) -> str | None:
    """What cannot be looked at, for the cloud's own client, which knows its names, is not installed."""
    kind = within(config, "provider", "type")
    clients = {"aws": "botocore", "gcp": "googleapiclient"}
    if str(kind) not in clients or find_spec(clients[kind]) is not None:
        return None
    return f"the names in node_config are not looked at without the extra '{kind}': pip install '.[{kind}]'"


def refused_by_ray(config: dict[str, Any]) -> Iterator[Finding]:
    """What Ray's own schema refuses, unknown keys with the nearest valid one."""
    if numbers := list(_keys_no_text(config)):
        yield from numbers
        return  # a schema is for texts as keys
    for error in _validator(within(config, "provider", "type") == "local").iter_errors(config):
        place = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            valid = error.schema["properties"]
            for key in sorted(set(error.instance) - set(valid), key=str):
                yield (*place, key), UNKNOWN, key, nearest(str(key), valid)
        elif error.validator == "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            yield (*place, missing), "missing", None, "Ray's schema asks for it"
        else:
            yield place, f"Ray's schema refuses it: {error.message[:100]}", error.instance, "see the files in cluster/"


def _keys_no_text(value: Any, place: Place = ()) -> Iterator[Finding]:
    """Keys that are numbers, dates or nothing; a key in a cluster file is a name."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(items(value)):
        if isinstance(value, dict) and not isinstance(key, str):
            yield (*place, key), "a key is a text", key, "put it in quotes, or write it otherwise"
        yield from _keys_no_text(inner, (*place, key))


@cache
def _validator(local: bool) -> Any:
    """Ray's schema of a cluster file, read without loading Ray."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    schema = json.loads((Path(spec.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json").read_text())
    if local:
        schema["properties"]["min_workers"] = {"type": "integer", "minimum": 0}  # of local clusters alone
    return jsonschema.Draft7Validator(schema)


def _commands(config: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Every shell command of the file, those of single node types too, and where it stands."""
    for key in COMMANDS:
        yield from (((key, index), command) for index, command in enumerate(items(config.get(key))))
    for name, node in mapping(config.get("available_node_types")).items():
        for key in COMMANDS:
            there = ("available_node_types", name, key)
            yield from (((*there, index), command) for index, command in enumerate(items(within(node, key))))


def _started(config: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """The commands that start a Ray process."""
    return ((place, command) for place, command in _commands(config) if "ray start" in command)


def _token(config: dict[str, Any]) -> Iterator[Finding]:
    """Ray does not distribute its token, and asks for none unless each process that is started is told to."""
    if TOKEN not in mapping(config.get("file_mounts")):
        yield (
            ("file_mounts", TOKEN),
            "the token must be copied to every machine, for Ray does not distribute it",
            None,
            f"add {TOKEN}: {TOKEN}",
        )
    in_docker = "RAY_AUTH_MODE=token" in " ".join(map(str, items(within(config, "docker", "run_options"))))
    for place, command in _started(config):
        before = command.partition("ray start")[0]
        if not in_docker and not re.search(r"\bRAY_AUTH_MODE=token\b", before):
            mode = re.search(r"RAY_AUTH_MODE=\S*", command)
            rule = "whoever reaches this Ray can run code: it must ask for the token"
            yield place, rule, mode[0] if mode else None, "put export RAY_AUTH_MODE=token; before ray start"


def _dashboard(config: dict[str, Any]) -> Iterator[Finding]:
    """The dashboard, which takes jobs too, listens on its own machine alone."""
    for place, command in _started(config):
        for host in re.findall(r"--dashboard-host[= ]+(\S+)", command):
            if host.strip("'\"") not in OWN_MACHINE:
                rule = "the dashboard takes jobs, and must listen on its own machine alone"
                yield place, rule, host, "use --dashboard-host=127.0.0.1 and reach it by `ray dashboard FILE`"


def _starts(config: dict[str, Any]) -> Iterator[Finding]:
    """Both kinds of machines start Ray, by commands of this file rather than by Ray's, which open the dashboard."""
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        if not any("ray start" in command for command in items(config.get(key))):
            rule = "without a `ray start` of its own a file gets Ray's, which sets no token and opens the dashboard"
            yield (key,), rule, config.get(key), "copy that of this project's files in cluster/"
    for place, command in _started(config):
        if place[0] == "head_start_ray_commands" and "--autoscaling-config" not in command:
            rule = "the head would never start a worker"
            yield place, rule, None, "add --autoscaling-config=~/ray_bootstrap_config.yaml"


def _stops(config: dict[str, Any]) -> Iterator[Finding]:
    """A job that is stopped saves its state only where it gets SIGINT, and time."""
    for place, command in _started(config):
        if place[0] != "head_start_ray_commands":
            continue
        if "RAY_JOB_STOP_SIGNAL=SIGINT" not in command:
            rule = "a job that is stopped saves its state on SIGINT alone"
            yield place, rule, None, "put export RAY_JOB_STOP_SIGNAL=SIGINT; before ray start"
        wait = re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\S*?)[\s;&]", command)
        if not wait or not wait[1].isdigit() or int(wait[1]) < STOP_SECONDS:
            rule = f"a job that is stopped needs at least {STOP_SECONDS} s to save its state"
            yield place, rule, wait and wait[1], "put export RAY_JOB_STOP_WAIT_TIME_S=120; before ray start"


def _installs(config: dict[str, Any]) -> Iterator[Finding]:
    """What is installed is the same on every machine and on every day."""
    if config["provider"]["type"] != "local":
        for key, otherwise in (("setup_commands", "newest build"), ("head_setup_commands", "newest cloud client")):
            if key not in config:
                rule = f"missing: a file without it gets Ray's own, which install the {otherwise}"
                yield (key,), rule, None, "install from constraints.txt, as this project's files do"
    for key in ("image", "head_image", "worker_image"):
        yield from image_findings(within(config, "docker", key), ("docker", key))
    for place, command in _commands(config):
        for loose in loose_installations(command):
            yield (
                place,
                "what is installed must be pinned, or machines differ",
                loose,
                "add --constraint constraints.txt",
            )


def _secrets(config: dict[str, Any]) -> Iterator[Finding]:
    """No secret in the file, none of one's own keys on the machines."""
    for place, command in _commands(config):
        if found := SECRETS.search(command):
            yield place, "a secret must not stand in a file", found[1], "mount a file that only its owner reads"
    for remote, local in mapping(config.get("file_mounts")).items():
        if any(f"/{folder}" in f"/{local}/".replace("~", "").replace("//", "/") for folder in CREDENTIALS):
            rule = "keys of your own must not lie on the machines"
            yield ("file_mounts", remote), rule, local, "let the machines' own role reach the store"
    for key in ("aws_credentials", "gcp_credentials"):
        if key in config["provider"]:
            yield ("provider", key), "credentials must not stand in a file", "…", "use those of your shell"


def _scale(config: dict[str, Any]) -> Iterator[Finding]:
    """From nothing to a stated number of workers, and back when there is nothing to do."""
    types, head = mapping(config.get("available_node_types")), config.get("head_node_type")
    if not types:
        yield ("available_node_types",), "missing: Ray would take its own machine types", None, "state yours"
        return
    if head not in types:
        yield ("head_node_type",), "must be one of available_node_types", head, nearest(str(head), types)
    if "max_workers" not in config:
        yield ("max_workers",), "missing: Ray would start at most 2", None, "state how many may run at once"
    most = config.get("max_workers", 2)
    for name, node in types.items():
        here = ("available_node_types", name)
        least, own = node.get("min_workers", 0), node.get("max_workers", 0 if name == head else most)
        if own < least:
            rule = f"must be at least min_workers, {least}"
            yield (*here, "max_workers"), rule, own, "raise it, or lower min_workers"
        if name != head and min(own, most) == 0:
            rule = "machines of this type can never be started"
            key = (*here, "max_workers") if own == 0 else ("max_workers",)
            yield key, rule, 0, "raise max_workers, or remove the type"
        if name != head and not any(mapping(node["resources"]).values()):
            rule = "no pack can ever ask for this type: it offers nothing"
            yield (*here, "resources"), rule, node["resources"], "state CPU, and GPU where it has some"
    if (total := sum(node.get("min_workers", 0) for node in types.values())) > most:
        yield ("max_workers",), f"must be at least the sum of min_workers, {total}", most, "raise it"
    idle = config.get("idle_timeout_minutes")
    if idle is None or not 0 < idle <= LONGEST_IDLE:
        rule = f"machines with nothing to do must be given back, after more than 0 and at most {LONGEST_IDLE} minutes"
        yield ("idle_timeout_minutes",), rule, idle, "set idle_timeout_minutes: 5"
    if workers := {name: node for name, node in types.items() if name != head}:
        yield from _fallback(config["provider"]["type"], workers)
    else:
        yield ("available_node_types",), "no type of worker", None, "add one; the head is for the study's driver"


def _fallback(kind: str, workers: dict[str, Any]) -> Iterator[Finding]:
    """For each type that may be taken away or refused there is one that is not, and that is the second choice."""
    spot = {"aws": check_aws.spot, "gcp": check_gcp.spot}.get(kind)
    if spot is None:
        return
    certain = [node for node in workers.values() if not spot(node["node_config"])]
    for name, node in workers.items():
        if not spot(node["node_config"]):
            continue
        wanted = node["resources"]
        enough = [one for one in certain if all(one["resources"].get(key, 0) >= wanted[key] for key in wanted)]
        if not enough:
            rule = "when no spot machine is to be had, nothing would run"
            yield ("available_node_types", name), rule, None, "add an on-demand type with the same resources"
        elif node.get("priority", 0) <= (dearest := max(one.get("priority", 0) for one in enough)):
            rule = f"must be above {dearest}, that of the dearer on-demand type, or Ray may start that first"
            yield ("available_node_types", name, "priority"), rule, node.get("priority"), "raise it"
