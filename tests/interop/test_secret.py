"""Secrets by the cloud's published Python SDKs: every operation that is here, with its documented errors, and those that are not by name."""

import base64
import json
import string
import uuid

import pytest
from test_sdks import KINDS, UNKNOWN, new_key

NO_SECRET = ("Forbidden.ResourceNotFound", 404)
ENDING = ("Rejected.ResourceInDeleteWindow", 409)
TAKEN = ("Rejected.ResourceExist", 409)
WRONG = ("InvalidParameter", 400)


@pytest.fixture(params=KINDS)
def sdk(request, server):
    return KINDS[request.param](server)


@pytest.fixture
def name():
    return f"apps/{uuid.uuid4()}+=.@_-"


def stages(answer):
    return answer["VersionStages"]["VersionStage"]


def test_a_secret_lives_and_ends(sdk, name):
    key = new_key(sdk)
    made = sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="pass word &=+%ü密", EncryptionKeyId=key,
               Description="a b", Tags=json.dumps([{"TagKey": "team", "TagValue": "shop"}]))
    assert (made["SecretName"], made["VersionId"], made["SecretType"]) == (name, "v1", "Generic")
    assert made["Arn"].endswith(f":secret/{name}") and made["AutomaticRotation"] == "Disabled"
    assert sdk.refused("CreateSecret", SecretName=name, VersionId="v1", SecretData="x") == TAKEN

    value = sdk("GetSecretValue", SecretName=name)
    assert (value["SecretData"], value["SecretDataType"], value["VersionId"]) == ("pass word &=+%ü密", "text", "v1")
    assert stages(value) == ["ACSCurrent"] and value["CreateTime"].endswith("Z")
    assert sdk("GetSecretValue", SecretName=made["Arn"])["SecretData"] == value["SecretData"]

    put = sdk("PutSecretValue", SecretName=name, VersionId="v2", SecretData="two")
    assert stages(put) == ["ACSCurrent"] and put["SecretName"] == name
    # The same once more changes nothing; another value of its name is refused.
    sdk("PutSecretValue", SecretName=name, VersionId="v2", SecretData="two")
    assert sdk.refused("PutSecretValue", SecretName=name, VersionId="v2", SecretData="three") == TAKEN
    assert sdk("GetSecretValue", SecretName=name, VersionStage="ACSPrevious")["VersionId"] == "v1"
    sdk("PutSecretValue", SecretName=name, VersionId="v3", SecretData="three", VersionStages=json.dumps(["test"]))
    assert sdk("GetSecretValue", SecretName=name)["VersionId"] == "v2"
    assert sdk("GetSecretValue", SecretName=name, VersionStage="test", VersionId="v3")["SecretData"] == "three"
    assert sdk.refused("GetSecretValue", SecretName=name, VersionStage="ACSCurrent", VersionId="v3") == WRONG
    assert sdk.refused("GetSecretValue", SecretName=name, VersionId="v9") == NO_SECRET
    assert sdk.refused("GetSecretValue", SecretName=name, VersionStage="none") == NO_SECRET

    sdk("UpdateSecretVersionStage", SecretName=name, VersionStage="ACSCurrent", MoveToVersion="v1", RemoveFromVersion="v2")
    listed = sdk("ListSecretVersionIds", SecretName=name, PageNumber=1, PageSize=10)
    rows = {row["VersionId"]: stages(row) for row in listed["VersionIds"]["VersionId"]}
    assert rows == {"v1": ["ACSCurrent"], "v2": ["ACSPrevious"], "v3": ["test"]} and listed["TotalCount"] == 3
    sdk("UpdateSecretVersionStage", SecretName=name, VersionStage="test", RemoveFromVersion="v3")
    assert sdk("ListSecretVersionIds", SecretName=name)["TotalCount"] == 2
    assert sdk("ListSecretVersionIds", SecretName=name, IncludeDeprecated="true")["TotalCount"] == 3
    for wrong in ({"VersionStage": "ACSCurrent", "RemoveFromVersion": "v1"}, {"VersionStage": "x", "RemoveFromVersion": "v1"},
                  {"VersionStage": "ACSCurrent", "MoveToVersion": "v2", "RemoveFromVersion": "v3"}):
        assert sdk.refused("UpdateSecretVersionStage", SecretName=name, **wrong) == WRONG, wrong
    assert sdk.refused("UpdateSecretVersionStage", SecretName=name, VersionStage="x", MoveToVersion="v9") == NO_SECRET
    assert sdk.refused("UpdateSecretVersionStage", SecretName=name, VersionStage="x") == ("MissingParameter", 400)

    sdk("UpdateSecret", SecretName=name, Description="another")
    told = sdk("DescribeSecret", SecretName=name, FetchTags="true")
    assert (told["Description"], told["EncryptionKeyId"], told["SecretType"]) == ("another", key, "Generic")
    assert told["Tags"]["Tag"] == [{"TagKey": "team", "TagValue": "shop"}] and "PlannedDeleteTime" not in told
    assert "Tags" not in sdk("DescribeSecret", SecretName=name)

    assert sdk.refused("RestoreSecret", SecretName=name) == ("Rejected.StateModifiedFailed", 409)
    for wrong in ({"RecoveryWindowInDays": "6"}, {"RecoveryWindowInDays": "31"},
                  {"RecoveryWindowInDays": "7", "ForceDeleteWithoutRecovery": "true"}):
        assert sdk.refused("DeleteSecret", SecretName=name, **wrong) == WRONG, wrong
    planned = sdk("DeleteSecret", SecretName=name, RecoveryWindowInDays="7")["PlannedDeleteTime"]
    assert sdk("DescribeSecret", SecretName=name)["PlannedDeleteTime"] == planned
    assert sdk.refused("GetSecretValue", SecretName=name) == NO_SECRET
    assert sdk.refused("PutSecretValue", SecretName=name, VersionId="v4", SecretData="x") == ENDING
    assert sdk.refused("UpdateSecret", SecretName=name, Description="x") == ENDING
    assert sdk.refused("CreateSecret", SecretName=name, VersionId="v1", SecretData="x") == ENDING
    assert sdk("RestoreSecret", SecretName=name)["SecretName"] == name
    assert sdk("GetSecretValue", SecretName=name)["VersionId"] == "v1"

    sdk("DisableKey", KeyId=key)
    assert sdk.refused("GetSecretValue", SecretName=name) == ("Rejected.Disabled", 409)
    assert sdk.refused("PutSecretValue", SecretName=name, VersionId="v4", SecretData="x") == ("Rejected.Disabled", 409)
    sdk("EnableKey", KeyId=key)
    assert sdk("GetSecretValue", SecretName=name)["VersionId"] == "v1"

    sdk("DeleteSecret", SecretName=name, ForceDeleteWithoutRecovery="true")
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="its name is free")
    sdk("DeleteSecret", SecretName=name, ForceDeleteWithoutRecovery="true")


