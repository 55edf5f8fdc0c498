"""`idenctl cluster check`: the shipped files are clean but for what is to be filled in; what spoils one is found."""

import json
import sys
from pathlib import Path

import pytest
from conftest import changed, idenctl

from orchestrator import strict_yaml
from orchestrator.cluster import check_kuberay, check_ray_up
from orchestrator.cluster.check import check
from orchestrator.cluster.findings import LEFT, leaves
from orchestrator.prices import device_price

FILES = Path(__file__).parent.parent / "cluster"
NAMES = ["gpu.yaml", "gcp.yaml", "local.yaml", "kuberay.yaml", "slurm.sh"]

HEAD, SPOT, DEMAND = (f"available_node_types.{name}" for name in ("head", "gpu-spot", "gpu-on-demand"))
MACHINE = f"{HEAD}.node_config"
DISK = f"{MACHINE}.BlockDeviceMappings.0.Ebs"
WIRE = f"{SPOT}.node_config.NetworkInterfaces.0"
START, WORKER = "head_start_ray_commands.1", "worker_start_ray_commands.1"
GROUP = "provider.security_group.IpPermissions.0"
POD = "spec.headGroupSpec.template.spec.containers.0"

IMDS = "the machine's role must not be had without a token"
IDLE = "machines with nothing to do must be given back"
OPEN = "whoever reaches this Ray can run code"
LOOSE = "what is installed must be pinned"
DASHBOARD = "the dashboard takes jobs"
WORLD = "the whole world could connect"
PRIVATE = "workers must have no public address"
KEYS = "keys of your own must not lie on the machines"
UNKNOWN = "unknown key"

REGION = "  region: us-west-2\n"
IMAGE = "ImageId: FILL_IN_UBUNTU_IMAGE"
INSIDE = "SecurityGroupIds: [FILL_IN_CLUSTER_GROUP, FILL_IN_SSH_GROUP]"
NETWORK = "NetworkInterfaces: [{DeviceIndex: 0, SubnetId: s, Groups: [g]}]"
PUBLIC = NETWORK.replace("}]", ", AssociatePublicIpAddress: true}]\n")
TOKEN = "  ~/.ray/auth_token: ~/.ray/auth_token\n"
PIP = ".venv/bin/python -m pip install --quiet --constraint constraints.txt '.[aws]'"
ASKS = "export RAY_AUTH_MODE=token RAY_JOB_STOP_SIGNAL=SIGINT RAY_JOB_STOP_WAIT_TIME_S=120;"
JOINS = "unset OMP_NUM_THREADS; export RAY_AUTH_MODE=token;\n"
LISTENS = "--dashboard-host=127.0.0.1"
ON_DEMAND = "  gpu-on-demand:  # where spot is not to be had\n    resources: {CPU: 4, GPU: 1}"
WORKERS = (
    "SubnetIds: [FILL_IN_PRIVATE_SUBNET]  # more than one: tried in this order\n"
    "      SecurityGroupIds: [FILL_IN_CLUSTER_GROUP]\n"
)
ASKED = "MetadataOptions: {HttpTokens: required, HttpPutResponseHopLimit: 1}\n"
VOLUME = """BlockDeviceMappings:
        - DeviceName: /dev/sda1
          Ebs: {VolumeSize: 40, VolumeType: gp3, Encrypted: true, DeleteOnTermination: true}"""
SAFE = f"{ASKED}      {VOLUME}"

