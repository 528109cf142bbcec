"""The published SDK of dedicated instances, `alibabacloud-dkms-gcs`, against the instance gateway, with a client key that the other SDK
(`alibabacloud_kms20160120`) made: network rule, policy, application access point, client key."""

import hashlib
import json
import time

import pytest

pytest.importorskip("openapi_util", reason="alibabacloud-dkms-gcs is not here: requirements-gateway.txt has it")

from alibabacloud_kms20160120 import models
from alibabacloud_kms20160120.client import Client as Management
from alibabacloud_tea_openapi.models import Config as ManagementConfig
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from openapi.models import Config
from openapi_util.models import RuntimeOptions
from sdk import models as gateway
from sdk.client import Client
from Tea.exceptions import TeaException

PASSWORD = "Passw0rd-of-a-test"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Cloud:
    """The other SDK, as the bootstrap access key."""

    def __init__(self, server):
        credentials, self.instance = server.credentials, server.instance
        self.client = Management(ManagementConfig(
            access_key_id=credentials.access_key_id, access_key_secret=credentials.access_key_secret,
            endpoint=server.http, protocol="http", region_id="cn-hangzhou",
        ))

    def __call__(self, call, request, **parameters):
        answer = getattr(self.client, call)(getattr(models, request)().from_map(parameters))
        return answer.body.to_map()

    def key(self, spec, usage):
        made = self("create_key", "CreateKeyRequest", KeySpec=spec, KeyUsage=usage)
        return made["KeyMetadata"]["KeyId"]

    def client_key(self, name, resources, network="127.0.0.0/8"):
        """Makes an access point with one client key; returns the content of its file."""
        self("create_network_rule", "CreateNetworkRuleRequest", Name=name, Type="Private",
             SourcePrivateIp=json.dumps([network]))
        self("create_policy", "CreatePolicyRequest", Name=name, KmsInstance=self.instance,
             Permissions=json.dumps(["RbacPermission/Template/CryptoServiceKeyUser"]), Resources=json.dumps(resources),
             AccessControlRules=json.dumps({"NetworkRules": [name]}))
        self("create_application_access_point", "CreateApplicationAccessPointRequest", Name=name,
             AuthenticationMethod="ClientKey", Policies=json.dumps([name]))
        made = self("create_client_key", "CreateClientKeyRequest", AapName=name, Password=PASSWORD)
        return json.dumps({"KeyId": made["ClientKeyId"], "PrivateKeyData": made["PrivateKeyData"]})


class Gateway:
    """The SDK of dedicated instances; requests and answers have the names that it gives them."""

    def __init__(self, server, client_key):
        self.client = Client(Config(
            endpoint=server.http, protocol="http", client_key_content=client_key, password=PASSWORD,
        ))
        self.runtime = RuntimeOptions(autoretry=False)

    def __call__(self, operation, **fields):
        name = "".join(part.capitalize() for part in operation.split("_"))
        request = getattr(gateway, f"{name}Request")(**fields)
        return getattr(self.client, f"{operation}_with_options")(request, self.runtime)

    def refused(self, operation, **fields):
        with pytest.raises(TeaException) as caught:
            self(operation, **fields)
        return caught.value.code, caught.value.data["httpCode"]


@pytest.fixture(scope="module")
def cloud(server):
    return Cloud(server)


@pytest.fixture(scope="module")
def calls(server, cloud):
    return Gateway(server, cloud.client_key("gateway-all", ["key/*"]))


def test_what_is_encrypted_is_opened_by_either_form(cloud, calls):
    key = cloud.key("Aliyun_AES_256", "ENCRYPT/DECRYPT")
    made = calls("encrypt", key_id=key, plaintext=b"hello", aad=b"aad")
    assert (made.key_id, made.algorithm, len(made.iv)) == (key, "AES_GCM", 12)
    opened = calls("decrypt", key_id=key, ciphertext_blob=made.ciphertext_blob, iv=made.iv, algorithm=made.algorithm,
                   padding_mode=made.padding_mode, aad=b"aad")
    assert (opened.plaintext, opened.key_id) == (b"hello", key)
    opened = calls("advance_decrypt", ciphertext_blob=made.ciphertext_blob, aad=b"aad")
    assert opened.plaintext == b"hello" and len(opened.key_version_id) == 36
    advanced = calls("advance_encrypt", key_id=key, plaintext=b"hello")
    assert calls("advance_decrypt", ciphertext_blob=advanced.ciphertext_blob).plaintext == b"hello"
    wrong = {"key_id": key, "ciphertext_blob": made.ciphertext_blob}
    for change in ({"aad": b"aae"}, {}, {"aad": b"aad", "iv": bytes(12)}, {"aad": b"aad", "algorithm": "SM4_GCM"}):
        assert calls.refused("decrypt", **wrong, **change) == ("InvalidParameter", 400), change
    assert calls.refused("encrypt", key_id=key, plaintext=b"x", iv=bytes(12)) == ("UnsupportedOperation", 400)
    assert calls.refused("encrypt", key_id=key, plaintext=b"x", algorithm="AES_CBC") == ("UnsupportedOperation", 400)
    assert calls.refused("encrypt", key_id=key, plaintext=bytes(6145))[1] == 400


