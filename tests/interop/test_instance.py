"""Instances (Dedicated KMS) by the cloud's published SDKs, against a server with networks that they are connected to. They are made by an
operation of our own: the cloud sells them."""

import pytest
from http_front import Front
from server_process import ServerProcess
from test_sdks import KINDS

NETWORKS = """
[networks.vpc-a]
sources = ["10.1.0.0/16"]
[networks.vpc-b]
sources = ["10.2.0.0/16"]
[networks.vpc-c]
sources = ["10.3.0.0/16"]
"""
NOT_FOUND = ("Forbidden.ResourceNotFound", 404)
STATE = ("Forbidden.DKMSInstanceStateInvalid", 403)
ABSENT = "kst-aaaaaaaaaaaaaaaaaaaa"
NEWEST = ["tea", "tea-rpc", "tea-acs4"]


@pytest.fixture(scope="module")
def dedicated(tmp_path_factory):
    """A server whose configuration names networks."""
    directory = tmp_path_factory.mktemp("dedicated")
    config = directory / "networks.toml"
    config.write_text(NETWORKS)
    process = ServerProcess(directory, config)
    yield process
    assert process.stop() == 0, process.log_tail()


@pytest.fixture
def instance(dedicated):
    """The id of a new instance, which is connected to nothing."""
    front = Front(dedicated.http, dedicated.credentials)
    made = front.call("CreateKmsInstance", {"InstanceName": "interop"})
    assert made["KmsInstanceId"].startswith("kst-") and made["AccessKeyId"] and made["AccessKeySecret"]
    return made["KmsInstanceId"]


def connect(sdk, instance, vpc="vpc-a"):
    return sdk("ConnectKmsInstance", KmsInstanceId=instance, VpcId=vpc, KMProvider="Aliyun", VSwitchIds="vsw-1,vsw-2", ZoneIds="a,b")


@pytest.mark.parametrize("kind", KINDS)
def test_an_instance_is_connected_bound_shown_and_listed(dedicated, instance, kind):
    sdk = KINDS[kind](dedicated)
    assert sdk("GetKmsInstance", KmsInstanceId=instance)["KmsInstance"]["Status"] == "Uninitialized"
    connect(sdk, instance)
    refused = sdk.refused(
        "ConnectKmsInstance", KmsInstanceId=instance, VpcId="vpc-a", KMProvider="Aliyun", VSwitchIds="v", ZoneIds="a"
    )
    assert refused == STATE
    sdk("UpdateKmsInstanceBindVpc", KmsInstanceId=instance, BindVpcs='[{"VpcId":"vpc-b","VSwitchId":"vsw-9","RegionId":"local","VpcOwnerId":"1"}]')
    shown = sdk("GetKmsInstance", KmsInstanceId=instance)["KmsInstance"]
    assert (shown["InstanceId"], shown["InstanceName"], shown["Status"]) == (instance, "interop", "Connected")
    assert (shown["VpcId"], shown["VswitchIds"], shown["ZoneIds"]) == ("vpc-a", ["vsw-1", "vsw-2"], ["a", "b"])
    bound = {"VpcId": "vpc-b", "VSwitchId": "vsw-9", "RegionId": "local", "VpcOwnerId": "1"}
    assert shown["BindVpcs"]["BindVpc"] == [bound] and shown["CreateTime"].endswith("Z")
    assert shown["DeletionProtection"] is False and int(shown["SecretNum"]) > 0 and shown["KeyNum"] > 0
    listed = sdk("ListKmsInstances", PageNumber=1, PageSize=100)
    rows = {row["KmsInstanceId"]: row["KmsInstanceArn"] for row in listed["KmsInstances"]["KmsInstance"]}
    assert listed["TotalCount"] == len(rows) and rows[instance].endswith(f":keystore/{instance}")
    # The older SDK has no filters.
    for vpc, found in [("vpc-b", True), ("vpc-c", False)] if kind != "core" else []:
        filters = f'[{{"Key":"VpcId","Values":["{vpc}"]}},{{"Key":"InstanceId","Values":["{instance}"]}}]'
        assert sdk("ListKmsInstances", Filters=filters)["TotalCount"] == int(found)
    if kind != "core":
        assert sdk.refused("ListKmsInstances", Filters='[{"Key":"Colour","Values":["red"]}]') == ("InvalidParameter", 400)
    assert sdk.refused("UpdateKmsInstanceBindVpc", KmsInstanceId=instance, BindVpcs='[{"VpcId":"vpc-z"}]') == NOT_FOUND
    sdk("UpdateKmsInstanceBindVpc", KmsInstanceId=instance, BindVpcs="[]")
    assert sdk("GetKmsInstance", KmsInstanceId=instance)["KmsInstance"]["BindVpcs"]["BindVpc"] == []
    assert sdk.refused("GetKmsInstance", KmsInstanceId=ABSENT) == NOT_FOUND


@pytest.mark.parametrize("kind", NEWEST)
def test_an_instance_is_protected_counted_and_released(dedicated, instance, kind):
    """The newest SDK alone knows these."""
    sdk = KINDS[kind](dedicated)
    connect(sdk, instance)
    default = sdk("GetDefaultKmsInstance")["DefaultKmsInstanceId"]
    assert default.startswith("kst-")
    infos = sdk("GetKmsInstanceQuotaInfos", KmsInstanceId=instance)
    assert infos["KmsInstanceId"] == instance
    rows = {row["ResourceType"]: row for row in infos["KmsInstanceQuotaInfos"]}
    assert list(rows) == ["key", "secret", "qps", "vpc", "hsmSession", "softwareWorker"]
    assert (rows["key"]["UsedQuantity"], rows["vpc"]["UsedQuantity"]) == (0, 1)
    one = sdk("GetKmsInstanceQuotaInfos", KmsInstanceId=instance, ResourceType="vpc")["KmsInstanceQuotaInfos"]
    assert one == [rows["vpc"]]
    assert sdk.refused("GetKmsInstanceQuotaInfos", KmsInstanceId=instance, ResourceType="cpu") == ("InvalidParameter", 400)
    assert sdk("GetKmsInstanceQuotaInfos")["KmsInstanceId"] == default
    sdk("SetDeletionProtection", KmsInstanceId=instance, EnableDeletionProtection=True, DeletionProtectionDescription="payroll")
    shown = sdk("GetKmsInstance", KmsInstanceId=instance)["KmsInstance"]
    assert (shown["DeletionProtection"], shown["DeletionProtectionDescription"]) == (True, "payroll")
    refused = sdk.refused("ReleaseKmsInstance", KmsInstanceId=instance, ForceDeleteWithoutBackup="true")
    assert refused == ("Rejected.StateModifiedFailed", 409)
    sdk("SetDeletionProtection", KmsInstanceId=instance, EnableDeletionProtection=False)
    sdk("ReleaseKmsInstance", KmsInstanceId=instance, ForceDeleteWithoutBackup="false")
    for operation in ["GetKmsInstance", "ReleaseKmsInstance"]:
        assert sdk.refused(operation, KmsInstanceId=instance) == NOT_FOUND