# what stands in cluster/gpu.yaml: (what is written instead, the key that is named, how the rule begins)
GPU = {
    REGION: [
        ("", "provider.region", "missing: Ray would start its machines in us-west-2"),
        ("  region: us-wset-2\n", "provider.region", "not a region"),
        (f"{REGION}  regoin: x\n", "provider.regoin", UNKNOWN),
        (f"{REGION}{REGION}", "", "the key 'region' is given twice"),
        ("\tregion: us-west-2\n", "", "not YAML"),
        (
            f"{REGION}  security_group: {{IpPermissions: [{{IpRanges: [{{CidrIp: 0.0.0.0/0}}]}}]}}\n",
            f"{GROUP}.IpRanges.0.CidrIp",
            WORLD,
        ),
        (
            f"{REGION}  security_group: {{IpPermissions: [{{Ipv6Ranges: [{{CidrIpv6: '::/0'}}]}}]}}\n",
            f"{GROUP}.Ipv6Ranges.0.CidrIpv6",
            WORLD,
        ),
        (f"{REGION}  aws_credentials: {{a: b}}\n", "provider.aws_credentials", "credentials must not stand in a file"),
    ],
    "  type: aws\n": [
        ("  type: awz\n", "provider.type", "not a provider whose rules this knows"),
        ("  type: gcp\n", "provider.project_id", "missing: Google asks for it"),
        ("", "provider.type", "missing"),
    ],
    "use_internal_ips: true ": [("use_internal_ips: false ", "provider.use_internal_ips", PRIVATE)],
    "  ssh_private_key: ~/.ssh/idenctl.pem": [("", "auth.ssh_private_key", "missing: Ray would make a key pair")],
    "cluster_name: idenctl-gpu": [
        ("cluster_name: no", "cluster_name", "Ray reads this as False"),
        ("cluster_name: 2026-01-01", "cluster_name", "Ray reads this as datetime.date(2026, 1, 1)"),
        ("cluster_name: 2026-13-01", "", "not YAML"),
        ("cluster_nam: idenctl-gpu", "cluster_nam", UNKNOWN),
        ("cluster_name: *name", "", "not YAML"),
    ],
    "max_workers: 8  # of both types": [
        ("max_workers: 0  #", "max_workers", "machines of this type can never be started"),
        ("max_workers: 1:30  #", "max_workers", "Ray reads this as 90"),
        ("#", "max_workers", "missing: Ray would start at most 2"),
    ],
    "idle_timeout_minutes: 5": [
        ("", "idle_timeout_minutes", IDLE),
        ("idle_timeout_minutes: 0", "idle_timeout_minutes", IDLE),
        ("idle_timeout_minutes: 600", "idle_timeout_minutes", IDLE),
    ],
    "head_node_type: head": [("head_node_type: haed", "head_node_type", "must be one of available_node_types")],
    "      InstanceType: t3.large\n": [
        ("", f"{MACHINE}.InstanceType", "missing: AWS would start an m1.small"),
        ("      InstanceType: t3.lrage\n", f"{MACHINE}.InstanceType", "not a value that EC2 knows"),
        ("      InstanceType: [t3.large]\n", f"{MACHINE}.InstanceType", "must be of type string"),
        ("      Instancetype: t3.large\n", f"{MACHINE}.Instancetype", UNKNOWN),
    ],
    IMAGE: [
        (f"UserDat: x\n      {IMAGE}", f"{MACHINE}.UserDat", UNKNOWN),
        (f"SubnetId: s\n      {IMAGE}", f"{MACHINE}.SubnetId", "Ray does not read this"),
        (f"SecurityGroups: [s]\n      {IMAGE}", f"{MACHINE}.SecurityGroups", "Ray does not read this"),
        (f"LaunchTemplate: {{}}\n      {IMAGE}", f"{MACHINE}.LaunchTemplate", "what it holds cannot be seen"),
        ("", f"{MACHINE}.ImageId", "missing: Ray would take an image of 2022"),
    ],
    "SubnetIds: [FILL_IN_PUBLIC_SUBNET]": [
        ("", f"{MACHINE}.SubnetIds", "missing: Ray would take any, such as public ones"),
        ("SubnetIds: FILL_IN_PUBLIC_SUBNET", f"{MACHINE}.SubnetIds", "must be a list of ids"),
        (f"SubnetIds: [s]\n      {NETWORK}", f"{MACHINE}.SubnetIds", "Ray refuses this beside NetworkInterfaces"),
    ],
    INSIDE: [("", f"{MACHINE}.SecurityGroupIds", "missing: Ray would make a group that opens ssh to the whole world")],
    "IamInstanceProfile: {Name: idenctl-head}": [
        ("", f"{MACHINE}.IamInstanceProfile", "missing: Ray would give its head full access to EC2 and S3"),
        ("IamInstanceProfile: {name: idenctl-head}", f"{MACHINE}.IamInstanceProfile.name", UNKNOWN),
        ("IamInstanceProfile: idenctl-head", f"{MACHINE}.IamInstanceProfile", "must be a mapping"),
    ],
    SAFE: [
        (SAFE.replace("required", "optional"), f"{MACHINE}.MetadataOptions.HttpTokens", IMDS),
        (VOLUME, f"{MACHINE}.MetadataOptions.HttpTokens", IMDS),
        (ASKED, f"{MACHINE}.BlockDeviceMappings", "missing: the image's own volume is not encrypted"),
        (SAFE.replace("Encrypted: true", "Encrypted: false"), f"{DISK}.Encrypted", "volumes must be encrypted"),
        (SAFE.replace("Encrypted: true", "Encrypted: yes"), f"{DISK}.Encrypted", "must be of type boolean"),
        (SAFE.replace("Encrypted: true", "encrypted: true"), f"{DISK}.encrypted", UNKNOWN),
        (SAFE.replace("gp3", "gp33"), f"{DISK}.VolumeType", "not a value that EC2 knows"),
    ],
    WORKERS: [
        (PUBLIC, f"{WIRE}.AssociatePublicIpAddress", PRIVATE),
        (NETWORK.replace(", Groups: [g]", "") + "\n", f"{WIRE}.Groups", "Ray asks for it on every network interface"),
    ],
    "    priority: 1  # taken first": [
        ("    # taken first", f"{SPOT}.priority", "must be above 0, that of the dearer on-demand type"),
        ("    min_worker: 1\n    priority: 1  # taken first", f"{SPOT}.min_worker", UNKNOWN),
    ],
    '    labels: {price-per-hour: "0.80"}': [
        ("    labels: {price-per-hour: 0.80}", f"{DEMAND}.labels.price-per-hour", "Ray's schema refuses it"),
        ("    initialization_commands: [pip install ray]", f"{DEMAND}.initialization_commands.0", LOOSE),
    ],
    ON_DEMAND: [
        ("  gpu-on-demand:\n    resources: {CPU: 4}", SPOT, "when no spot machine is to be had, nothing would run"),
        ("  gpu-on-demand:\n    resources: {}", f"{DEMAND}.resources", "no pack can ever ask for this type"),
        ("  gpu-on-demand:\n    resources: {GPU: '1'}", f"{DEMAND}.resources.GPU", "Ray's schema refuses it"),
    ],
    TOKEN: [
        ("", "file_mounts.~/.ray/auth_token", "the token must be copied to every machine"),
        (f"{TOKEN}  ~/.aws: ~/.aws\n", "file_mounts.~/.aws", KEYS),
        (f"{TOKEN}  ~/key: ~/.ssh/id_ed25519\n", "file_mounts.~/key", KEYS),
    ],
    PIP: [
        (".venv/bin/python -m pip install '.[aws]'", "setup_commands.2", LOOSE),
        (".venv/bin/pip install --upgrade ray torch==2.13.0", "setup_commands.2", LOOSE),
        ("uv pip install ray", "setup_commands.2", LOOSE),
        ("curl -L example.org/get | sudo bash", "setup_commands.2", LOOSE),
    ],
    "head_setup_commands: []": [("", "head_setup_commands", "missing: a file without it gets Ray's own")],
    ASKS: [
        (ASKS.replace("RAY_AUTH_MODE=token ", ""), START, OPEN),
        (ASKS.replace("token", "disabled"), START, OPEN),
        (ASKS.replace("RAY_JOB_STOP_SIGNAL=SIGINT ", ""), START, "a job that is stopped saves its state on SIGINT"),
        (ASKS.replace("=120", "=3"), START, "a job that is stopped needs at least 30 s"),
        (f"{ASKS} export RAY_AUTH_TOKEN=secret;", START, "a secret must not stand in a file"),
    ],
    JOINS: [
        ("unset OMP_NUM_THREADS;\n", WORKER, OPEN),
        ("ray start --address=$RAY_HEAD_IP:6379; export RAY_AUTH_MODE=token;\n", WORKER, OPEN),
    ],
    LISTENS: [("--dashboard-host=0.0.0.0", START, DASHBOARD), ("--dashboard-host '::'", START, DASHBOARD)],
    "--autoscaling-config=~/ray_bootstrap_config.yaml": [("", START, "the head would never start a worker")],
    "worker_start_ray_commands:\n": [("unused:\n", "worker_start_ray_commands", "without a `ray start` of its own")],
}
STORE = '- {name: IDENCTL_STORE, value: "s3://FILL_IN_BUCKET/idenctl"}\n              - {name: RAY_JOB'
IN_ENV = STORE.replace("{name: RAY_JOB", "{name: RAY_AUTH_TOKEN, value: abc}\n              - {name: RAY_JOB")
AUTH = "  authOptions: {mode: token, secretName: idenctl-token}\n"
RAY_IMAGE = "name: ray-head\n            image: FILL_IN_REGISTRY/idenctl:1"

