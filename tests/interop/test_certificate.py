"""Certificates by the cloud's published Python SDKs that have them: every operation, with its documented errors. The newest SDK dropped them; the
older `aliyun-python-sdk-kms` has them, and so has `alibabacloud_kms20160120` up to 2.3, which wants an environment of its own
(`requirements-certificate.txt`). Keys and signatures are checked outside of keymill: by `cryptography`, those of SM2 by the `openssl` command."""

import base64
import hashlib
import json
import re
import uuid

import pytest
from alibabacloud_kms20160120 import models
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from server_process import BULK_MODE
from test_sdks import KINDS, UNKNOWN
from x509_made import DAY, NOW, SM2_ID, alt_names, basic_constraints, certificate_authority, certify, openssl, usage

HAS_TEA = hasattr(models, "CreateCertificateRequest")
SPECS = ["RSA_2048", "EC_P256", "EC_SM2"]
SIGN = {"RSA_2048": ["RSA_PKCS1_SHA_256", "RSA_PSS_SHA_256"], "EC_P256": ["ECDSA_SHA_256"], "EC_SM2": ["SM2DSA"]}
# Each with the longest plaintext.
ENCRYPT = {"RSA_2048": {"RSAES_OAEP_SHA_1": 214, "RSAES_OAEP_SHA_256": 190}, "EC_P256": {}, "EC_SM2": {"SM2PKE": 6_047}}
SUBJECT = "CN=orders.example.com,OU=kms,O=Example,C=CN"
# The same as `x509_made` writes names: in the order of the encoding.
SUBJECT_NAME = "C=CN,O=Example,OU=kms,CN=orders.example.com"
NAMES = ["orders.example.com", "*.orders.example.com"]
NOT_FOUND = ("Certificate.NotFound", 404)
WRONG = ("InvalidParameter", 400)
# The documents have no code of its own for what is too long.
TOO_LONG = ("Rejected.LimitExceeded.PlaintextBytes", 400)
# What may not be done in the state that a certificate is in; the documents name no code for it.
STATE, DISABLED = ("Rejected.StateModifiedFailed", 409), ("Rejected.Disabled", 409)


@pytest.fixture(params=KINDS if HAS_TEA else ["core"])
def sdk(request, server):
    return KINDS[request.param](server)


@pytest.fixture(scope="session")
def issuers(tmp_path_factory):
    """By key spec: a root, and an intermediate that it certified."""
    made, directory = {}, tmp_path_factory.mktemp("issuers")

    def of(spec):
        if spec not in made:
            root = certificate_authority(spec, directory, "C=CN,O=Example,CN=Root")
            made[spec] = root, certificate_authority(spec, directory, "C=CN,O=Example,CN=Issuing", root, 0)
        return made[spec]

    return of


def text(data):
    return base64.b64encode(data).decode()


def create(sdk, spec, subject=SUBJECT, names=NAMES, **more):
    """Makes a certificate that waits for its upload. A token that has no such keys refuses it by name, and the test ends."""
    parameters = {"KeySpec": spec, "Subject": subject, **more}
    if names is not None:
        parameters["SubjectAlternativeNames"] = json.dumps(names) if is_core(sdk) else names
    if BULK_MODE and spec == "EC_SM2":
        assert sdk.refused("CreateCertificate", **parameters) == ("UnsupportedOperation", 400)
        pytest.skip("the module has no SM2")
    return sdk("CreateCertificate", **parameters)


def is_core(sdk):
    return hasattr(sdk, "endpoint")


def refusal(sdk, operation, **parameters):
    """The code, the status and the message of a refusal."""
    with pytest.raises(Exception) as caught:
        sdk(operation, **parameters)
    told = caught.value
    if is_core(sdk):
        return (told.get_error_code(), told.get_http_status()), told.get_error_msg()
    return (told.code, told.data["HttpStatus"]), told.data["Message"]


def public_key(sdk, certificate):
    """The public key of a certificate: its PEM, and its DER."""
    written = sdk("DescribeCertificate", CertificateId=certificate)["SubjectPublicKey"]
    assert written.startswith("-----BEGIN PUBLIC KEY-----\n")
    return written, base64.b64decode("".join(written.split("\n")[1:-2]))


