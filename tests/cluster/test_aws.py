"""aws.yaml against what boto3 knows of EC2, and through Ray's own launcher on a simulated EC2."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator


@pytest.fixture
def config(cluster: Path) -> dict[str, Any]:
    return yaml.safe_load((cluster / "aws.yaml").read_text())


def as_ec2_gets_it(node_config: dict[str, Any]) -> dict[str, Any]:
    """``SubnetIds`` is Ray's own; it starts an instance in one of them."""
    asked = copy.deepcopy(node_config)
    for subnet in asked.pop("SubnetIds", [])[:1]:
        asked["SubnetId"] = subnet
    return asked | {"MinCount": 1, "MaxCount": 1}


def complaints(node_config: dict[str, Any]) -> str:
    model = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    return ParamValidator().validate(as_ec2_gets_it(node_config), shape).generate_report()


def test_node_types_are_what_run_instances_takes(config: dict[str, Any]) -> None:
    for name, node_type in config["available_node_types"].items():
        assert complaints(node_type["node_config"]) == "", name
    wrong = copy.deepcopy(config["available_node_types"]["a100"]["node_config"])
    wrong["NetworkInterfaces"][0]["NetworkCard"] = 0
    assert "NetworkCard" in complaints(wrong)


def test_workers_are_spot_and_the_head_is_not(config: dict[str, Any]) -> None:
    for name, node_type in config["available_node_types"].items():
        market = node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        assert market == (None if name == config["head_node_type"] else "spot")
        assert node_type["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


@pytest.mark.slow
def test_nothing_is_open_to_the_world(config: dict[str, Any], launched: Any) -> None:
    assert config["provider"]["use_internal_ips"] is True
    started, _ = launched
    assert [rule for node in started for rule in node["open"]] == []


def test_efa_on_each_card_of_the_large_type(config: dict[str, Any]) -> None:
    cards = config["available_node_types"]["a100"]["node_config"]["NetworkInterfaces"]
    assert [card["NetworkCardIndex"] for card in cards] == [0, 1, 2, 3]
    assert [card["DeviceIndex"] for card in cards] == [0, 1, 1, 1]
    assert {card["InterfaceType"] for card in cards} == {"efa"}


LAUNCH = """
import json, sys
import boto3, yaml
from moto import mock_aws

with mock_aws():
    config = yaml.safe_load(open(sys.argv[1]))
    region = config["provider"]["region"]
    ec2, iam = boto3.resource("ec2", region), boto3.client("iam", region)
    stack = boto3.client("cloudformation", region)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")
    subnet = vpc.create_subnet(CidrBlock="10.0.1.0/24", AvailabilityZone=region + "a")
    stack.create_stack(
        StackName="vmcmc", TemplateBody=open(sys.argv[2]).read(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[
            {"ParameterKey": "Vpc", "ParameterValue": vpc.id},
            {"ParameterKey": "Bucket", "ParameterValue": "bucket"},
        ],
    )
    (made,) = stack.describe_stacks(StackName="vmcmc")["Stacks"]
    group = made["Outputs"][0]["OutputValue"]
    image = next(iter(ec2.images.all())).id
    text = open(sys.argv[1]).read()
    for old, new in [
        (config["metadata"]["subnet"], subnet.id),
        (config["metadata"]["groups"][0], group),
        (config["metadata"]["image"], image),
    ]:
        assert old in text
        text = text.replace(old, new)

    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    config = bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, node_type in config["available_node_types"].items():
        provider.create_node(node_type["node_config"], {"ray-user-node-type": name}, 1)
    started = [
        {
            "type": instance.instance_type,
            "profile": instance.iam_instance_profile["Arn"].rsplit("/")[-1],
            "subnet": instance.subnet_id == subnet.id,
            "groups": [found["GroupId"] == group for found in instance.security_groups],
            "open": [
                rule["IpRanges"]
                for found in instance.security_groups
                for rule in ec2.SecurityGroup(found["GroupId"]).ip_permissions
                if rule["IpRanges"]
            ],
        }
        for instance in ec2.instances.all()
    ]
    resources = {
        name: node_type["resources"] for name, node_type in config["available_node_types"].items()
    }
    print(json.dumps([started, resources]))
"""


@pytest.fixture(scope="module")
def launched(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """aws_account.yaml made, then aws.yaml through Ray's bootstrap and its node provider.

    On moto's EC2, in a process with a home of its own (Ray writes its SSH key there).
    """
    environment = {
        "HOME": str(tmp_path_factory.mktemp("home")), "PATH": "/usr/bin:/bin",
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, cluster / "aws.yaml", cluster / "aws_account.yaml"],
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    yield json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_rays_launcher_starts_every_type(launched: Any) -> None:
    started, _ = launched
    assert {node["type"]: node["profile"] for node in started} == {
        "m7i.xlarge": "vmcmc-head",
        "g6.2xlarge": "vmcmc-worker",
        "p4d.24xlarge": "vmcmc-worker",
    }
    assert all(node["subnet"] and all(node["groups"]) for node in started)


@pytest.mark.slow
def test_ray_counts_the_cpus_and_gpus_as_the_file_says(
    launched: Any, config: dict[str, Any]
) -> None:
    _, resources = launched
    for name, node_type in config["available_node_types"].items():
        assert resources[name].items() >= node_type["resources"].items()


def test_account_template_is_sound(cluster: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), cluster / "aws_account.yaml"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
