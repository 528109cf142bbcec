"""Certificates that come with their keys and leave with them: PKCS #12 (RFC 7292) of `cryptography` and of the `openssl` command is taken, and what
keymill gives out is opened by both. Through operations of keymill's own, which no SDK has."""

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.serialization import pkcs12
from http_front import b64
from test_certificate import issuers  # noqa: F401
from x509_made import DAY, NOW, Key, alt_names, basic_constraints, certify, openssl, usage

PASSWORD = "Passw0rd of a tést"
SPECS = ["RSA_2048", "EC_P256"]
WRONG = ("InvalidParameter", 400)


class Pair:
    """A key outside of keymill, and a certificate of it that an authority issued."""

    def __init__(self, spec, issuers, directory, **odd):
        self.root, self.issuing = issuers(spec)
        self.key = Key(spec, directory)
        parts = {"extensions": [basic_constraints(False), usage(0, 2), alt_names("orders.example.com")], **odd}
        self.made = certify("C=CN,O=Example,CN=orders", self.key.spki, self.issuing, **parts)
        self.chain = self.issuing.pem + self.root.pem

    def pkcs8(self):
        return self.key.private.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def container(self, password=PASSWORD, encryption=None, key=None):
        load = x509.load_der_x509_certificate
        encryption = encryption or serialization.BestAvailableEncryption(password.encode())
        return pkcs12.serialize_key_and_certificates(
            b"orders", key or self.key.private, load(self.made.der), [load(self.issuing.der), load(self.root.der)], encryption)


@pytest.fixture(params=SPECS)
def pair(request, issuers, tmp_path):
    return Pair(request.param, issuers, tmp_path)


def refused(front, operation, parameters):
    answer = front.post(operation, parameters)
    error = answer.error()
    return (error["Code"], answer.status), error["Message"]


def is_held(front, certificate, pair):
    """That a certificate is there whole, and its key is the one that came."""
    described = front.call("DescribeCertificate", {"CertificateId": certificate})
    assert (described["Status"], described["Origin"], described["KeySpec"]) == ("ACTIVE", "IMPORTED", pair.key.kind)
    assert (described["Subject"], described["Issuer"]) == ("CN=orders,O=Example,C=CN", "CN=Issuing,O=Example,C=CN")
    held = front.call("GetCertificate", {"CertificateId": certificate})
    whole = x509.load_pem_x509_certificates((held["Certificate"] + held["CertificateChain"]).encode())
    assert [c.public_bytes(serialization.Encoding.DER) for c in whole] == [pair.made.der, pair.issuing.der, pair.root.der]
    algorithm = {"RSA_2048": "RSA_PKCS1_SHA_256", "EC_P256": "ECDSA_SHA_256"}[pair.key.kind]
    signed = front.call("CertificatePrivateKeySign", {"CertificateId": certificate, "Algorithm": algorithm, "Message": b64(b"pay 5")})
    verifies(pair.key.private.public_key(), signed["SignatureValue"], b"pay 5")


def verifies(public, signature, message):
    signature = base64.b64decode(signature)
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    else:
        public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())


def test_a_key_and_its_certificate_are_taken_over(front, pair):
    made = front.call("ImportCertificate", {"Certificate": pair.made.pem, "CertificateChain": pair.chain, "PrivateKey": b64(pair.pkcs8())})
    is_held(front, made["CertificateId"], pair)
    described = front.call("DescribeCertificate", {"CertificateId": made["CertificateId"]})
    assert described["ExportablePrivateKey"] is False
    assert front.call("GetCertificate", {"CertificateId": made["CertificateId"]}).get("Csr") is None


