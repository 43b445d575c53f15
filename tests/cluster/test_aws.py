"""cluster/aws.yaml with Ray's bootstrap and node provider, against moto's EC2."""

from __future__ import annotations

import copy
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.aws import config as ray_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import client_cache, resource_cache
from ray.autoscaler._private.commands import prepare_config
from ray.autoscaler._private.util import hash_launch_conf, validate_config

FILE = Path(__file__).parents[2] / "cluster/aws.yaml"
WORKERS = ["gpu_g6", "gpu_g5", "gpu_g4dn"]
MOTO_IMAGE = "ami-1e749f67"
"""An image that moto has. Unlike EC2, moto does not resolve SSM names."""


@pytest.fixture
def ec2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an empty account, which Ray's clients use as well."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-west-2", "HOME": str(tmp_path)}
    for name, value in (settings | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
        monkeypatch.setenv(name, value)
    for cached in (client_cache, resource_cache, ray_aws._get_subnets_or_die):
        cached.cache_clear()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    iam = boto3.client("iam")
    for profile in ("las-tune-head", "las-tune-worker"):
        iam.create_instance_profile(InstanceProfileName=profile)
    yield boto3.client("ec2")
    server.stop()
    for cached in (client_cache, resource_cache, ray_aws._get_subnets_or_die):
        cached.cache_clear()


@cache
def prepared() -> dict[str, Any]:
    """Return the cluster file with Ray's defaults and EC2's instance types. Cached, because moto takes seconds."""
    config = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for node_type in config["available_node_types"].values():
        assert node_type["node_config"]["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/ami/x86_64/")
        node_type["node_config"]["ImageId"] = MOTO_IMAGE
    return AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config))


def bootstrapped() -> dict[str, Any]:
    """Return the cluster file in the state in which `ray up` starts the first machine."""
    config = copy.deepcopy(prepared())
    validate_config(config)
    return AWSNodeProvider.bootstrap_config(config)


def started(provider: AWSNodeProvider, config: dict[str, Any], name: str) -> str:
    """Start an instance of a node type and return its id."""
    node_config = copy.deepcopy(config["available_node_types"][name]["node_config"])
    if name == "head":
        node_config.update(config["head_node"])
    tags = {
        "ray-node-type": "head" if name == "head" else "worker", "ray-user-node-type": name, "ray-node-name": name,
        "ray-launch-config": hash_launch_conf(node_config, config["auth"]),
    }  # fmt: skip
    (instance,) = provider.create_node(node_config, tags, 1)
    return str(instance)


@pytest.fixture
def cluster(ec2: Any) -> dict[str, dict[str, Any]]:
    """One instance of each node type, by the name of the type, in EC2's format."""
    config = bootstrapped()
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    ids = {started(provider, config, name): name for name in ["head", *WORKERS]}
    reservations = ec2.describe_instances(InstanceIds=list(ids))["Reservations"]
    return {ids[machine["InstanceId"]]: machine for each in reservations for machine in each["Instances"]}


def test_the_head_is_on_demand_and_workers_are_spot(cluster: dict[str, dict[str, Any]]) -> None:
    assert {name: machine.get("InstanceLifecycle") for name, machine in cluster.items()} == {
        "head": None, "gpu_g6": "spot", "gpu_g5": "spot", "gpu_g4dn": "spot",
    }  # fmt: skip
    assert [cluster[name]["InstanceType"] for name in ["head", *WORKERS]] == [
        "m7i.2xlarge", "g6.xlarge", "g5.xlarge", "g4dn.xlarge",
    ]  # fmt: skip


def test_machines_have_their_disks_tags_and_instance_profiles(ec2: Any, cluster: dict[str, dict[str, Any]]) -> None:
    for name, machine in cluster.items():
        tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
        assert tags["project"] == "las_tune" and tags["ray-cluster-name"] == "las-tune"
        role = "head" if name == "head" else "worker"
        assert machine["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/las-tune-{role}")
        (disk,) = machine["BlockDeviceMappings"]
        assert disk["DeviceName"] == "/dev/sda1" and disk["Ebs"]["DeleteOnTermination"]
        (volume,) = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
        size_gb = 200 if name == "head" else 150
        assert (volume["VolumeType"], volume["Size"], volume["Encrypted"]) == ("gp3", size_gb, True)
        assert {"Key": "project", "Value": "las_tune"} in volume["Tags"]


def test_imdsv2_is_required(cluster: dict[str, dict[str, Any]]) -> None:
    for machine in cluster.values():
        options = machine["MetadataOptions"]
        assert (options["HttpTokens"], options["HttpEndpoint"]) == ("required", "enabled")
        assert options["HttpPutResponseHopLimit"] == 2  # from a container on a bridge


def test_only_ssh_is_open_from_outside(ec2: Any, cluster: dict[str, dict[str, Any]]) -> None:
    groups = [machine["SecurityGroups"] for machine in cluster.values()]
    assert all(each == groups[0] for each in groups) and [group["GroupName"] for group in groups[0]] == ["las-tune"]
    (group,) = ec2.describe_security_groups(GroupIds=[groups[0][0]["GroupId"]])["SecurityGroups"]
    outside = [
        rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"] or rule["PrefixListIds"]
    ]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [("tcp", 22, 22)]
    inside = [rule for rule in group["IpPermissions"] if rule not in outside]
    (member,) = [pair["GroupId"] for rule in inside for pair in rule["UserIdGroupPairs"]]
    assert member == group["GroupId"]


def test_existing_security_group_keeps_its_rules(ec2: Any) -> None:
    """The file describes how to allow a single address in an existing group."""
    group_id = ec2.create_security_group(GroupName="las-tune", Description="one address")["GroupId"]
    own = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}
    ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[own, members])
    config = bootstrapped()
    assert {
        tuple(node_type["node_config"]["SecurityGroupIds"]) for node_type in config["available_node_types"].values()
    } == {(group_id,)}
    (group,) = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    addresses = [each["CidrIp"] for rule in group["IpPermissions"] for each in rule["IpRanges"]]
    assert addresses == ["203.0.113.7/32"]


def test_head_is_stopped_and_started_again(ec2: Any) -> None:
    config = bootstrapped()
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    first = started(provider, config, "head")
    provider.terminate_node(first)
    (machine,) = ec2.describe_instances(InstanceIds=[first])["Reservations"][0]["Instances"]
    assert machine["State"]["Name"] in ("stopping", "stopped") and machine["BlockDeviceMappings"]
    assert started(AWSNodeProvider(config["provider"], config["cluster_name"]), config, "head") == first


def test_trial_fits_on_every_worker_and_no_worker_starts_idle(ec2: Any) -> None:
    config = bootstrapped()
    for name in WORKERS:
        node_type = config["available_node_types"][name]
        assert (node_type["resources"]["CPU"], node_type["resources"]["GPU"]) == (4, 1)
        assert (node_type["min_workers"], node_type["max_workers"]) == (0, config["max_workers"])
    assert "GPU" not in config["available_node_types"]["head"]["resources"]
    assert config["available_node_types"]["head"]["max_workers"] == 0