# the same for the others: (what stands in the file, what is written instead, the key, how the rule begins)
OTHERS = {
    "local.yaml": [
        ("RAY_enable_autoscaler_v2=0 ", "", START, "Ray's autoscaler v2 never contacts the workers"),
        ("RAY_AUTH_MODE=token RAY_JOB", "RAY_JOB", START, OPEN),
        ("export RAY_AUTH_MODE=token;\n", "\n", WORKER, OPEN),
        (TOKEN, "", "file_mounts.~/.ray/auth_token", "the token must be copied"),
        ("[FILL_IN_WORKER_ADDRESS]", "[a, a]", "provider.worker_ips", "a machine must be named once"),
        ("[FILL_IN_WORKER_ADDRESS]", "[]", "provider.worker_ips", "no worker is named"),
        ("FILL_IN_HEAD_ADDRESS", "127.0.0.1", "provider.head_ip", "the workers cannot reach this address"),
        ("  head_ip: FILL_IN_HEAD_ADDRESS\n", "", "provider.head_ip", "the head's address is missing"),
        ("  head_ip:", "  head_up: x\n  head_ip:", "provider.head_up", UNKNOWN),
        ("cluster_name:", "max_workers: 5\ncluster_name:", "max_workers", "must be the number of worker_ips, 1"),
        ("  ssh_private_key: ~/.ssh/FILL_IN_KEY\n", "", "auth.ssh_private_key", "missing: the machines are reached"),
    ],
    "gcp.yaml": [
        ("  project_id: FILL_IN_PROJECT\n", "", "provider.project_id", "missing: Google asks for it"),
        ("zone: us-central1-a", "zone: us-east1-a", "provider.availability_zone", "must be one of the region"),
        ("use_internal_ips: true ", "use_internal_ips: false ", "provider.use_internal_ips", PRIVATE),
        ("machineType: e2", "machinetype: e2", f"{MACHINE}.machinetype", UNKNOWN),
        ("  ssh_private_key: ~/.ssh/idenctl", "", "auth.ssh_private_key", "missing: Ray would put a key of its own"),
        ("Model: SPOT", "Model: SPOTT", f"{SPOT}.node_config.scheduling.provisioningModel", "not a value that"),
        ("tags: {items: [idenctl-head]}", "tags: [x]", f"{MACHINE}.tags", "must be of type object"),
        ("diskSizeGb: 40", "diskSize: 40", f"{MACHINE}.disks.0.initializeParams.diskSize", UNKNOWN),
        ("    priority: 1  #", "    #", f"{SPOT}.priority", "must be above 0"),
    ],
    "kuberay.yaml": [
        ("mode: token", "mode: disabled", "spec.authOptions.mode", OPEN),
        ("mode: token", "mood: token", "spec.authOptions.mood", UNKNOWN),
        (AUTH, "", "spec.authOptions.mode", OPEN),
        ("  rayVersion: 2.60.0\n", "", "spec.rayVersion", "missing"),
        ("serviceType: ClusterIP", "serviceType: LoadBalancer", "spec.headGroupSpec.serviceType", "the head must be"),
        ("serviceType: ClusterIP", "enableIngress: true", "spec.headGroupSpec.enableIngress", DASHBOARD),
        ("maxReplicas: 8", "maxReplicas: 0", "spec.workerGroupSpecs.0.maxReplicas", "must be at least minReplicas"),
        ("maxReplicas: 8", "maxReplicaz: 8", "spec.workerGroupSpecs.0.maxReplicaz", UNKNOWN),
        (", idleTimeoutSeconds: 300", ", version: v2", "", "the key 'version' is given twice"),
        (", idleTimeoutSeconds: 300", "", "spec.autoscalerOptions.idleTimeoutSeconds", "workers with nothing to do"),
        ("Autoscaling: true", "Autoscaling: false", "spec.enableInTreeAutoscaling", "workers must come as they are"),
        ("value: SIGINT", "value: SIGTERM", f"{POD}.env", "a job that is stopped saves its state only"),
        (RAY_IMAGE, "name: head\n            image: rayproject/ray", f"{POD}.image", "an image must be pinned"),
        (STORE, IN_ENV, f"{POD}.env.1.value", "a secret must not stand in a file"),
        ("kind: NetworkPolicy", "kind: Secret", "kind", "a token must not stand in a file"),
        ("clusterSelector: {ray.io/cluster: idenctl}", "suspend: false", "spec.clusterSelector", "missing: neither"),
        ("  entrypoint:", "  entrypoint_:", "spec.entrypoint", "missing: there is nothing to run"),
    ],
    "slurm.sh": [
        ("export RAY_AUTH_MODE=token RAY", "export RAY", "", OPEN),
        (" RAY_AUTH_TOKEN_PATH=~/.ray/slurm-$SLURM_JOB_ID", "", "", "the nodes must find the token in a file"),
        ("umask 077\n", "", "", "nobody else may read the token"),
        ("set -euo pipefail", "export RAY_AUTH_TOKEN=abc", "", "a secret in the environment"),
        ("--include-dashboard=false", "--dashboard-host=0.0.0.0", "", DASHBOARD),
        ("#SBATCH --signal=B:INT@300\n", "", "", "#SBATCH --signal must be given"),
        ("#SBATCH --time=08:00:00\n", "", "", "#SBATCH --time must be given"),
        ("set -euo pipefail", "pip install ray", "", LOOSE),
    ],
}
CASES = [
    *(("gpu.yaml", old, *case) for old, cases in GPU.items() for case in cases),
    *((name, *case) for name, cases in OTHERS.items() for case in cases),
]