@pytest.mark.parametrize("operation, parameters", [
    ("DescribeSecret", {}), ("GetSecretValue", {}), ("PutSecretValue", {"VersionId": "v1", "SecretData": "x"}), ("UpdateSecret", {}),
    ("ListSecretVersionIds", {}), ("UpdateSecretVersionStage", {"VersionStage": "x", "MoveToVersion": "v1"}),
    ("DeleteSecret", {}), ("RestoreSecret", {}),
    ("TagResource", {"Tags": '[{"TagKey":"a","TagValue":"b"}]'}), ("UntagResource", {"TagKeys": '["a"]'}),
], ids=lambda part: part if isinstance(part, str) else "")
def test_a_secret_that_is_not_there_is_not_found_and_an_odd_name_is_named(sdk, operation, parameters):
    assert sdk.refused(operation, SecretName="absent", **parameters) == NO_SECRET
    for odd in ("no name", "a\nb", "x" * 193, "../ü"):
        assert sdk.refused(operation, SecretName=odd, **parameters) == WRONG, odd


def test_what_is_wrong_with_a_new_secret_is_told(sdk, name):
    good = {"SecretName": name, "VersionId": "v1", "SecretData": "x"}
    for wrong in ({"SecretName": "acs/mine"}, {"VersionId": "x" * 65}, {"SecretDataType": "json"}, {"SecretData": "x" * 30_721},
                  {"Tags": '[{"TagKey":"acs:a","TagValue":"b"}]'}):
        assert sdk.refused("CreateSecret", **(good | wrong)) == WRONG, wrong
    assert sdk.refused("CreateSecret", **good, EncryptionKeyId=UNKNOWN) == ("Forbidden.KeyNotFound", 404)
    pair = sdk("CreateKey", KeySpec="EC_P256", KeyUsage="SIGN/VERIFY")["KeyMetadata"]["KeyId"]
    assert sdk.refused("CreateSecret", **good, EncryptionKeyId=pair) == WRONG
    for later in ({"SecretType": "Redis"}, {"EnableAutomaticRotation": "true", "RotationInterval": "7d"}):
        assert sdk.refused("CreateSecret", **good, **later) == ("UnsupportedOperation", 400), later
    assert sdk.refused("CreateSecret", **good, DKMSInstanceId="kst-1") == ("Forbidden.ResourceNotFound", 404)
    assert sdk.refused("CreateSecret", **good, SecretType="Rds") == ("MissingParameter", 400)
    for odd in ("{}", '{"SecretSubType":"SingleUser","DBInstanceId":"absent"}', '{"SecretSubType":"Both","DBInstanceId":"d"}'):
        assert sdk.refused("CreateSecret", **good, SecretType="Rds", ExtendedConfig=odd) == WRONG, odd
    # Of a generic secret it is passed over, whatever it is.
    sdk("CreateSecret", **good, EnableAutomaticRotation="false", SecretType="Generic", ExtendedConfig='{"SecretSubType":"SingleUser"}')