def issue(sdk, certificate, issuer, **more):
    """What an authority makes of the request of a certificate."""
    parts = {"subject": SUBJECT_NAME, "extensions": [basic_constraints(False), usage(0, 2), alt_names(*NAMES)], **more}
    return certify(spki=public_key(sdk, certificate)[1], issuer=issuer, **parts)


def active(sdk, issuers, spec, **more):
    """The id of a certificate that was created, issued and uploaded."""
    certificate = create(sdk, spec, **more)["CertificateId"]
    root, issuing = issuers(spec)
    made = issue(sdk, certificate, issuing)
    sdk("UploadCertificate", CertificateId=certificate, Certificate=made.pem, CertificateChain=issuing.pem + root.pem)
    return certificate


class Outside:
    """The public half of a certificate's key outside of keymill."""

    def __init__(self, sdk, certificate, directory):
        self.pem, _ = public_key(sdk, certificate)
        self.directory, self.file = directory, directory / "public.pem"
        self.file.write_text(self.pem)

    def verifies(self, algorithm, signature, message):
        if algorithm == "SM2DSA":
            return self._run("-verify", "-rawin", "-digest", "sm3", "-pkeyopt", SM2_ID, message=message, signature=signature).returncode == 0
        public = serialization.load_pem_public_key(self.pem.encode())
        try:
            if algorithm == "ECDSA_SHA_256":
                public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            else:
                salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
                public.verify(signature, message, salted if "PSS" in algorithm else padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def encrypts(self, algorithm, plaintext):
        if algorithm == "SM2PKE":
            done = self._run("-encrypt", message=plaintext)
            assert done.returncode == 0, done.stderr
            return done.stdout
        digest = hashes.SHA1 if algorithm.endswith("SHA_1") else hashes.SHA256
        public = serialization.load_pem_public_key(self.pem.encode())
        return public.encrypt(plaintext, padding.OAEP(padding.MGF1(digest()), digest(), None))

    def _run(self, what, *options, message, signature=None):
        (self.directory / "message").write_bytes(message)
        if signature is not None:
            (self.directory / "signature").write_bytes(signature)
            options += ("-sigfile", self.directory / "signature")
        return openssl("pkeyutl", what, "-pubin", "-inkey", self.file, "-in", self.directory / "message", *options, check=False)


def digest_of(algorithm, message, spki):
    """What a caller of `DIGEST` makes of a message: of SM2 with the identity and the key before it (GB/T 32918.2 §5.5)."""
    if algorithm != "SM2DSA":
        return hashlib.sha256(message).digest()
    curve = bytes.fromhex(
        "fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93"
        "32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0"
    )
    identity = SM2_ID.removeprefix("distid:").encode()
    sm3 = lambda data: hashlib.new("sm3", data).digest()
    return sm3(sm3((len(identity) * 8).to_bytes(2, "big") + identity + curve + spki[-64:]) + message)


@pytest.mark.parametrize("spec", SPECS)
def test_a_certificate_is_made_uploaded_and_ends(sdk, issuers, spec, tmp_path):
    made = create(sdk, spec)
    certificate = made["CertificateId"]
    uuid.UUID(certificate)
    assert made["Arn"].startswith("acs:kms:") and made["Arn"].endswith(f":certificate/{certificate}")

    # The request says what was asked for, and is signed by the key that it is for.
    (tmp_path / "csr.pem").write_text(made["Csr"])
    openssl("req", "-in", tmp_path / "csr.pem", "-verify", "-noout", *(["-vfyopt", SM2_ID] if spec == "EC_SM2" else []))
    request = x509.load_pem_x509_csr(made["Csr"].encode())
    assert request.subject.rfc4514_string() == SUBJECT
    named = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert named.get_values_for_type(x509.DNSName) == NAMES
    if spec != "EC_SM2":
        assert request.is_signature_valid
    written, spki = public_key(sdk, certificate)
    assert openssl("req", "-in", tmp_path / "csr.pem", "-noout", "-pubkey").decode() == written

    described = sdk("DescribeCertificate", CertificateId=certificate)
    assert (described["CertificateId"], described["Arn"], described["Status"]) == (certificate, made["Arn"], "PENDING")
    # What is in a token never leaves it.
    assert (described["KeySpec"], described["Subject"], described["ExportablePrivateKey"]) == (spec, SUBJECT, not BULK_MODE)
    assert described["SubjectAlternativeNames"] == NAMES and described["CreatedAt"].endswith("Z")
    held = sdk("GetCertificate", CertificateId=certificate)
    assert (held["CertificateId"], held["Csr"]) == (certificate, made["Csr"])
    assert not held.get("Certificate") and not held.get("CertificateChain")

    root, issuing = issuers(spec)
    issued = issue(sdk, certificate, issuing, serial=0x123456789ABCDEF)
    sdk("UploadCertificate", CertificateId=certificate, Certificate=issued.pem, CertificateChain=issuing.pem + root.pem)
    held = sdk("GetCertificate", CertificateId=certificate)
    chain = x509.load_pem_x509_certificates(held["CertificateChain"].encode())
    assert [c.public_bytes(serialization.Encoding.DER) for c in chain] == [issuing.der, root.der]
    (only,) = x509.load_pem_x509_certificates(held["Certificate"].encode())
    assert only.public_bytes(serialization.Encoding.DER) == issued.der
    described = sdk("DescribeCertificate", CertificateId=certificate)
    assert (described["Status"], described["Subject"]) == ("ACTIVE", SUBJECT)
    assert described["Issuer"] == "CN=Issuing,O=Example,C=CN" and described["SubjectPublicKey"] == written
    algorithm = {"RSA_2048": "RSA2048-SHA256", "EC_P256": "ECDSA-SHA256", "EC_SM2": "SM2-SM3"}[spec]
    assert described["SignatureAlgorithm"] == algorithm
    assert described["NotBefore"] == f"{NOW - DAY:%Y-%m-%dT%H:%M:%SZ}"
    assert described["NotAfter"] == f"{NOW + 90 * DAY:%Y-%m-%dT%H:%M:%SZ}"
    assert int(described["Serial"].replace(" ", "").replace(":", ""), 16) == 0x123456789ABCDEF
    assert bytes.fromhex(described["SubjectKeyIdentifier"]) == hashlib.sha256(spki).digest()[:20]
    assert all(len(pair) == 2 for pair in described["SubjectKeyIdentifier"].split(" "))
    assert described["UpdatedAt"] >= described["CreatedAt"] and described["SubjectAlternativeNames"] == NAMES

    sdk("DeleteCertificate", CertificateId=certificate)
    assert sdk.refused("DescribeCertificate", CertificateId=certificate) == NOT_FOUND
    assert sdk.refused("DeleteCertificate", CertificateId=certificate) == NOT_FOUND


def test_a_certificate_alone_is_uploaded_and_one_that_waits_is_deleted(sdk, issuers):
    """The chain is optional, and it may end before the root."""
    _, issuing = issuers("EC_P256")
    for chain in ({}, {"CertificateChain": issuing.pem}):
        certificate = create(sdk, "EC_P256", names=None, ExportablePrivateKey=False)["CertificateId"]
        issued = issue(sdk, certificate, issuing)
        sdk("UploadCertificate", CertificateId=certificate, Certificate=issued.pem, **chain)
        described = sdk("DescribeCertificate", CertificateId=certificate)
        assert (described["Status"], described["ExportablePrivateKey"]) == ("ACTIVE", False)
    certificate = create(sdk, "EC_P256")["CertificateId"]
    sdk("DeleteCertificate", CertificateId=certificate)
    assert sdk.refused("GetCertificate", CertificateId=certificate) == NOT_FOUND


@pytest.mark.parametrize("spec, algorithm", [(spec, algorithm) for spec in SPECS for algorithm in SIGN[spec]])
def test_what_is_signed_here_is_verified_elsewhere(sdk, issuers, spec, algorithm, tmp_path):
    certificate = active(sdk, issuers, spec)
    outside, (_, spki) = Outside(sdk, certificate, tmp_path), public_key(sdk, certificate)
    common = {"CertificateId": certificate, "Algorithm": algorithm}
    for message in (b"pay 5", bytes(range(256)) * 16):
        for kind, given in (("RAW", message), ("DIGEST", digest_of(algorithm, message, spki))):
            signed = sdk("CertificatePrivateKeySign", MessageType=kind, Message=text(given), **common)
            assert signed["CertificateId"] == certificate
            signature = base64.b64decode(signed["SignatureValue"])
            assert outside.verifies(algorithm, signature, message) and not outside.verifies(algorithm, signature, message + b"0")
            for other, claimed in (("RAW", message), ("DIGEST", digest_of(algorithm, message, spki))):
                check = {**common, "MessageType": other, "SignatureValue": text(signature)}
                verified = sdk("CertificatePublicKeyVerify", Message=text(claimed), **check)
                assert verified["SignatureValid"] is True and verified["CertificateId"] == certificate
                elsewhere = text(bytes([claimed[0] ^ 1]) + claimed[1:])
                assert sdk("CertificatePublicKeyVerify", Message=elsewhere, **check)["SignatureValid"] is False
    for odd in (b"\0", bytes(256), signature[:-1] + bytes([signature[-1] ^ 1])):
        check = {**common, "MessageType": "RAW", "Message": text(message), "SignatureValue": text(odd)}
        assert sdk("CertificatePublicKeyVerify", **check)["SignatureValid"] is False

    for operation, more in (("CertificatePrivateKeySign", {}), ("CertificatePublicKeyVerify", {"SignatureValue": text(signature)})):
        good = {"CertificateId": certificate, "Algorithm": algorithm, "MessageType": "RAW", "Message": text(b"x"), **more}
        assert sdk.refused(operation, **(good | {"Message": text(bytes(4_097))})) == TOO_LONG
        for wrong in ({"MessageType": "DIGEST", "Message": text(bytes(31))},
                      {"MessageType": "DIGEST", "Message": text(bytes(33))}, {"MessageType": "HEX"}, {"Message": "no base64"},
                      {"Algorithm": "RSA_PKCS1_SHA_1"}, {"Algorithm": "ECDSA_SHA_256" if spec != "EC_P256" else "SM2DSA"}):
            assert sdk.refused(operation, **(good | wrong)) == WRONG, wrong
        for name in good:
            if name != "MessageType":  # which RAW is the default of
                code = sdk.refused(operation, **{other: value for other, value in good.items() if other != name})
                assert code == ("MissingParameter", 400), name


@pytest.mark.parametrize("spec, algorithm", [(spec, algorithm) for spec in SPECS for algorithm in ENCRYPT[spec]])
def test_what_is_encrypted_elsewhere_opens_here(sdk, issuers, spec, algorithm, tmp_path):
    certificate, most = active(sdk, issuers, spec), ENCRYPT[spec][algorithm]
    outside, common = Outside(sdk, certificate, tmp_path), {"CertificateId": certificate, "Algorithm": algorithm}
    sealed = outside.encrypts(algorithm, b"pin 1234")
    if BULK_MODE and algorithm == "RSAES_OAEP_SHA_256":
        try:
            sdk("CertificatePrivateKeyDecrypt", CiphertextBlob=text(sealed), **common)
        except Exception as refused:
            assert "UnsupportedOperation" in str(refused)
            pytest.skip(f"the module has no {algorithm}")
    for plaintext in (b"\0", b"pin 1234", bytes(most)):
        made = sdk("CertificatePublicKeyEncrypt", Plaintext=text(plaintext), **common)
        assert made["CertificateId"] == certificate
        for blob in (made["CiphertextBlob"], text(outside.encrypts(algorithm, plaintext))):
            opened = sdk("CertificatePrivateKeyDecrypt", CiphertextBlob=blob, **common)
            assert (opened["Plaintext"], opened["CertificateId"]) == (text(plaintext), certificate)
    assert sdk.refused("CertificatePublicKeyEncrypt", Plaintext=text(bytes(most + 1)), **common) == TOO_LONG
    for bad in (bytes(256), b"\xff" * 256, b"short", sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed + b"\0"):
        assert sdk.refused("CertificatePrivateKeyDecrypt", CiphertextBlob=text(bad), **common) == WRONG, bad
    for operation, given in (("CertificatePublicKeyEncrypt", "Plaintext"), ("CertificatePrivateKeyDecrypt", "CiphertextBlob")):
        good = {**common, given: text(sealed if given == "CiphertextBlob" else b"x")}
        for wrong in ({"Algorithm": "RSAES_PKCS1_V1_5"}, {"Algorithm": "SM2PKE" if spec == "RSA_2048" else "RSAES_OAEP_SHA_1"},
                      {given: "no base64"}):
            assert sdk.refused(operation, **(good | wrong)) == WRONG, wrong
        for name in good:
            code = sdk.refused(operation, **{other: value for other, value in good.items() if other != name})
            assert code == ("MissingParameter", 400), name


def test_a_certificate_takes_the_place_of_the_one_before(sdk, issuers):
    """Where it is issued anew for the same key, as long as it is not revoked."""
    root, issuing = issuers("EC_P256")
    certificate = active(sdk, issuers, "EC_P256")
    arn = sdk("DescribeCertificate", CertificateId=certificate)["Arn"]
    newer = issue(sdk, certificate, issuing, end=NOW + 180 * DAY)
    sdk("UploadCertificate", CertificateId=arn, Certificate=newer.pem, CertificateChain=issuing.pem)
    described = sdk("DescribeCertificate", CertificateId=arn)
    assert (described["CertificateId"], described["NotAfter"]) == (certificate, f"{NOW + 180 * DAY:%Y-%m-%dT%H:%M:%SZ}")
    assert len(x509.load_pem_x509_certificates(sdk("GetCertificate", CertificateId=certificate)["CertificateChain"].encode())) == 1


def test_a_key_that_only_signs_encrypts_nothing(sdk, issuers):
    common = {"CertificateId": active(sdk, issuers, "EC_P256"), "Algorithm": "RSAES_OAEP_SHA_1"}
    assert sdk.refused("CertificatePublicKeyEncrypt", Plaintext="AA==", **common) == WRONG
    assert sdk.refused("CertificatePrivateKeyDecrypt", CiphertextBlob="AA==", **common) == WRONG


def uses(certificate, signature, blob):
    """Each use of a certificate's key, with what is good for it."""
    sign = {"CertificateId": certificate, "Algorithm": "RSA_PKCS1_SHA_256", "MessageType": "RAW", "Message": "AA=="}
    crypt = {"CertificateId": certificate, "Algorithm": "RSAES_OAEP_SHA_1"}
    return {
        "CertificatePrivateKeySign": sign, "CertificatePublicKeyVerify": {**sign, "SignatureValue": signature},
        "CertificatePublicKeyEncrypt": {**crypt, "Plaintext": "AA=="}, "CertificatePrivateKeyDecrypt": {**crypt, "CiphertextBlob": blob},
    }


def test_what_is_done_with_a_certificate_follows_its_state(sdk, issuers):
    certificate = create(sdk, "RSA_2048")["CertificateId"]
    status = lambda: sdk("DescribeCertificate", CertificateId=certificate)["Status"]
    turn = lambda to: sdk("UpdateCertificateStatus", CertificateId=certificate, Status=to)

    def only(*good):
        """Of the uses of the key, these are served, and each other one is refused with the state that it is in."""
        for operation, parameters in uses(certificate, signature, blob).items():
            if operation in good:
                sdk(operation, **parameters)
            else:
                code, told = refusal(sdk, operation, **parameters)
                assert code == (STATE if status() == "PENDING" else DISABLED) and status() in told, (operation, code, told)

    signature, blob = text(bytes(256)), text(bytes(256))
    only()
    for to in ("ACTIVE", "INACTIVE", "REVOKED"):
        assert sdk.refused("UpdateCertificateStatus", CertificateId=certificate, Status=to) == STATE
    assert status() == "PENDING"

    root, issuing = issuers("RSA_2048")
    given = {"CertificateId": certificate, "Certificate": issue(sdk, certificate, issuing).pem, "CertificateChain": issuing.pem + root.pem}
    sdk("UploadCertificate", **given)
    every = list(uses(certificate, "", ""))
    signature = sdk(every[0], **uses(certificate, "", "")[every[0]])["SignatureValue"]
    blob = sdk(every[2], **uses(certificate, "", "")[every[2]])["CiphertextBlob"]
    only(*every)

    # Older pages of the cloud write two other words for it.
    for word in ("INACTIVE", "DISABLED", "DISABLE"):
        turn(word)
        assert status() == "INACTIVE"
        only()
        turn("ACTIVE")
        assert status() == "ACTIVE"
        only(*every)
    for wrong in ("PENDING", "active", "GONE", ""):
        code, _ = refusal(sdk, "UpdateCertificateStatus", CertificateId=certificate, Status=wrong)
        assert code in (WRONG, ("MissingParameter", 400)), wrong

    turn("REVOKED")
    assert status() == "REVOKED"
    only("CertificatePublicKeyVerify")
    check = uses(certificate, signature, blob)["CertificatePublicKeyVerify"]
    assert sdk("CertificatePublicKeyVerify", **check)["SignatureValid"] is True
    for to in ("ACTIVE", "INACTIVE"):
        assert sdk.refused("UpdateCertificateStatus", CertificateId=certificate, Status=to) == STATE
    assert sdk.refused("UploadCertificate", **given) == STATE
    assert status() == "REVOKED"
    assert sdk("GetCertificate", CertificateId=certificate)["Certificate"]
    sdk("DeleteCertificate", CertificateId=certificate)


@pytest.mark.parametrize("operation, parameters", [
    ("GetCertificate", {}), ("DescribeCertificate", {}), ("UpdateCertificateStatus", {"Status": "INACTIVE"}), ("DeleteCertificate", {}),
    ("UploadCertificate", {"Certificate": None}),
    ("CertificatePrivateKeySign", {"Algorithm": "ECDSA_SHA_256", "MessageType": "RAW", "Message": "AA=="}),
    ("CertificatePublicKeyVerify", {"Algorithm": "ECDSA_SHA_256", "MessageType": "RAW", "Message": "AA==", "SignatureValue": "AA=="}),
    ("CertificatePublicKeyEncrypt", {"Algorithm": "RSAES_OAEP_SHA_1", "Plaintext": "AA=="}),
    ("CertificatePrivateKeyDecrypt", {"Algorithm": "RSAES_OAEP_SHA_1", "CiphertextBlob": "AA=="}),
    ("TagResource", {"Tags": '[{"TagKey":"a","TagValue":"b"}]'}), ("UntagResource", {"TagKeys": '["a"]'}),
], ids=lambda part: part if isinstance(part, str) else "")
def test_a_certificate_that_is_not_there_is_not_found(sdk, issuers, operation, parameters):
    given = {name: issuers("EC_P256")[0].pem if value is None else value for name, value in parameters.items()}
    assert sdk.refused(operation, CertificateId=UNKNOWN, **given) == NOT_FOUND
    # An id that is none of a certificate is one of none.
    key = sdk("CreateKey")["KeyMetadata"]["KeyId"]
    assert sdk.refused(operation, CertificateId=key, **given) == NOT_FOUND
    assert sdk.refused(operation, CertificateId="no uuid", **given) in (NOT_FOUND, WRONG)
    if operation not in ("TagResource", "UntagResource"):
        assert sdk.refused(operation, **given) == ("MissingParameter", 400)
    for name in given:
        rest = {other: value for other, value in given.items() if other != name}
        if name != "MessageType":  # which RAW is the default of
            assert sdk.refused(operation, CertificateId=UNKNOWN, **rest) == ("MissingParameter", 400)


def test_the_key_of_a_certificate_is_reached_by_its_certificate_alone(sdk, issuers):
    certificate = active(sdk, issuers, "RSA_2048")
    assert sdk.refused("DescribeKey", KeyId=certificate) == ("Forbidden.KeyNotFound", 404)
    page, keys = 1, []
    while rows := sdk("ListKeys", PageNumber=page, PageSize=100)["Keys"]["Key"]:
        keys += [row["KeyId"] for row in rows]
        page += 1
    public, _ = public_key(sdk, certificate)
    for key in keys:
        if sdk("DescribeKey", KeyId=key)["KeyMetadata"]["KeySpec"] == "RSA_2048":
            version = sdk("ListKeyVersions", KeyId=key)["KeyVersions"]["KeyVersion"][0]["KeyVersionId"]
            assert sdk("GetPublicKey", KeyId=key, KeyVersionId=version)["PublicKey"] != public


@pytest.mark.parametrize("wrong, why", [
    ({"KeySpec": "DES"}, "KeySpec|DES"), ({"KeySpec": "Aliyun_AES_256"}, "KeySpec|AES"), ({"KeySpec": "HMAC_SHA_256"}, "KeySpec|HMAC"),
    ({"Subject": "OU=kms,O=Example,C=CN"}, "CN"), ({"Subject": "CN=x,O=Example,C=CN"}, "OU"),
    ({"Subject": "CN=x,OU=kms,C=CN"}, r"\bO\b"), ({"Subject": "CN=x,OU=kms,O=Example"}, r"\bC\b"),
    ({"Subject": "orders"}, "orders"), ({"Subject": "CN=x,OU=kms,O=Example,C=China"}, "C"),
    ({"Subject": "CN=x,OU=kms,O=Example,C=CN,COLOUR=red"}, "COLOUR"), ({"Subject": "CN=,OU=kms,O=Example,C=CN"}, "CN"),
    ({"Subject": f"CN={'x' * 65},OU=kms,O=Example,C=CN"}, "CN.*64"), ({"Subject": f"CN=x,OU=kms,O={'x' * 3000},C=CN"}, "characters"),
    ({"Subject": "CN=good.example\\00.evil.example,OU=kms,O=Example,C=CN"}, "CN.*U\\+0000"),
    ({"Subject": "CN=good.example\u202egro.live,OU=kms,O=Example,C=CN"}, "CN.*U\\+202E"),
    ({"Subject": "CN=good\u200b.example,OU=kms,O=Example,C=CN"}, "CN.*U\\+200B"),
    ({"Subject": "CN=x\\ff,OU=kms,O=Example,C=CN"}, "UTF-8"), ({"Subject": "CN=#0403020100,OU=kms,O=Example,C=CN"}, "hexadecimal|#"),
    ({"names": [f"n{n}.example" for n in range(11)]}, "10"), ({"names": ["a..example"]}, "a\\.\\.example"),
    ({"names": ["ехample.com"]}, "ASCII|xn--"), ({"names": ["good.example\0.evil.example"]}, "good"), ({"names": ["a b.example"]}, "label"),
    ({"names": ["x" * 64 + ".example"]}, "63"), ({"names": [""]}, "1 to 253|empty"), ({"names": [5]}, "SubjectAlternativeNames"),
    ({"names": ["a.*.example"]}, "label"), ({"names": {"a": "b"}}, "SubjectAlternativeNames"),
], ids=lambda part: "" if isinstance(part, str) else ascii(str(part))[:60])
def test_what_is_wrong_with_a_new_certificate_is_told(sdk, wrong, why):
    wrong = dict(wrong)
    if "names" in wrong:
        names = wrong.pop("names")
        wrong["SubjectAlternativeNames"] = json.dumps(names) if is_core(sdk) else names
    code, told = refusal(sdk, "CreateCertificate", **({"KeySpec": "EC_P256", "Subject": SUBJECT} | wrong))
    assert code == WRONG
    assert re.search(why, told), told


def test_what_a_certificate_cannot_be_made_without_is_named(sdk):
    assert sdk.refused("CreateCertificate", KeySpec="EC_P256") == ("MissingParameter", 400)
    assert sdk.refused("CreateCertificate", Subject=SUBJECT) == ("MissingParameter", 400)
    if is_core(sdk):  # the other writes both anew
        good = {"KeySpec": "EC_P256", "Subject": SUBJECT}
        for odd in ('"a.example"', "[", '["a.example"', "{}", '[["a.example"]]'):
            assert sdk.refused("CreateCertificate", SubjectAlternativeNames=odd, **good) == WRONG, odd
        assert sdk.refused("CreateCertificate", ExportablePrivateKey="perhaps", **good) == WRONG


def test_certificates_have_tags(sdk):
    certificate = create(sdk, "EC_P256")["CertificateId"]
    sdk("TagResource", CertificateId=certificate, Tags=json.dumps([{"TagKey": "team", "TagValue": "pay ü*~"}, {"TagKey": "n", "TagValue": ""}]))

    def listed():
        return sdk("DescribeCertificate", CertificateId=certificate)["Tags"]

    assert listed() == {"team": "pay ü*~", "n": ""}
    sdk("TagResource", CertificateId=certificate, Tags=json.dumps([{"TagKey": "n", "TagValue": "2"}]))
    assert listed() == {"team": "pay ü*~", "n": "2"}
    sdk("UntagResource", CertificateId=certificate, TagKeys=json.dumps(["n", "absent"]))
    assert listed() == {"team": "pay ü*~"}
    assert sdk.refused("TagResource", CertificateId=certificate, Tags='[{"TagKey":"acs:x","TagValue":""}]') == WRONG
    # One resource alone is tagged.
    key = sdk("CreateKey")["KeyMetadata"]["KeyId"]
    for more in ({"KeyId": key}, {"SecretName": "absent"}):
        assert sdk.refused("TagResource", CertificateId=certificate, Tags='[{"TagKey":"a","TagValue":""}]', **more) == WRONG
        assert sdk.refused("UntagResource", CertificateId=certificate, TagKeys='["a"]', **more) == WRONG
    sdk("DeleteCertificate", CertificateId=certificate)
    assert sdk.refused("UntagResource", CertificateId=certificate, TagKeys='["team"]') == NOT_FOUND
