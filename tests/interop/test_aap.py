"""Application access points by the cloud's published Python SDKs: network rule, policy, access point and client key are made, read, changed
and deleted; the client key that was made opens with its password, signs, and is let in, as long as what lets it in is there."""

import base64
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import pkcs12
from test_sdks import KINDS

PASSWORD = "secret-1234"
KEY_USER = "RbacPermission/Template/CryptoServiceKeyUser"
SECRET_USER = "RbacPermission/Template/CryptoServiceSecretUser"
HERE = '["127.0.0.0/8","::1"]'


@pytest.fixture(params=KINDS)
def sdk(request, server):
    return KINDS[request.param](server)


@pytest.fixture
def name():
    return f"app-{uuid.uuid4()}"


def make(sdk, name, key="*"):
    """A network rule, a policy and an access point, all of that name."""
    sdk("CreateNetworkRule", Name=name, Type="Private", SourcePrivateIp=HERE)
    rules = json.dumps({"NetworkRules": [name]})
    sdk("CreatePolicy", Name=name, KmsInstance=sdk.instance, Permissions=json.dumps([KEY_USER]), Resources=json.dumps([f"key/{key}"]),
        AccessControlRules=rules)
    sdk("CreateApplicationAccessPoint", Name=name, AuthenticationMethod="ClientKey", Policies=json.dumps([name]))


class ClientKey:
    """A client key, opened by its password; it signs requests of RPC version 1 as the clients for secrets do."""

    def __init__(self, server, made):
        self.server, self.id = server, made["ClientKeyId"]
        data = base64.b64decode(made["PrivateKeyData"], validate=True)
        self.key, self.certificate, _ = pkcs12.load_key_and_certificates(data, PASSWORD.encode())

    def call(self, action, **parameters):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        parameters |= {
            "Action": action, "Version": "2016-01-20", "AccessKeyId": self.id, "Format": "JSON", "SignatureMethod": "SHA256withRSA",
            "SignatureType": "PRIVATEKEY", "SignatureVersion": "1.0", "SignatureNonce": str(uuid.uuid4()), "Timestamp": now,
        }
        pct = lambda text: urllib.parse.quote(text, safe="-_.~")
        query = "&".join(f"{pct(name)}={pct(value)}" for name, value in sorted(parameters.items()))
        signed = f"POST&%2F&{pct(query)}".encode()
        signature = base64.b64encode(self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())).decode()
        url = f"http://{self.server.http}/?{query}&Signature={pct(signature)}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)["Code"]


def test_access_points_live_and_end(sdk, name):
    made = sdk("CreateNetworkRule", Name=name, Type="Private", SourcePrivateIp=HERE, Description="the office")
    assert made["SourcePrivateIp"] == HERE and made["Type"] == "Private" and made["Arn"].endswith(f"/{name}")
    # The documentation of the SDK says that the addresses are separated by commas.
    sdk("UpdateNetworkRule", Name=name, SourcePrivateIp="127.0.0.0/8, 10.1.2.3")
    told = sdk("DescribeNetworkRule", Name=name)
    assert (told["SourcePrivateIp"], told["Description"]) == ('["127.0.0.0/8","10.1.2.3"]', "the office")
    assert name in [row["Name"] for row in sdk("ListNetworkRules", PageSize=100)["NetworkRules"]["NetworkRule"]]

    rules = json.dumps({"NetworkRules": [name]})
    permissions, resources = json.dumps([KEY_USER, SECRET_USER]), json.dumps(["key/*", "secret/a/b"])
    made = sdk("CreatePolicy", Name=name, KmsInstance=sdk.instance, Permissions=permissions, Resources=resources, AccessControlRules=rules)
    assert json.loads(made["Permissions"]) == [KEY_USER, SECRET_USER] and json.loads(made["Resources"]) == ["key/*", "secret/a/b"]
    sdk("UpdatePolicy", Name=name, Description="of the shop", Resources=json.dumps(["key/*"]))
    told = sdk("DescribePolicy", Name=name)
    assert (told["Permissions"], told["Resources"]) == ([KEY_USER, SECRET_USER], ["key/*"])
    assert (told["AccessControlRules"], told["Description"], told["KmsInstance"]) == (rules, "of the shop", sdk.instance)
    assert name in [row["Name"] for row in sdk("ListPolicies", PageSize=100)["Policies"]["Policy"]]

    made = sdk("CreateApplicationAccessPoint", Name=name, AuthenticationMethod="ClientKey", Policies=json.dumps([name]))
    assert (made["Name"], made["AuthenticationMethod"], json.loads(made["Policies"])) == (name, "ClientKey", [name])
    sdk("UpdateApplicationAccessPoint", Name=name, Description="the shop")
    told = sdk("DescribeApplicationAccessPoint", Name=name)
    assert (told["Description"], json.loads(told["Policies"])) == ("the shop", [name])
    listed = sdk("ListApplicationAccessPoints", PageSize=100)
    assert {"Name": name, "AuthenticationMethod": "ClientKey"} in listed["ApplicationAccessPoints"]["ApplicationAccessPoint"]

    made = sdk("CreateClientKey", AapName=name, Password=PASSWORD, NotBefore="2026-01-01T00:00:00Z", NotAfter="2035-01-01T00:00:00Z")
    assert re.fullmatch(r"KAAP\.[0-9a-f-]{36}", made["ClientKeyId"]) and made["KeyAlgorithm"] == "RSA_2048"
    id = made["ClientKeyId"]
    told = sdk("GetClientKey", ClientKeyId=id)
    assert (told["AapName"], told["KeyOrigin"], told["NotAfter"]) == (name, "KMS_PROVIDED", "2035-01-01T00:00:00Z")
    shown = x509.load_pem_x509_certificate(told["PublicKeyData"].encode())
    key, certificate, _ = pkcs12.load_key_and_certificates(base64.b64decode(made["PrivateKeyData"]), PASSWORD.encode())
    assert certificate == shown and key.public_key() == shown.public_key()
    certificate.verify_directly_issued_by(certificate)
    with pytest.raises(ValueError):
        pkcs12.load_key_and_certificates(base64.b64decode(made["PrivateKeyData"]), b"secret-1235")
    assert [row["ClientKeyId"] for row in sdk("ListClientKeys", AapName=name)["ClientKeys"]] == [id]

    for operation in ("DeletePolicy", "DeleteNetworkRule"):
        assert sdk.refused(operation, Name=name) == ("Rejected.ResourceInUse", 409)
    sdk("DeleteClientKey", ClientKeyId=id)
    for operation in ("DeleteApplicationAccessPoint", "DeletePolicy", "DeleteNetworkRule"):
        sdk(operation, Name=name)
    for operation in ("DescribeApplicationAccessPoint", "DescribePolicy", "DescribeNetworkRule", "DeleteApplicationAccessPoint"):
        assert sdk.refused(operation, Name=name) == ("Forbidden.ResourceNotFound", 404), operation
    assert sdk.refused("GetClientKey", ClientKeyId=id) == ("Forbidden.ResourceNotFound", 404)


