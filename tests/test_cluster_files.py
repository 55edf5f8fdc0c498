"""The shipped cluster files: what Ray's own schema, bootstrapping and scheduler make of them; AWS against moto, offline."""

from pathlib import Path

import boto3
import pytest
from moto import mock_aws

FILES = Path(__file__).parent.parent / "cluster"
WORLD = "0.0.0.0/0"


def filled(name: str, words: dict[str, str]) -> str:
    """A shipped file with its placeholders filled in; any other that it has makes up a value."""
    text = (FILES / name).read_text()
    for word, value in words.items():
        assert word in text
        text = text.replace(word, value)
    return text


@pytest.fixture
def account(monkeypatch, tmp_path):
    """An account as docs/clusters.md has one make it, and the values for the file's placeholders."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with mock_aws():
        ec2, iam = boto3.client("ec2", "us-west-2"), boto3.client("iam", "us-west-2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        public = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        private = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        ec2.modify_subnet_attribute(SubnetId=public, MapPublicIpOnLaunch={"Value": True})
        inside = ec2.create_security_group(GroupName="idenctl", Description="each other", VpcId=vpc)["GroupId"]
        ssh = ec2.create_security_group(GroupName="idenctl-ssh", Description="me", VpcId=vpc)["GroupId"]
        ec2.create_key_pair(KeyName="idenctl")
        for name in ("idenctl-head", "idenctl-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        yield {
            "FILL_IN_UBUNTU_IMAGE": ec2.describe_images()["Images"][0]["ImageId"],
            "FILL_IN_GPU_IMAGE": ec2.describe_images()["Images"][1]["ImageId"],
            "FILL_IN_PUBLIC_SUBNET": public,
            "FILL_IN_PRIVATE_SUBNET": private,
            "FILL_IN_CLUSTER_GROUP": inside,
            "FILL_IN_SSH_GROUP": ssh,
            "FILL_IN_BUCKET": "faces",
        }