@pytest.mark.parametrize("character", ["x", "/", "ж", "密"])
def test_a_value_of_full_size_passes_whatever_it_is_of(sdk, name, character):
    value = character * (30_720 // len(character.encode()))
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData=value)
    assert sdk("GetSecretValue", SecretName=name)["SecretData"] == value
    sdk("PutSecretValue", SecretName=name, VersionId="v2", SecretData=value)


def test_a_binary_value_is_kept_as_it_came(sdk, name):
    value = base64.b64encode(bytes(range(256))).decode()
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData=value, SecretDataType="binary")
    told = sdk("GetSecretValue", SecretName=name)
    assert (told["SecretData"], told["SecretDataType"]) == (value, "binary")


def test_lists_are_paged_and_filtered(sdk, name):
    for n in range(3):
        sdk("CreateSecret", SecretName=f"{name}{n}", VersionId="v1", SecretData="x")
    sdk("TagResource", SecretName=f"{name}1", Tags=json.dumps([{"TagKey": "own", "TagValue": name[:100]}]))
    begins = json.dumps([{"Key": "SecretName", "Values": [name]}])
    page = sdk("ListSecrets", Filters=begins, PageNumber=2, PageSize=2)
    assert (page["TotalCount"], page["PageNumber"], page["PageSize"]) == (3, 2, 2)
    assert [row["SecretName"] for row in page["SecretList"]["Secret"]] == [f"{name}2"]
    tagged = sdk("ListSecrets", Filters=json.dumps([{"Key": "TagValue", "Values": [name[:100]]}]), FetchTags="true")
    rows = tagged["SecretList"]["Secret"]
    assert [(row["SecretName"], row["Tags"]["Tag"][0]["TagKey"]) for row in rows] == [(f"{name}1", "own")]
    sdk("UntagResource", SecretName=f"{name}1", TagKeys=json.dumps(["own"]))
    assert sdk.refused("ListSecrets", Filters=json.dumps([{"Key": "Colour", "Values": ["red"]}])) == WRONG
    assert sdk.refused("ListSecrets", PageSize=101)[1] == 400


def test_a_password_has_what_was_asked_for(sdk):
    password = sdk("GetRandomPassword")["RandomPassword"]
    assert len(password) == 32
    for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation):
        assert set(password) & set(kind)
    password = sdk("GetRandomPassword", PasswordLength="128", ExcludePunctuation="true", ExcludeNumbers="true",
                   ExcludeUppercase="true", ExcludeCharacters="abc")["RandomPassword"]
    assert len(password) == 128 and set(password) <= set(string.ascii_lowercase) - set("abc")
    assert sdk.refused("GetRandomPassword", PasswordLength="7") == WRONG
    assert sdk.refused("GetRandomPassword", ExcludeNumbers="true", ExcludeCharacters=string.ascii_lowercase) == WRONG


def test_policies_of_secrets(sdk, name):
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="x")
    default = json.loads(sdk("GetSecretPolicy", SecretName=name, PolicyName="default")["Policy"])
    assert default["Statement"][0]["Action"] == ["kms:*"]
    document = json.dumps(default | {"Statement": [default["Statement"][0] | {"Action": ["kms:List*", "kms:*Policy"]}]})
    assert sdk.refused("SetSecretPolicy", SecretName=name, Policy=document, PolicyName="default") == WRONG
    document = json.dumps(default)
    sdk("SetSecretPolicy", SecretName=name, Policy=document, PolicyName="default")
    assert sdk("GetSecretPolicy", SecretName=name)["Policy"] == document
    assert sdk.refused("SetSecretPolicy", SecretName=name, Policy="{}") == WRONG
    assert sdk.refused("GetSecretPolicy", SecretName="absent") == NO_SECRET