def test_what_is_wrong_is_told(sdk, name):
    make(sdk, name)
    not_found, invalid = ("Forbidden.ResourceNotFound", 404), ("InvalidParameter", 400)
    for operation, parameters, expected in [
        ("CreateNetworkRule", {"Name": name, "Type": "Private"}, ("Rejected.ResourceExist", 409)),
        ("CreateNetworkRule", {"Name": "a b", "Type": "Private"}, invalid),
        ("CreateNetworkRule", {"Name": f"{name}-2", "Type": "Public"}, invalid),
        ("CreateNetworkRule", {"Name": f"{name}-2", "Type": "Private", "SourcePrivateIp": '["10.0.0.1/8"]'}, invalid),
        ("CreatePolicy", {"Name": f"{name}-2", "Permissions": '["Root"]', "Resources": '["key/*"]'}, invalid),
        ("CreatePolicy", {"Name": f"{name}-2", "Permissions": f'["{KEY_USER}"]', "Resources": '["key/a"]'}, invalid),
        ("CreatePolicy", {"Name": f"{name}-2", "Permissions": f'["{KEY_USER}"]', "Resources": '["key/*"]', "KmsInstance": "kst-1"}, not_found),
        ("UpdatePolicy", {"Name": name, "AccessControlRules": '{"NetworkRules":["none"]}'}, not_found),
        ("CreateApplicationAccessPoint", {"Name": f"{name}-2", "Policies": '["none"]'}, not_found),
        ("CreateClientKey", {"AapName": "none", "Password": PASSWORD}, not_found),
        ("CreateClientKey", {"AapName": name, "Password": "12345678"}, invalid),
        ("CreateClientKey", {"AapName": name, "Password": PASSWORD, "NotBefore": "2026-01-01T00:00:00Z"}, invalid),
        ("ListClientKeys", {"AapName": "none"}, not_found),
    ]:
        assert sdk.refused(operation, **parameters) == expected, (operation, parameters)


def test_a_client_key_is_let_in_by_its_signature(server, name):
    sdk = KINDS["tea"](server)
    key = sdk("CreateKey")["KeyMetadata"]["KeyId"]
    other = sdk("CreateKey")["KeyMetadata"]["KeyId"]
    make(sdk, name, key)
    client = ClientKey(server, sdk("CreateClientKey", AapName=name, Password=PASSWORD))
    plaintext = base64.b64encode(b"x").decode()
    blob = client.call("Encrypt", KeyId=key, Plaintext=plaintext)["CiphertextBlob"]
    assert client.call("Decrypt", CiphertextBlob=blob)["Plaintext"] == plaintext
    assert client.call("Encrypt", KeyId=other, Plaintext=plaintext) == "Forbidden.KeyNotFound"
    assert client.call("CreateKey") == "Forbidden.NoPermission"
    sdk("UpdateNetworkRule", Name=name, SourcePrivateIp='["10.0.0.0/8"]')
    assert client.call("Decrypt", CiphertextBlob=blob) == "Forbidden.KeyNotFound"
    sdk("UpdateNetworkRule", Name=name, SourcePrivateIp=HERE)
    assert client.call("Decrypt", CiphertextBlob=blob)["Plaintext"] == plaintext
    stranger = ClientKey(server, sdk("CreateClientKey", AapName=name, Password=PASSWORD))
    stranger.id, id = client.id, stranger.id
    assert stranger.call("Decrypt", CiphertextBlob=blob) == "SignatureDoesNotMatch"
    sdk("DeleteClientKey", ClientKeyId=client.id)
    assert client.call("Decrypt", CiphertextBlob=blob) == "InvalidAccessKeyId.NotFound"
    stranger.id = id
    assert stranger.call("Decrypt", CiphertextBlob=blob)["Plaintext"] == plaintext