def problems(file, text):
    file.write_text(text)
    return [problem for problem in check(file).problems if problem.rule != LEFT]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_clean_but_for_what_is_to_be_filled_in(name):
    left = check(FILES / name).problems
    assert left
    assert {problem.rule for problem in left} == {LEFT}
    lines = (FILES / name).read_text().splitlines()
    for problem in left:
        line = int(problem.place.rpartition(":")[2])
        assert any(problem.value in text for text in lines[line - 1 : line + 4])  # a command has several


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_filled_in_has_nothing_wrong(name, tmp_path):
    file = tmp_path / name
    file.write_text((FILES / name).read_text().replace("FILL_IN_", "own-"))
    done = idenctl("cluster", "check", file)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("nothing wrong\n")


@pytest.mark.parametrize(("name", "old", "new", "key", "rule"), CASES)
def test_what_spoils_a_file_is_found_with_its_key(name, old, new, key, rule, tmp_path):
    found = problems(tmp_path / name, changed((FILES / name).read_text(), old, new))
    assert [problem for problem in found if problem.key == key and problem.rule.startswith(rule)], found


def test_a_problem_is_one_line_with_place_rule_value_and_next_step(tmp_path):
    file = tmp_path / "gpu.yaml"
    file.write_text(changed((FILES / "gpu.yaml").read_text(), "max_workers: 8  #", "max_wokers: 8  #"))
    done = idenctl("cluster", "check", file)
    assert done.returncode == 2
    line = f"{file}:20: max_wokers: unknown key, got 'max_wokers'; did you mean 'max_workers'?"
    assert line in done.stdout.splitlines()
    told = json.loads(idenctl("cluster", "check", file, "--json").stdout)
    assert told["kind"] == "ray up"
    assert told["problems"][0] == {
        "place": f"{file}:1",
        "key": "max_workers",
        "rule": "missing: Ray would start at most 2",
        "value": None,
        "next": "state how many may run at once",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no cluster file "),
        ("", "not a cluster file that this knows"),
        ("name: small\n", "not a cluster file that this knows"),
        ("#!/bin/sh\nls\n", "each part of a cluster file is a mapping"),
        ("- a\n", "each part of a cluster file is a mapping"),
    ],
)
def test_what_is_no_cluster_file_is_told_so(text, message, tmp_path):
    file = tmp_path / "file.yaml"
    if text is not None:
        file.write_text(text)
    done = idenctl("cluster", "check", file)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "client"), [("gpu.yaml", "botocore"), ("gcp.yaml", "googleapiclient")])
