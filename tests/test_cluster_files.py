"""What Ray's own schema, bootstrapping, machines and scheduler make of the shipped cluster files; moto plays AWS.

Beside each claim about ours stands what Ray's default file does, in the same account, by the same code.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import boto3
import botocore.client
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws import config as ray_on_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.gcp import config as ray_on_google
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from orchestrator.prices import device_price

FILES = Path(__file__).parent.parent / "cluster"
REGION = "us-west-2"
DEFAULT = {"cluster_name": "default", "provider": {"type": "aws", "region": REGION}, "auth": {"ssh_user": "ubuntu"}}
FULL_ACCESS = {"AmazonEC2FullAccess", "AmazonS3FullAccess"}


def prepared(config):
    """A file's content with Ray's defaults, which Ray's schema accepts."""
    whole = prepare_config(config)
    validate_config(whole)
    return whole


def filled(name, words):
    text = (FILES / name).read_text()
    for word, value in words.items():
        text = text.replace(word, value)
    assert "FILL_IN_" not in text
    return text


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account as docs/how-to/cluster.md has one make it: the ids for the file's placeholders."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "moto")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "moto")
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setattr(ray_on_aws.time, "sleep", lambda seconds: None)  # 15 s twice, for AWS to know a new role
    with mock_aws():
        ec2, iam = boto3.client("ec2", REGION), boto3.client("iam", REGION)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        public, private = (
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{part}.0/24")["Subnet"]["SubnetId"] for part in (0, 1)
        )
        ec2.modify_subnet_attribute(SubnetId=public, MapPublicIpOnLaunch={"Value": True})
        inside, ssh = (
            ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
            for name in ("idenctl", "idenctl-ssh")
        )
        ec2.create_key_pair(KeyName="idenctl")
        for role in ("idenctl-head", "idenctl-worker"):
            iam.create_instance_profile(InstanceProfileName=role)
        images = [image["ImageId"] for image in ec2.describe_images()["Images"]]
        yield {
            "FILL_IN_UBUNTU_IMAGE": images[0],
            "FILL_IN_GPU_IMAGE": images[1],
            "FILL_IN_PUBLIC_SUBNET": public,
            "FILL_IN_PRIVATE_SUBNET": private,
            "FILL_IN_CLUSTER_GROUP": inside,
            "FILL_IN_SSH_GROUP": ssh,
            "FILL_IN_BUCKET": "faces",
        }
    monkeypatch.undo()


@pytest.fixture
def ours(account):
    return prepared(yaml.safe_load(filled("gpu.yaml", account)))


@pytest.fixture
def calls(monkeypatch):
    """The names of the calls that reach AWS, as they are made."""
    made = []
    call = botocore.client.BaseClient._make_api_call

    def noted(client, operation, arguments):
        made.append(f"{client.meta.service_model.service_name}:{operation}")
        return call(client, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noted)
    return made


def open_to_the_world():
    groups = boto3.client("ec2", REGION).describe_security_groups()["SecurityGroups"]
    return {
        group["GroupName"]
        for group in groups
        for rule in group["IpPermissions"]
        if {"CidrIp": "0.0.0.0/0"} in rule["IpRanges"] or {"CidrIpv6": "::/0"} in rule["Ipv6Ranges"]
    }


def policies_attached():
    iam = boto3.client("iam", REGION)
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    attached = [iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] for role in roles]
    return {policy["PolicyName"] for policies in attached for policy in policies}


def launched(config, name):
    """A machine of this type as AWS has it, and its volumes, started by Ray as it starts one."""
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: name, TAG_RAY_LAUNCH_CONFIG: "x"}
    (machine,) = provider.create_node(config["available_node_types"][name]["node_config"], tags, 1)
    ec2 = boto3.client("ec2", REGION)
    found = ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
    volumes = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [machine]}])["Volumes"]
    assert volumes
    return found, volumes