def test_containers_of_cryptography_and_of_openssl_are_taken(front, pair, tmp_path):
    made = front.call("ImportCertificate", {"Pkcs12": b64(pair.container()), "Password": PASSWORD})
    is_held(front, made["CertificateId"], pair)
    for name, text in (("cert", pair.made.pem), ("chain", pair.chain)):
        (tmp_path / name).write_text(text)
    (tmp_path / "key").write_bytes(pair.key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    for options in ((), ("-keypbe", "AES-128-CBC", "-certpbe", "AES-128-CBC", "-macalg", "SHA512"), ("-certpbe", "NONE")):
        openssl("pkcs12", "-export", "-in", tmp_path / "cert", "-inkey", tmp_path / "key", "-certfile", tmp_path / "chain",
                "-passout", f"pass:{PASSWORD}", "-out", tmp_path / "container", *options)
        made = front.call("ImportCertificate", {"Pkcs12": b64((tmp_path / "container").read_bytes()), "Password": PASSWORD})
        is_held(front, made["CertificateId"], pair)


def test_a_container_that_does_not_open_is_refused(front, pair):
    container = pair.container()
    for password in ("Passw0rd of a test", "", PASSWORD.upper()):
        code, told = refused(front, "ImportCertificate", {"Pkcs12": b64(container), "Password": password})
        assert code == WRONG, (code, told)
    assert refused(front, "ImportCertificate", {"Pkcs12": b64(container)})[0] in (WRONG, ("MissingParameter", 400))
    for at in range(0, len(container), 97):
        altered = bytearray(container)
        altered[at] ^= 1 << at % 8
        answer = front.post("ImportCertificate", {"Pkcs12": b64(bytes(altered)), "Password": PASSWORD})
        assert answer.status == 400 and PASSWORD not in answer.body.decode(), (at, answer.body)
    for odd in (b"", b"\x30", b"\x30\x80" * 5_000, container[:-1], container + b"\0", container[:len(container) // 2], bytes(300_000)):
        assert refused(front, "ImportCertificate", {"Pkcs12": b64(odd), "Password": PASSWORD})[0][1] == 400


def test_a_key_that_is_none_of_the_certificate_is_refused(front, pair, tmp_path):
    other = Key(pair.key.kind, tmp_path)
    stranger = other.private.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    code, told = refused(front, "ImportCertificate", {"Certificate": pair.made.pem, "PrivateKey": b64(stranger)})
    assert code == WRONG and "key" in told
    for odd in (b"", b"\x30\x00", pair.pkcs8()[:-1], pair.pkcs8() + b"\0", pair.key.spki,
                pair.key.private.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
                                               serialization.BestAvailableEncryption(b"x"))):
        assert refused(front, "ImportCertificate", {"Certificate": pair.made.pem, "PrivateKey": b64(odd)})[0][1] == 400
    for parameters in ({}, {"Certificate": pair.made.pem}, {"PrivateKey": b64(pair.pkcs8())}, {"Password": PASSWORD}):
        assert refused(front, "ImportCertificate", parameters)[0] in (WRONG, ("MissingParameter", 400))
    both = {"Certificate": pair.made.pem, "PrivateKey": b64(pair.pkcs8()), "Pkcs12": b64(pair.container()), "Password": PASSWORD}
    assert refused(front, "ImportCertificate", both)[0] == WRONG


def test_what_is_wrong_with_a_chain_is_told_of_an_import_too(front, pair, issuers, tmp_path):
    given = {"Certificate": pair.made.pem, "PrivateKey": b64(pair.pkcs8())}
    code, told = refused(front, "ImportCertificate", {**given, "CertificateChain": pair.root.pem + pair.issuing.pem})
    assert code == WRONG, told
    old = Pair(pair.key.kind, issuers, tmp_path, start=NOW - 30 * DAY, end=NOW - DAY)
    code, told = refused(front, "ImportCertificate", {"Pkcs12": b64(old.container()), "Password": PASSWORD})
    assert code == WRONG and "expire" in told, told


@pytest.mark.parametrize("curve", ["Ed25519", "EC_P521"])
def test_keys_of_kinds_that_are_not_kept_are_refused_by_name(front, issuers, tmp_path, curve):
    root, issuing = issuers("EC_P256")
    private = ed25519.Ed25519PrivateKey.generate() if curve == "Ed25519" else ec.generate_private_key(ec.SECP521R1())
    der = private.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    spki = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    made = certify("C=CN,O=Example,CN=orders", spki, issuing)
    answer = front.post("ImportCertificate", {"Certificate": made.pem, "PrivateKey": b64(der)})
    if curve == "Ed25519":  # which certificates have here
        assert answer.json()["CertificateId"]
        return
    assert answer.status == 400 and answer.error()["Code"] in ("InvalidParameter", "UnsupportedOperation")


def test_what_leaves_is_opened_by_cryptography_and_by_openssl(front, pair, tmp_path):
    made = front.call("ImportCertificate", {"Pkcs12": b64(pair.container()), "Password": PASSWORD, "ExportablePrivateKey": True})
    asked = {"CertificateId": made["CertificateId"], "Password": "Another Passw0rd"}
    container = base64.b64decode(front.call("ExportCertificate", asked)["Pkcs12"])
    key, own, others = pkcs12.load_key_and_certificates(container, asked["Password"].encode())
    assert key.private_numbers() == pair.key.private.private_numbers()
    whole = [c.public_bytes(serialization.Encoding.DER) for c in [own, *others]]
    assert whole[0] == pair.made.der and set(whole[1:]) == {pair.issuing.der, pair.root.der}
    with pytest.raises(ValueError):
        pkcs12.load_key_and_certificates(container, PASSWORD.encode())
    (tmp_path / "container").write_bytes(container)
    told = openssl("pkcs12", "-in", tmp_path / "container", "-passin", f"pass:{asked['Password']}", "-nodes").decode()
    assert told.count("BEGIN CERTIFICATE") == 3 and told.count("BEGIN PRIVATE KEY") == 1
    # It comes back as it left.
    again = front.call("ImportCertificate", {"Pkcs12": b64(container), "Password": asked["Password"]})
    is_held(front, again["CertificateId"], pair)
    # That one was not to leave again.
    code, told = refused(front, "ExportCertificate", {**asked, "CertificateId": again["CertificateId"]})
    assert code[1] in (400, 403, 409), (code, told)
    assert refused(front, "ExportCertificate", {**asked, "Password": "short"})[0] == WRONG


def test_certificates_are_found_by_what_they_say(front, issuers, tmp_path):
    mark = f"m{hex(id(tmp_path))[2:]}.example"
    ids = []
    for days in (10, 20, 40):
        pair = Pair("EC_P256", issuers, tmp_path, end=NOW + days * DAY, extensions=[basic_constraints(False), alt_names(mark)])
        made = {"Certificate": pair.made.pem, "PrivateKey": b64(pair.pkcs8()), "Tags": [{"TagKey": "days", "TagValue": str(days)}]}
        ids.append(front.call("ImportCertificate", made)["CertificateId"])
    named = {"Key": "Name", "Values": [mark]}

    def found(*filters, **more):
        listed = front.call("ListCertificates", {"Filters": [named, *filters], "PageSize": 100, **more})
        return [row["CertificateId"] for row in listed["Certificates"]["Certificate"]]

    assert found() == ids
    assert found(ExpiresBefore=f"{NOW + 30 * DAY:%Y-%m-%dT%H:%M:%SZ}") == ids[:2]
    assert found({"Key": "TagValue", "Values": ["20"]}) == ids[1:2]
    assert found({"Key": "Issuer", "Values": ["Issuing"]}, {"Key": "Status", "Values": ["ACTIVE"]}) == ids
    front.call("UpdateCertificateStatus", {"CertificateId": ids[0], "Status": "REVOKED"})
    assert found({"Key": "Status", "Values": ["REVOKED"]}) == ids[:1]
    page = front.call("ListCertificates", {"Filters": [named], "PageNumber": 2, "PageSize": 2})
    assert (page["TotalCount"], [row["CertificateId"] for row in page["Certificates"]["Certificate"]]) == (3, ids[2:])
    assert refused(front, "ListCertificates", {"Filters": [{"Key": "Colour", "Values": ["red"]}]})[0] == WRONG