def test_many_are_read_at_once_and_what_is_wrong_with_one_is_told_of_it(server, name):
    # The older SDK does not know the operation.
    sdk = KINDS["tea"](server)
    for n in (1, 2):
        sdk("CreateSecret", SecretName=f"{name}{n}", VersionId="v1", SecretData=f"value ü {n}")
    sdk("PutSecretValue", SecretName=f"{name}1", VersionId="v2", SecretData="two")
    asked = [{"SecretName": f"{name}2", "FetchExtendedConfig": "true"}, {"SecretName": "absent"},
             {"SecretName": f"{name}1", "VersionStage": "ACSPrevious"}, {"SecretName": f"{name}1", "VersionId": "v9"}]
    told = sdk("BatchGetSecretValue", SecretsList=asked)
    values = [(row["SecretName"], row["VersionId"], row["SecretData"], stages(row)) for row in told["SecretValues"]]
    assert values == [(f"{name}2", "v1", "value ü 2", ["ACSCurrent"]), (f"{name}1", "v1", "value ü 1", ["ACSPrevious"])]
    assert [(row["SecretName"], row["Code"], row["HttpStatus"]) for row in told["Errors"]] == [
        ("absent", *NO_SECRET), (f"{name}1", *NO_SECRET)]
    assert sdk.refused("BatchGetSecretValue", SecretsList=[{"SecretName": "no name"}]) == WRONG
    assert sdk.refused("BatchGetSecretValue", SecretsList=[{"SecretName": "absent"}] * 21) == WRONG
    assert sdk.refused("BatchGetSecretValue") == ("MissingParameter", 400)


def test_a_secret_without_a_rotator_is_not_rotated(sdk, name):
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="x")
    none = ("UnsupportedOperation", 400)
    assert sdk.refused("RotateSecret", SecretName=name, VersionId="v2") == none
    assert sdk.refused("UpdateSecretRotationPolicy", SecretName=name, EnableAutomaticRotation="true", RotationInterval="7d") == none
    for operation, parameters in (("RotateSecret", {"VersionId": "v2"}), ("UpdateSecretRotationPolicy", {"EnableAutomaticRotation": "false"})):
        assert sdk.refused(operation, SecretName="absent", **parameters) == NO_SECRET


def test_a_secret_with_a_rotator_is_rotated(sdk, name):
    extended = json.dumps({"Rotator": "passwords", "CustomData": {"PasswordLength": "20"}})
    is_tea = not hasattr(sdk, "endpoint")
    made = sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="first", EnableAutomaticRotation=True if is_tea else "true",
               RotationInterval="7d", ExtendedConfig=json.loads(extended) if is_tea else extended)
    assert (made["AutomaticRotation"], made["RotationInterval"]) == ("Enabled", "604800s")
    assert json.loads(made["ExtendedConfig"]) == json.loads(extended) and made["NextRotationDate"].endswith("Z")
    rotated = sdk("RotateSecret", SecretName=name, VersionId="v2")
    assert (rotated["SecretName"], rotated["VersionId"], rotated["Arn"]) == (name, "v2", made["Arn"])
    assert sdk("RotateSecret", SecretName=name, VersionId="v2")["VersionId"] == "v2"
    value = sdk("GetSecretValue", SecretName=name, FetchExtendedConfig=True if is_tea else "true")
    assert len(value["SecretData"]) == 20 and stages(value) == ["ACSCurrent"]
    assert (value["AutomaticRotation"], json.loads(value["ExtendedConfig"])) == ("Enabled", json.loads(extended))
    assert value["LastRotationDate"].endswith("Z") and value["NextRotationDate"].endswith("Z")
    assert sdk("GetSecretValue", SecretName=name, VersionStage="ACSPrevious")["SecretData"] == "first"

    custom = {"PasswordLength": "40"}
    sdk("UpdateSecret", SecretName=name, **({"ExtendedConfig": {"CustomData": custom}} if is_tea else {"ExtendedConfigCustomData": json.dumps(custom)}))
    assert json.loads(sdk("DescribeSecret", SecretName=name)["ExtendedConfig"])["CustomData"] == custom
    sdk("RotateSecret", SecretName=name, VersionId="v3")
    assert len(sdk("GetSecretValue", SecretName=name)["SecretData"]) == 40
    sdk("UpdateSecretRotationPolicy", SecretName=name, EnableAutomaticRotation=False if is_tea else "false")
    told = sdk("DescribeSecret", SecretName=name)
    assert told["AutomaticRotation"] == "Disabled" and "NextRotationDate" not in told


def test_a_dry_run_gives_no_value_out(server, name):
    sdk = KINDS["tea"](server)
    sdk("CreateSecret", SecretName=name, VersionId="v1", SecretData="x")
    assert sdk.refused("GetSecretValue", SecretName=name, DryRun="true") == ("DryRunOperationError", 400)