@pytest.mark.parametrize("name", ["gpu.yaml", "gcp.yaml", "local.yaml"])
def test_a_file_is_one_that_ray_accepts(name):
    whole = prepared(yaml.safe_load((FILES / name).read_text()))
    assert whole["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for kind in ("head", "worker"):
        starts = [command for command in whole[f"{kind}_start_ray_commands"] if "ray start" in command]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0].partition("ray start")[0]
        assert "0.0.0.0" not in starts[0]
        pip = [command for command in whole[f"{kind}_setup_commands"] if "pip install" in command]
        assert len(pip) == 1
        assert "--constraint constraints.txt" in pip[0]


@pytest.mark.parametrize("name", ["gpu.yaml", "gcp.yaml"])
def test_a_plan_knows_what_a_gpu_costs_at_most(name):
    assert 0 < device_price(FILES / name, "gpu") < 10


def test_bootstrapping_our_file_asks_and_makes_nothing(ours, account, calls):
    before = open_to_the_world(), policies_attached()
    calls.clear()
    whole = ray_on_aws.bootstrap_aws(ours)
    assert calls
    assert all(re.match("ec2:Describe", call) for call in calls), calls
    assert (open_to_the_world(), policies_attached()) == before
    assert whole["head_node"] == {}  # what Ray adds to the head, such as a role of its own
    for name, node in whole["available_node_types"].items():
        group, subnet = account["FILL_IN_CLUSTER_GROUP"], "PUBLIC" if name == "head" else "PRIVATE"
        groups = [group, account["FILL_IN_SSH_GROUP"]] if name == "head" else [group]
        assert node["node_config"]["SecurityGroupIds"] == groups
        assert node["node_config"]["SubnetIds"] == [account[f"FILL_IN_{subnet}_SUBNET"]]
        assert node["node_config"]["KeyName"] == "idenctl"
        assert node["node_config"]["IamInstanceProfile"]["Name"] == f"idenctl-{'head' if name == 'head' else 'worker'}"


def test_bootstrapping_rays_default_opens_ssh_to_the_world_and_gives_full_access(account):
    whole = ray_on_aws.bootstrap_aws(prepared(DEFAULT))
    assert open_to_the_world() == {"ray-autoscaler-default"}
    assert policies_attached() >= FULL_ACCESS
    assert any("--dashboard-host=0.0.0.0" in command for command in whole["head_start_ray_commands"])
    assert not any("RAY_AUTH_MODE" in command for command in whole["head_start_ray_commands"])


@pytest.mark.parametrize(("name", "public"), [("head", True), ("gpu-spot", False), ("gpu-on-demand", False)])
def test_a_machine_of_our_file_is_encrypted_asks_for_imdsv2_and_only_the_head_has_a_public_address(ours, name, public):
    machine, volumes = launched(ray_on_aws.bootstrap_aws(ours), name)
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert all(volume["Encrypted"] for volume in volumes)
    assert bool(machine.get("PublicIpAddress")) == public
    assert machine.get("InstanceLifecycle") == ("spot" if name == "gpu-spot" else None)
    assert machine["IamInstanceProfile"]["Arn"].endswith("/idenctl-head" if name == "head" else "/idenctl-worker")


def test_a_worker_of_rays_default_has_none_of_this(account):
    machine, volumes = launched(ray_on_aws.bootstrap_aws(prepared(DEFAULT)), "ray.worker.default")
    assert machine["MetadataOptions"]["HttpTokens"] == "optional"
    assert not any(volume["Encrypted"] for volume in volumes)
    assert machine["PublicIpAddress"]
    assert "IamInstanceProfile" not in machine


def statements(name):
    return json.loads((FILES / f"aws-{name}-policy.json").read_text())["Statement"]