def test_without_the_clouds_client_the_rest_is_checked_and_it_is_said(name, client, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, client, None)
    file = tmp_path / name
    file.write_text(changed((FILES / name).read_text(), "head_node_type: head", "head_node_type: none"))
    done = idenctl("cluster", "check", file)
    assert done.returncode == 2
    assert done.stderr.count("pip install '.[") == 1
    assert "head_node_type: must be one of available_node_types, got 'none'" in done.stdout


def replaced(value, place, new):
    """A copy of nested mappings and lists with another value in one place."""
    if not place:
        return new
    if isinstance(value, dict):
        return {key: replaced(inner, place[1:], new) if key == place[0] else inner for key, inner in value.items()}
    return [replaced(inner, place[1:], new) if index == place[0] else inner for index, inner in enumerate(value)]


@pytest.mark.parametrize("name", ["gpu.yaml", "gcp.yaml", "local.yaml", "kuberay.yaml"])
def test_no_shape_of_a_file_breaks_the_rules(name):
    parts = [strict_yaml.read(text, "file")[0] for text in (FILES / name).read_text().split("\n---\n")]
    kuberay = name == "kuberay.yaml"
    tried = 0
    for number, part in enumerate(parts):
        for place, _ in leaves(part):
            for new in (None, 7, "text", [7], {"a": 7}, {7: 7}):
                spoilt = replaced(part, place, new)
                list(check_kuberay.findings({number: spoilt}) if kuberay else check_ray_up.findings(spoilt))
                tried += 1
    assert tried > 100


@pytest.mark.parametrize(("name", "kind"), [("kuberay.yaml", "KubeRay"), ("slurm.sh", "Slurm")])
def test_a_file_without_prices_is_told_by_its_kind(name, kind):
    with pytest.raises(ValueError, match=f"{name}: a file for `ray up` states prices, got one for {kind}; give"):
        device_price(FILES / name, "gpu")


def test_a_cluster_file_that_is_no_text_is_refused_in_one_line_by_check_and_by_down(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_bytes(b"\xff\xfe")
    for command in ("check", "down"):
        ended = idenctl("cluster", command, file)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"error: {file}: a cluster file is text in UTF-8; save it so\n"


def test_a_folder_is_not_proposed_as_the_cluster_file_that_it_is_not(tmp_path):
    (tmp_path / "gpu.yaml").mkdir()
    ended = idenctl("cluster", "check", tmp_path / "gpu.yaml")
    assert (ended.returncode, ended.stderr.count("did you mean")) == (2, 0)