def test_data_keys_and_pairs_open_again(cloud, calls):
    key = cloud.key("Aliyun_AES_256", "ENCRYPT/DECRYPT")
    made = calls("generate_data_key", key_id=key, number_of_bytes=32, aad=b"a")
    assert len(made.plaintext) == 32
    opened = calls("decrypt", key_id=key, ciphertext_blob=made.ciphertext_blob, iv=made.iv, aad=b"a")
    assert opened.plaintext == made.plaintext
    made = calls("advance_generate_data_key", key_id=key, number_of_bytes=16)
    assert calls("advance_decrypt", ciphertext_blob=made.ciphertext_blob).plaintext == made.plaintext
    for form in ("generate_data_key_pair", "advance_generate_data_key_pair"):
        made = calls(form, key_id=key, key_pair_spec="EC_P256", key_format="PEM")
        private = serialization.load_pem_private_key(made.private_key_plaintext, None)
        public = serialization.load_pem_public_key(made.public_key)
        assert private.public_key() == public
        opened = calls("advance_decrypt", ciphertext_blob=made.private_key_ciphertext_blob)
        assert opened.plaintext == made.private_key_plaintext
        made = calls(f"{form}_without_plaintext", key_id=key, key_pair_spec="RSA_2048", key_format="DER")
        private = calls("advance_decrypt", ciphertext_blob=made.private_key_ciphertext_blob).plaintext
        private = serialization.load_der_private_key(private, None)
        assert private.public_key() == serialization.load_der_public_key(made.public_key)