def test_the_heads_policy_allows_what_its_autoscaler_calls_and_no_more(ours, calls):
    whole = ray_on_aws.bootstrap_aws(ours)
    calls.clear()
    provider = AWSNodeProvider(whole["provider"], whole["cluster_name"])
    spot = whole["available_node_types"]["gpu-spot"]["node_config"]
    provider.create_node(spot, {TAG_RAY_NODE_KIND: "worker", TAG_RAY_LAUNCH_CONFIG: "x"}, 1)
    workers = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "worker"})
    provider.set_node_tags(workers[0], {"ray-node-status": "up-to-date"})
    provider.is_running(workers[0])
    provider.terminate_nodes(workers)
    allowed = {action for statement in statements("head") for action in list_of(statement["Action"])}
    assert {action for action in allowed if action.startswith("ec2:")} == set(calls)
    assert {action for action in allowed if action.startswith("iam:")} == {"iam:PassRole"}


@pytest.mark.parametrize("name", ["head", "worker"])
def test_a_policy_reaches_one_prefix_of_one_bucket(name):
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        actions, resources = list_of(statement["Action"]), list_of(statement["Resource"])
        assert not any("*" in action for action in actions)
        assert "*" not in resources or all(action.startswith("ec2:Describe") for action in actions)
        if any(action.startswith("s3:") for action in actions):
            whole = resources == ["arn:aws:s3:::FILL_IN_BUCKET"]
            assert whole or resources == ["arn:aws:s3:::FILL_IN_BUCKET/idenctl/*"]
            if whole:
                assert statement["Condition"] == {"StringLike": {"s3:prefix": ["idenctl", "idenctl/*"]}}


def list_of(value):
    return value if isinstance(value, list) else [value]


def started(config, packs, availability):
    """Which machines Ray's autoscaler asks for when so many packs wait, each for a GPU."""
    types = AutoscalingConfig(config | {"auth": {}}, skip_content_hash=True).get_node_type_configs()
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=types,
        max_num_nodes=config["max_workers"],  # the head is none of these
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"GPU": 1})] * packs),
        cloud_resource_availabilities=availability,
        recoverable_resource_availabilities=availability,
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    return {asked.instance_type: asked.count for asked in reply.to_launch}


@pytest.mark.parametrize("name", ["gpu.yaml", "gcp.yaml"])
def test_spot_machines_come_first_on_demand_ones_where_there_are_none_and_never_more_than_stated(name):
    config = yaml.safe_load((FILES / name).read_text())
    assert started(config, 3, {}) == {"gpu-spot": 3}
    assert started(config, 3, {"gpu-spot": 0.0}) == {"gpu-on-demand": 3}
    assert sum(started(config, 50, {}).values()) <= config["max_workers"]
    assert started(config, 0, {}) == {}


def test_on_google_ray_makes_no_key_and_gives_no_worker_a_public_address():
    whole = prepared(yaml.safe_load((FILES / "gcp.yaml").read_text()))
    nobody = None  # in the place of Google's client: whatever asks for something fails
    whole = ray_on_google._configure_subnet(ray_on_google._configure_key_pair(whole, nobody), nobody)
    assert whole["auth"]["ssh_private_key"] == "~/.ssh/idenctl"
    for name, node in whole["available_node_types"].items():
        assert ray_on_google.get_node_type(node["node_config"]) == ray_on_google.GCPNodeType.COMPUTE
        (wire,) = node["node_config"]["networkInterfaces"]
        assert ("accessConfigs" in wire) == (name == "head")


@pytest.mark.parametrize("step", ["_configure_key_pair", "_configure_subnet"])
def test_on_google_rays_default_asks_for_both(step):
    whole = prepared({"cluster_name": "default", "provider": {"type": "gcp", "region": "x", "project_id": "y"}})
    asked = SimpleNamespace(projects=Mock(side_effect=InterruptedError), subnetworks=Mock(side_effect=InterruptedError))
    with pytest.raises(InterruptedError):
        getattr(ray_on_google, step)(whole, asked)