def test_signatures_verify_here_and_elsewhere(cloud, calls):
    message, digest = b"hello", hashlib.sha256(b"hello").digest()
    for spec, algorithm in (("RSA_2048", "RSA_PSS_SHA_256"), ("EC_P256", "ECDSA_SHA_256")):
        key = cloud.key(spec, "SIGN/VERIFY")
        public = serialization.load_pem_public_key(calls("get_public_key", key_id=key).public_key.encode())
        signed = calls("sign", key_id=key, algorithm=algorithm, message=message, message_type="RAW")
        assert (signed.key_id, signed.algorithm) == (key, algorithm)
        if spec == "EC_P256":
            public.verify(signed.signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            public.verify(signed.signature, message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        check = {"key_id": key, "algorithm": algorithm, "signature": signed.signature}
        assert calls("verify", **check, message=digest, message_type="DIGEST").value is True
        assert calls("verify", **check, message=b"hellp", message_type="RAW").value is False
    key = cloud.key("RSA_2048", "ENCRYPT/DECRYPT")
    made = calls("encrypt", key_id=key, plaintext=b"hello")
    assert made.algorithm == "RSAES_OAEP_SHA_256"
    assert calls("decrypt", key_id=key, ciphertext_blob=made.ciphertext_blob).plaintext == b"hello"


def test_random_bytes_come_and_what_is_not_here_is_refused_by_name(calls):
    assert len(calls("generate_random", length=1024).random) == 1024
    assert calls.refused("generate_random", length=1025) == ("InvalidParameter", 400)
    assert calls.refused("get_secret_value", secret_name="db/conn") == ("Forbidden.ResourceNotFound", 404)
    assert calls.refused("encrypt", key_id=UNKNOWN, plaintext=b"x") == ("Forbidden.KeyNotFound", 404)


def test_the_value_of_a_secret_is_read_as_long_as_a_policy_names_it(server, cloud):
    name = "gateway/db+conn=1@x"
    cloud("create_secret", "CreateSecretRequest", SecretName=name, VersionId="v1", SecretData="pässword")
    cloud("put_secret_value", "PutSecretValueRequest", SecretName=name, VersionId="v2", SecretData="another")
    calls = Gateway(server, cloud.client_key("gateway-secret", [f"secret/{name}"]))
    # The role of keys is none of secrets.
    assert calls.refused("get_secret_value", secret_name=name) == ("Forbidden.ResourceNotFound", 404)
    permissions = lambda role: cloud("update_policy", "UpdatePolicyRequest", Name="gateway-secret",
                                     Permissions=json.dumps([f"RbacPermission/Template/{role}"]))
    permissions("CryptoServiceSecretUser")
    value = calls("get_secret_value", secret_name=name)
    assert (value.secret_name, value.secret_data, value.secret_data_type) == (name, "another", "text")
    assert (value.version_id, list(value.version_stages), value.secret_type) == ("v2", ["ACSCurrent"], "Generic")
    assert value.create_time.endswith("Z")
    value = calls("get_secret_value", secret_name=name, version_stage="ACSPrevious", fetch_extended_config=True)
    assert (value.secret_data, value.version_id) == ("pässword", "v1")
    assert calls("get_secret_value", secret_name=name, version_id="v1").secret_data == "pässword"
    for wrong, refusal in (({"version_id": "v9"}, ("Forbidden.ResourceNotFound", 404)), ({"version_stage": "a b"}, ("InvalidParameter", 400)),
                           ({"version_id": "v1", "version_stage": "ACSCurrent"}, ("InvalidParameter", 400))):
        assert calls.refused("get_secret_value", secret_name=name, **wrong) == refusal, wrong
    assert calls.refused("get_secret_value", secret_name="gateway/other") == ("Forbidden.ResourceNotFound", 404)
    permissions("CryptoServiceKeyUser")
    assert calls.refused("get_secret_value", secret_name=name) == ("Forbidden.ResourceNotFound", 404)
    permissions("CryptoServiceSecretUser")
    cloud("update_policy", "UpdatePolicyRequest", Name="gateway-secret", Resources=json.dumps(["secret/gateway/other"]))
    assert calls.refused("get_secret_value", secret_name=name) == ("Forbidden.ResourceNotFound", 404)


def test_what_is_taken_away_is_refused_on_the_connection_that_is_open(server, cloud):
    own = cloud.key("Aliyun_AES_256", "ENCRYPT/DECRYPT")
    content = cloud.client_key("gateway-one", [f"key/{own}"])
    calls = Gateway(server, content)
    calls("encrypt", key_id=own, plaintext=b"x")
    other = cloud.key("Aliyun_AES_256", "ENCRYPT/DECRYPT")
    assert calls.refused("encrypt", key_id=other, plaintext=b"x") == ("Forbidden.KeyNotFound", 404)
    cloud("update_policy", "UpdatePolicyRequest", Name="gateway-one", Resources=json.dumps([f"key/{other}"]))
    assert calls.refused("encrypt", key_id=own, plaintext=b"x") == ("Forbidden.KeyNotFound", 404)
    calls("encrypt", key_id=other, plaintext=b"x")
    cloud("update_network_rule", "UpdateNetworkRuleRequest", Name="gateway-one", SourcePrivateIp=json.dumps(["192.0.2.0/24"]))
    assert calls.refused("encrypt", key_id=other, plaintext=b"x") == ("Forbidden.KeyNotFound", 404)
    cloud("update_network_rule", "UpdateNetworkRuleRequest", Name="gateway-one", SourcePrivateIp=json.dumps([server.source]))
    cloud("update_policy", "UpdatePolicyRequest", Name="gateway-one",
          Permissions=json.dumps(["RbacPermission/Template/CryptoServiceSecretUser"]))
    assert calls.refused("encrypt", key_id=other, plaintext=b"x") == ("Forbidden.KeyNotFound", 404)
    assert calls.refused("generate_random", length=8)[1] == 403
    cloud("update_policy", "UpdatePolicyRequest", Name="gateway-one",
          Permissions=json.dumps(["RbacPermission/Template/CryptoServiceKeyUser"]))
    calls("encrypt", key_id=other, plaintext=b"x")
    cloud("delete_client_key", "DeleteClientKeyRequest", ClientKeyId=json.loads(content)["KeyId"])
    assert calls.refused("generate_random", length=8) == ("SignatureNotMatch", 401)


def test_a_client_key_that_nobody_knows_is_refused_as_a_wrong_signature_is(server, cloud):
    content = json.loads(cloud.client_key("gateway-stranger", ["key/*"]))
    content["KeyId"] = f"KAAP.{UNKNOWN}"
    stranger = Gateway(server, json.dumps(content))
    assert stranger.refused("generate_random", length=8) == ("SignatureNotMatch", 401)


def test_a_client_key_ends_with_its_time_and_with_its_access_point(server, cloud):
    cloud.client_key("gateway-ends", ["key/*"])
    parameters = {"AapName": "gateway-ends", "Password": PASSWORD}
    until = int(time.time()) + 4
    moment = lambda seconds: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    made = cloud("create_client_key", "CreateClientKeyRequest", NotBefore=moment(until - 3600), NotAfter=moment(until), **parameters)
    calls = Gateway(server, json.dumps({"KeyId": made["ClientKeyId"], "PrivateKeyData": made["PrivateKeyData"]}))
    calls("generate_random", length=8)
    while time.time() < until + 0.5:
        time.sleep(0.2)
    assert calls.refused("generate_random", length=8) == ("SignatureNotMatch", 401)
    made = cloud("create_client_key", "CreateClientKeyRequest", **parameters)
    calls = Gateway(server, json.dumps({"KeyId": made["ClientKeyId"], "PrivateKeyData": made["PrivateKeyData"]}))
    calls("generate_random", length=8)
    cloud("delete_application_access_point", "DeleteApplicationAccessPointRequest", Name="gateway-ends")
    assert calls.refused("generate_random", length=8) == ("SignatureNotMatch", 401)
