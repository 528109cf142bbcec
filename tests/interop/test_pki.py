"""What the internal authority issues and revokes, seen by those who are to trust it: the `openssl` command, the path validation of `cryptography`,
and the linters of `pkilint`, each by what the server hands out over plain HTTP and nothing else."""

import base64
import contextlib
import http.client
import importlib
import io
import json
import re
import urllib.parse
import uuid
from datetime import datetime, timedelta, timezone

import instances
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from http_front import Front
from server_process import ServerProcess
from x509_made import (DAY, NOW, SM2_ID, Key, Made, alt_names, basic_constraints, certificate_authority, certify, extension, name, oid,
                       openssl, pem, request, sequence, tlv, usage)

SPECS = ["RSA_2048", "EC_P256", "EC_P384"]
# Where applications are told to look; nothing resolves it here, so that what a tool asks for is handed to it.
PUBLIC = "http://pki.example.com"
CONFIG = f'[authorities]\npublic_url = "{PUBLIC}"\n'
HOST = "orders.shop.example.com"
# Of CA/Browser Forum's rules, those that a private authority does not follow: it has no policies of the forum's; its intermediates are for whatever
# their profiles allow; names are repeated in CN for software that shows it; a key identifier in each certificate finds its revocation faster; a root
# need not name itself as its issuer (RFC 5280 §4.2.1.1); peers of TLS 1.2 without forward secrecy encrypt to the RSA key of a server.
PRIVATE = {
    "cabf.serverauth.subscriber.certificate_policies_extension_absent", "cabf.serverauth.ca.certificate_policies_extension_absent",
    "cabf.serverauth.ca.extended_key_usage_extension_absent", "cabf.serverauth.dv.common_name_attribute_present",
    "cabf.serverauth.subscriber.subject_key_identifier_extension_present", "cabf.serverauth.root.authority_key_identifier_extension_absent",
    "cabf.serverauth.subscriber_rsa_digitalsignature_and_keyencipherment_present",
}


@pytest.fixture(scope="session")
def pki(request, tmp_path_factory):
    """A server of its own that is known by an address."""
    if instances.WANTED:
        # Which an instance never is: it is as good as any other.
        yield Pki(request.getfixturevalue("server"))
        return
    directory = tmp_path_factory.mktemp("pki")
    (directory / "more.toml").write_text(CONFIG)
    process = ServerProcess(directory, config=directory / "more.toml")
    yield Pki(process)
    code = process.stop()
    assert code == 0, f"the server exited with {code}:\n{process.log_tail()}"


@pytest.fixture(scope="session", params=SPECS)
def authority(request, pki, tmp_path_factory):
    """A root and an authority below it that issues, whose keys are of each spec."""
    return Authority(pki, request.param, tmp_path_factory.mktemp("authority"))


class Pki:
    """The server, by its own operations and by what it gives to everybody."""

    def __init__(self, process):
        self.host, self.front = process.http, Front(process.http, process.credentials)

    def __call__(self, operation, **parameters):
        return self.front.call(operation, parameters)

    def refused(self, operation, **parameters):
        answer = self.front.post(operation, parameters)
        error = answer.error()
        return (error["Code"], answer.status), error["Message"]

    def get(self, path, status=200):
        return self._send("GET", path, status)

    def post(self, path, body, kind, status=200):
        return self._send("POST", path, status, body, {"content-type": kind})

    def _send(self, method, path, status, body=None, headers={}):
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            assert response.status == status, (path, response.status)
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            return response.read()
        finally:
            connection.close()


class Authority:
    """A root and what it certified, with files of both for the tools."""

    def __init__(self, pki, spec, directory, **more):
        self.pki, self.spec, self.directory = pki, spec, directory
        self.root_name, self.name = (f"{part}-{uuid.uuid4().hex[:8]}" for part in ("root", "issuing"))
        pki("CreateCertificateAuthority", AuthorityName=self.root_name, KeySpec=spec, Subject="CN=Keymill Root,O=Example,C=CN", **more)
        pki("CreateCertificateAuthority", AuthorityName=self.name, KeySpec=spec, Subject="CN=Keymill Issuing,O=Example,C=CN",
            Parent=self.root_name, PathLength=0, **more)
        self.root_der, self.der = (pki.get(f"/pki/{name}.crt") for name in (self.root_name, self.name))
        self.root_file, self.file = directory / "root.pem", directory / "issuing.pem"
        for file, der in ((self.root_file, self.root_der), (self.file, self.der)):
            file.write_bytes(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM))

    def issue(self, csr=None, **parameters):
        """Issues a certificate; returns what the server answered, and a file of it."""
        asked = {"AuthorityName": self.name, "Profile": "server", "AltNames": [HOST], "Csr": csr, **parameters}
        made = self.pki("IssueCertificate", **{name: value for name, value in asked.items() if value is not None})
        file = self.directory / f"{uuid.uuid4().hex}.pem"
        file.write_text(made["Certificate"])
        return made, file

    def verify(self, file, *options):
        """What `openssl verify` says of a certificate, as strictly as it can."""
        done = openssl("verify", "-x509_strict", "-CAfile", self.root_file, "-untrusted", self.file, *options, file, check=False)
        return done.returncode == 0, (done.stdout + done.stderr).decode()

    def lists(self):
        """A file of what root and authority list as revoked."""
        out = b""
        for one in (self.root_name, self.name):
            der = self.pki.get(f"/pki/{one}.crl")
            out += x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
        file = self.directory / "lists.pem"
        file.write_bytes(out)
        return file

    def asks(self, file, *options):
        """What `openssl ocsp` is told about a certificate; it checks who signed the answer."""
        done = openssl("ocsp", "-issuer", self.file, "-cert", file, "-CAfile", self.root_file, "-verify_other", self.file,
                       "-url", f"http://{self.pki.host}/pki/{self.name}/ocsp", *options, check=False)
        told = (done.stdout + done.stderr).decode()
        assert done.returncode == 0 and "Response verify OK" in told, told
        return told

    def validates(self, file, build):
        """The path that `cryptography` finds, by a verifier that `build` makes of a policy at a time."""
        policy = PolicyBuilder().store(Store([x509.load_der_x509_certificate(self.root_der)]))
        leaf = x509.load_pem_x509_certificate(file.read_bytes())
        return build(policy).verify(leaf, [x509.load_der_x509_certificate(self.der)])


def certificate(file):
    return x509.load_pem_x509_certificate(file.read_bytes())


def lint(command, *arguments, severity="WARNING"):
    """The codes of what a linter of pkilint found; it is called as its command would be, without a process of its own."""
    linter, printed = importlib.import_module(f"pkilint.bin.{command}"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        linter.main(["lint", "-f", "JSON", "-s", severity, *map(str, arguments)])
    return {told["code"] for result in json.loads(printed.getvalue())["results"] for told in result["finding_descriptions"]}


def test_the_linters_find_what_is_wrong(tmp_path):
    """That no findings mean something: a certificate with a known fault has one."""
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out", tmp_path / "odd", "-subj", "/CN=x",
            "-addext", "basicConstraints=CA:TRUE")
    assert lint("lint_pkix_cert", tmp_path / "odd")


def test_authorities_are_what_they_are_to_be(authority):
    root, own = (x509.load_der_x509_certificate(der) for der in (authority.root_der, authority.der))
    assert root.subject == root.issuer and own.issuer == root.subject
    assert root.subject.rfc4514_string() == "CN=Keymill Root,O=Example,C=CN"
    root.verify_directly_issued_by(root)
    own.verify_directly_issued_by(root)
    constraints = own.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert root.not_valid_after_utc >= own.not_valid_after_utc
    assert authority.verify(authority.file)[0]
    for file in (authority.root_file, authority.file):
        assert lint("lint_pkix_cert", file) == set()
    assert lint("lint_pkix_signer_signee_cert_chain", authority.root_file, authority.file) == set()
    assert lint("lint_cabf_serverauth_cert", "-t", "ROOT-CA", authority.root_file) <= PRIVATE
    assert lint("lint_cabf_serverauth_cert", "-t", "INTERNAL-UNCONSTRAINED-TLS-CA", authority.file) <= PRIVATE


def test_a_certificate_of_a_server_is_trusted(authority, tmp_path):
    csr = request(f"CN={HOST}", Key("RSA_2048", tmp_path), [alt_names(HOST)])
    for made, file in (authority.issue(KeySpec="EC_P256"), authority.issue(csr=csr)):
        leaf = certificate(file)
        assert leaf.serial_number.bit_length() >= 64 and int(made["SerialNumber"], 16) == leaf.serial_number
        assert authority.verify(file, "-purpose", "sslserver", "-verify_hostname", HOST)[0]
        for purpose in ("sslclient", "crlsign", "smimesign"):
            assert not authority.verify(file, "-purpose", purpose)[0], purpose
        is_other, told = authority.verify(file, "-verify_hostname", "other.shop.example.com")
        assert not is_other and "hostname mismatch" in told.lower()

        path = authority.validates(file, lambda policy: policy.build_server_verifier(x509.DNSName(HOST)))
        assert [step.subject for step in path][1:] == [leaf.issuer, x509.load_der_x509_certificate(authority.root_der).subject]
        later = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(days=91)
        for build in (lambda policy: policy.build_server_verifier(x509.DNSName("other.shop.example.com")),
                      lambda policy: policy.time(later).build_server_verifier(x509.DNSName(HOST)),
                      lambda policy: policy.build_client_verifier()):
            with pytest.raises(VerificationError):
                authority.validates(file, build)

        assert lint("lint_pkix_cert", file) == set()
        assert lint("lint_pkix_signer_signee_cert_chain", authority.file, file) == set()
        assert lint("lint_cabf_serverauth_cert", "-t", "DV-FINAL-CERTIFICATE", file) <= PRIVATE


@pytest.mark.parametrize("profile, usages, purpose", [
    ("client", [ExtendedKeyUsageOID.CLIENT_AUTH], "sslclient"), ("code-signing", [ExtendedKeyUsageOID.CODE_SIGNING], None),
    ("server-client", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], "sslclient"),
])
def test_each_profile_is_for_what_it_says(authority, profile, usages, purpose):
    of_names = profile == "server-client"
    made, file = authority.issue(KeySpec="EC_P256", Profile=profile, **({} if of_names else {"Subject": "CN=Night Shift,O=Example,C=CN"}),
                                 AltNames=[HOST] if of_names else ["email:night@shop.example.com"])
    leaf = certificate(file)
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == usages
    assert lint("lint_pkix_cert", file) == set()
    assert lint("lint_pkix_signer_signee_cert_chain", authority.file, file) == set()
    if purpose:
        assert authority.verify(file, "-purpose", purpose)[0]
        authority.validates(file, lambda policy: policy.build_client_verifier())
    if not of_names:
        assert not authority.verify(file, "-purpose", "sslserver")[0]


def test_certificates_tell_where_to_ask(authority):
    _, file = authority.issue(KeySpec="EC_P256")
    extensions = certificate(file).extensions
    (point,) = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert [name.value for name in point.full_name] == [f"{PUBLIC}/pki/{authority.name}.crl"]
    places = {place.access_method._name: place.access_location.value
              for place in extensions.get_extension_for_class(x509.AuthorityInformationAccess).value}
    assert places == {"OCSP": f"{PUBLIC}/pki/{authority.name}/ocsp", "caIssuers": f"{PUBLIC}/pki/{authority.name}.crt"}
    assert authority.pki.get(f"/pki/{authority.name}.crt") == authority.der
    assert authority.pki.headers["content-type"] == "application/pkix-cert"
    for path in ("/pki/absent.crt", "/pki/absent.crl", "/pki/.crt", "/pki/a%2Fb.crt", "/pki/absent/ocsp/MAA="):
        authority.pki.get(path, status=404)
    authority.pki.post("/pki/absent/ocsp", b"\x30\x00", "application/ocsp-request", status=404)


def test_what_was_revoked_is_refused(authority, tmp_path):
    made, file = authority.issue(KeySpec="EC_P256")
    _, other = authority.issue(KeySpec="EC_P256")
    for good in (file, other):
        assert authority.verify(good, "-crl_check_all", "-CRLfile", authority.lists())[0]
        assert ": good" in authority.asks(good)
    before = x509.load_der_x509_crl(authority.pki.get(f"/pki/{authority.name}.crl"))

    authority.pki("RevokeCertificate", CertificateId=made["CertificateId"], Reason="KeyCompromise")
    is_taken, told = authority.verify(file, "-crl_check_all", "-CRLfile", authority.lists())
    assert not is_taken and "certificate revoked" in told
    told = authority.asks(file)
    assert ": revoked" in told and "Reason: keyCompromise" in told
    assert authority.verify(other, "-crl_check_all", "-CRLfile", authority.lists())[0]
    assert ": good" in authority.asks(other)
    # Once more changes nothing of it.
    authority.pki("RevokeCertificate", CertificateId=made["CertificateId"], Reason="Superseded")
    assert "Reason: keyCompromise" in authority.asks(file)

    der = authority.pki.get(f"/pki/{authority.name}.crl")
    assert authority.pki.headers["content-type"] == "application/pkix-crl"
    (tmp_path / "crl").write_bytes(der)
    told = openssl("crl", "-in", tmp_path / "crl", "-inform", "DER", "-CAfile", authority.file, "-noout", check=False)
    assert told.returncode == 0 and b"verify OK" in told.stderr + told.stdout
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(x509.load_der_x509_certificate(authority.der).public_key())
    (only,) = [row for row in crl if row.serial_number == certificate(file).serial_number]
    assert only.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.key_compromise
    number = lambda listed: listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number(crl) > number(before) and crl.next_update_utc > datetime.now(timezone.utc)
    # A CRL of an authority of end entities, and one of authorities.
    assert lint("lint_crl", "-t", "CRL", "-p", "PKIX", tmp_path / "crl") == set()
    assert lint("lint_crl", "-t", "CRL", "-p", "BR", tmp_path / "crl") == set()
    (tmp_path / "arl").write_bytes(authority.pki.get(f"/pki/{authority.root_name}.crl"))
    assert lint("lint_crl", "-t", "ARL", "-p", "PKIX", tmp_path / "arl") == set()


def test_answers_about_revocation_are_well_formed(authority, tmp_path):
    made, file = authority.issue(KeySpec="EC_P256")
    issuer, leaf = x509.load_der_x509_certificate(authority.der), certificate(file)
    where = f"/pki/{authority.name}/ocsp"
    for digest in (hashes.SHA1(), hashes.SHA256()):
        asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, digest).build()
        der = asked.public_bytes(serialization.Encoding.DER)
        by_post = authority.pki.post(where, der, "application/ocsp-request")
        assert authority.pki.headers["content-type"] == "application/ocsp-response"
        by_get = authority.pki.get(f"{where}/{in_address(der)}")
        for told in (by_post, by_get):
            answer = ocsp.load_der_ocsp_response(told)
            assert answer.response_status == ocsp.OCSPResponseStatus.SUCCESSFUL
            assert (answer.certificate_status, answer.serial_number) == (ocsp.OCSPCertStatus.GOOD, leaf.serial_number)
            assert answer.hash_algorithm.name == digest.name and answer.next_update_utc > datetime.now(timezone.utc)
            (tmp_path / "answer").write_bytes(told)
            assert lint("lint_ocsp_response", tmp_path / "answer") == set()
    # Answers are kept and given to many, so a nonce is passed over (RFC 5019 §2.2.1).
    asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).add_extension(x509.OCSPNonce(bytes(range(32))), False).build()
    answer = ocsp.load_der_ocsp_response(authority.pki.post(where, asked.public_bytes(serialization.Encoding.DER), "application/ocsp-request"))
    assert answer.certificate_status == ocsp.OCSPCertStatus.GOOD and not list(answer.extensions)
    # What is not known here is not said to be good.
    name_hash, key_hash = answer.issuer_name_hash, answer.issuer_key_hash
    asked = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name_hash, key_hash, 12_345, hashes.SHA1()).build()
    answer = ocsp.load_der_ocsp_response(authority.pki.post(where, asked.public_bytes(serialization.Encoding.DER), "application/ocsp-request"))
    is_failure = answer.response_status != ocsp.OCSPResponseStatus.SUCCESSFUL
    assert is_failure or answer.certificate_status == ocsp.OCSPCertStatus.UNKNOWN
    for odd in (b"", b"\x30", b"\x30\x80\x00\x00", der[:-1], der + b"\0", bytes(2_000)):
        told = ocsp.load_der_ocsp_response(authority.pki.post(where, odd, "application/ocsp-request"))
        assert told.response_status == ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def in_address(der):
    """A question as RFC 6960, appendix A.1, has it in an address."""
    return urllib.parse.quote(base64.b64encode(der).decode(), safe="")


def test_an_authority_that_was_revoked_is_refused(pki, tmp_path):
    authority = Authority(pki, "EC_P256", tmp_path)
    _, file = authority.issue(KeySpec="EC_P256")
    assert authority.verify(file, "-crl_check_all", "-CRLfile", authority.lists())[0]
    own = pki("DescribeCertificateAuthority", AuthorityName=authority.name)["CertificateId"]
    pki("RevokeCertificate", CertificateId=own, Reason="CaCompromise")
    is_taken, told = authority.verify(file, "-crl_check_all", "-CRLfile", authority.lists())
    assert not is_taken and "certificate revoked" in told
    assert pki.refused("IssueCertificate", AuthorityName=authority.name, Profile="server", KeySpec="EC_P256", AltNames=[HOST])[0][1] in (400, 409)


def test_a_renewed_certificate_is_trusted_and_a_revoked_one_is_not_renewed(authority):
    made, file = authority.issue(KeySpec="EC_P256")
    renewed = authority.pki("RenewCertificate", CertificateId=made["CertificateId"])
    newer = authority.directory / "renewed.pem"
    newer.write_text(renewed["Certificate"])
    assert certificate(newer).serial_number != certificate(file).serial_number
    assert authority.verify(newer, "-purpose", "sslserver", "-verify_hostname", HOST, "-crl_check_all", "-CRLfile", authority.lists())[0]
    assert ": good" in authority.asks(newer)
    authority.pki("RevokeCertificate", CertificateId=made["CertificateId"], Reason="CessationOfOperation")
    # Both are: whoever has the older one would be let in by it.
    for one in (file, newer):
        assert not authority.verify(one, "-crl_check_all", "-CRLfile", authority.lists())[0]
        assert ": revoked" in authority.asks(one)
    assert authority.pki.refused("RenewCertificate", CertificateId=made["CertificateId"])[0][1] in (400, 409)


def test_name_constraints_hold_where_others_check_them(pki, tmp_path):
    authority = Authority(pki, "EC_P256", tmp_path)
    name = f"bound-{uuid.uuid4().hex[:8]}"
    pki("CreateCertificateAuthority", AuthorityName=name, KeySpec="EC_P256", Subject="CN=Bound,O=Example,C=CN", Parent=authority.root_name,
        PathLength=0, NameConstraints={"PermittedDns": ["shop.example.com"], "ExcludedDns": ["secret.shop.example.com"]})
    authority.name, authority.der = name, pki.get(f"/pki/{name}.crt")
    authority.file.write_bytes(x509.load_der_x509_certificate(authority.der).public_bytes(serialization.Encoding.PEM))
    constraints = x509.load_der_x509_certificate(authority.der).extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical and [n.value for n in constraints.value.permitted_subtrees] == ["shop.example.com"]
    assert lint("lint_pkix_cert", authority.file) == set()
    _, file = authority.issue(KeySpec="EC_P256")
    assert authority.verify(file, "-verify_hostname", HOST)[0]
    authority.validates(file, lambda policy: policy.build_server_verifier(x509.DNSName(HOST)))
    for other in ("shop.example.org", "a.secret.shop.example.com"):
        code, told = pki.refused("IssueCertificate", AuthorityName=name, Profile="server", KeySpec="EC_P256", AltNames=[other])
        assert code == ("InvalidParameter", 400) and other in told


@pytest.fixture(scope="session")
def plain(pki, tmp_path_factory):
    """An authority of an elliptic curve that no test revokes."""
    return Authority(pki, "EC_P256", tmp_path_factory.mktemp("plain"))


def asks_of(plain, csr, **more):
    """What an authority says to a request in PEM that it is to refuse."""
    return plain.pki.refused("IssueCertificate", AuthorityName=plain.name, Profile="server", Csr=csr, **more)


@pytest.mark.parametrize("spec", ["RSA_4096", "Ed25519", "ML_DSA_65", "EC_SM2"])
def test_authorities_with_keys_of_other_kinds_are_believed(pki, tmp_path, spec):
    """By whoever knows them: `cryptography` no SM2, the openssl of this distribution no ML-DSA, and SM2 one signature at a time."""
    authority = Authority(pki, spec, tmp_path, ProtectionLevel="SOFTWARE")
    _, file = authority.issue(KeySpec=spec, ProtectionLevel="SOFTWARE")
    if spec != "EC_SM2":
        root, own = (x509.load_der_x509_certificate(der) for der in (authority.root_der, authority.der))
        own.verify_directly_issued_by(root)
        certificate(file).verify_directly_issued_by(own)
    if spec == "EC_SM2":
        for issuer, subject in ((authority.root_file, authority.file), (authority.file, file)):
            openssl("verify", "-x509_strict", "-partial_chain", "-CAfile", issuer, "-vfyopt", SM2_ID, subject)
    elif spec != "ML_DSA_65":
        assert authority.verify(file, "-verify_hostname", HOST, "-crl_check_all", "-CRLfile", authority.lists())[0]
        assert ": good" in authority.asks(file)
    for one in (authority.root_file, authority.file, file):
        assert lint("lint_pkix_cert", one) == set()


def test_a_request_is_held_to_its_signature(plain, tmp_path):
    key, other = Key("EC_P256", tmp_path), Key("EC_P256", tmp_path)
    subject, names = f"CN={HOST}", [alt_names(HOST)]
    good = request(subject, key, names)
    _, file = plain.issue(csr=good, AltNames=None)
    assert certificate(file).public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) == key.spki
    altered = lambda signature: signature[:-1] + bytes([signature[-1] ^ 1])
    rsa = Key("RSA_2048", tmp_path)
    for odd, why in (
        (request(subject, key, names, spoil=altered), "sign"), (request(subject, key, names, spki=other.spki), "sign"),
        (request(subject, key, names, algorithm="ECDSA_SHA1"), "SHA-?1"), (request(subject, rsa, names, algorithm="RSA_MD5"), "MD5"),
        (request(subject, rsa, names, algorithm="RSA_SHA1"), "SHA-?1"), (request(subject, Key("RSA_2048", tmp_path, 1024), names), "1024|2048"),
        (request(subject, key, names, version=5), "version"), (good[:200], "PEM|request"), ("x", "PEM|request"),
        (good.replace("REQUEST-", "REVOCATION LIST-"), "PEM|request"), (pem("CERTIFICATE REQUEST", b"\x30\x80" * 4_000), ""),
        (request(subject, key, [alt_names("good.example.com\0.evil.example")]), "name"), (request(subject, key, [alt_names("gооd.example.com")]), "name|ASCII"),
        (request("CN=good.example.com\0.evil.example", key, names), "CN|character"), (request(subject, key, names + names), "twice"),
    ):
        code, told = asks_of(plain, odd)
        assert code == ("InvalidParameter", 400), (odd, told)
        assert re.search(why, told, re.IGNORECASE), (why, told)


def test_a_request_gets_no_more_than_its_profile_has(plain, tmp_path):
    """Whatever extensions it asks for."""
    key = Key("EC_P256", tmp_path)
    wanted = [basic_constraints(True, 5), usage(5, 6), extension("2.5.29.37", sequence(oid("1.3.6.1.5.5.7.3.3"), oid("2.5.29.37.0"))), alt_names(HOST),
              extension("2.5.29.30", sequence(tlv(0xA0, sequence(tlv(0x82, b"")))), True)]
    _, file = plain.issue(csr=request(f"CN={HOST}", key, wanted), AltNames=None)
    extensions = certificate(file).extensions
    told = extensions.get_extension_for_class(x509.KeyUsage).value
    assert told.digital_signature and not (told.key_cert_sign or told.crl_sign)
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for absent in (x509.BasicConstraints, x509.NameConstraints):
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(absent)
    # It cannot stand in for an authority: what its key signs is not believed.
    issuer = Made(certificate(file).public_bytes(serialization.Encoding.DER), name(f"CN={HOST}"), key)
    (tmp_path / "below").write_text(certify("CN=evil.example.com", Key("EC_P256", tmp_path).spki, issuer, ids=False).pem)
    done = openssl("verify", "-x509_strict", "-CAfile", plain.root_file, "-untrusted", plain.file, "-untrusted", file, tmp_path / "below",
                   check=False)
    assert done.returncode != 0 and b"invalid CA certificate" in done.stdout + done.stderr


@pytest.mark.parametrize("asked, why", [
    ({"Profile": "absent"}, "absent"), ({"ValidityDays": 201}, "201|200"), ({"ValidityDays": 0}, "ValidityDays"), ({"AltNames": []}, "name"),
    ({"AltNames": None}, "name"), ({"AltNames": [f"n{n}.example.com" for n in range(101)]}, "100"), ({"AltNames": ["a..example.com"]}, "label"),
    ({"AltNames": ["ехample.com"]}, "ASCII|xn--"), ({"AltNames": ["a.*.example.com"]}, "label"), ({"AltNames": ["*"]}, "label|name"),
    ({"Subject": "CN=Night Shift"}, "common name"), ({"Subject": "CN=x\u202e"}, "U\\+202E"), ({"KeySpec": "EC_P256K"}, "P256K"),
    ({"KeySpec": "Aliyun_AES_256"}, "AES"), ({"Csr": "x"}, "Csr|KeySpec|PEM"), ({"ProtectionLevel": "PAPER"}, "ProtectionLevel"),
], ids=lambda part: "" if isinstance(part, str) else ascii(str(part))[:60])
def test_what_a_profile_does_not_allow_is_told(plain, asked, why):
    parameters = {"AuthorityName": plain.name, "Profile": "server", "KeySpec": "EC_P256", "AltNames": [HOST], **asked}
    code, told = plain.pki.refused("IssueCertificate", **{name: value for name, value in parameters.items() if value is not None})
    assert code == ("InvalidParameter", 400), (code, told)
    assert re.search(why, told, re.IGNORECASE), told


def test_an_authority_elsewhere_below_one_of_ours_is_believed(plain, tmp_path):
    key, subject = Key("EC_P256", tmp_path), "C=CN,O=Example,CN=Below"
    csr = request(subject, key)
    code, told = plain.pki.refused("IssueCertificate", AuthorityName=plain.name, Profile="ca", Csr=csr)
    assert code == ("InvalidParameter", 400) and "path length" in told, told
    made = plain.pki("IssueCertificate", AuthorityName=plain.root_name, Profile="ca", Csr=csr)
    (tmp_path / "below").write_text(made["Certificate"])
    assert lint("lint_pkix_cert", tmp_path / "below") == set()
    below = Made(certificate(tmp_path / "below").public_bytes(serialization.Encoding.DER), name(subject), key)
    leaf = certify(f"CN={HOST}", Key("EC_P256", tmp_path).spki, below, ids=False, extensions=[alt_names(HOST)])
    (tmp_path / "leaf").write_text(leaf.pem)
    for purpose in ((), ("-purpose", "sslserver"), ("-verify_hostname", HOST)):
        openssl("verify", "-CAfile", plain.root_file, "-untrusted", tmp_path / "below", *purpose, tmp_path / "leaf")


def test_an_authority_of_ours_that_one_elsewhere_signed_issues(pki, tmp_path):
    root = certificate_authority("EC_P256", tmp_path, "C=CN,O=Elsewhere,CN=Root")
    own, subject = f"bridge-{uuid.uuid4().hex[:8]}", "CN=Bridge,O=Example,C=CN"
    made = pki("CreateCertificateAuthority", AuthorityName=own, Subject=subject, IsSignedElsewhere=True)
    csr = x509.load_pem_x509_csr(made["Csr"].encode())
    assert csr.is_signature_valid and csr.subject.rfc4514_string() == subject
    asked = {"AuthorityName": own, "Profile": "server", "KeySpec": "EC_P256", "AltNames": [HOST]}
    assert pki.refused("IssueCertificate", **asked)[0] == ("Rejected.StateModifiedFailed", 409)
    spki = csr.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    parts = {"extensions": [basic_constraints(True, 0), usage(0, 5, 6)]}
    good = certify("C=CN,O=Example,CN=Bridge", spki, root, **parts)
    activate = {"AuthorityName": own, "CertificateChain": root.pem}
    for odd, why in ((certify("C=CN,O=Example,CN=Another", spki, root, **parts), "subject|name"),
                     (certify("C=CN,O=Example,CN=Bridge", Key("EC_P256", tmp_path).spki, root, **parts), "key"),
                     (certify("C=CN,O=Example,CN=Bridge", spki, root), "authority"),
                     (certify("C=CN,O=Example,CN=Bridge", spki, root, extensions=[basic_constraints(True, 0), usage(0)]), "usage|sign"),
                     (certify("C=CN,O=Example,CN=Bridge", spki, root, start=NOW - 2 * DAY, end=NOW - DAY, **parts), "expire")):
        code, told = pki.refused("ActivateCertificateAuthority", Certificate=odd.pem, **activate)
        assert code == ("InvalidParameter", 400) and re.search(why, told, re.IGNORECASE), (why, told)
    pki("ActivateCertificateAuthority", Certificate=good.pem, **activate)
    issued = pki("IssueCertificate", **asked)
    for file, text in (("root", root.pem), ("chain", issued["CertificateChain"]), ("leaf", issued["Certificate"])):
        (tmp_path / file).write_text(text)
    openssl("verify", "-x509_strict", "-CAfile", tmp_path / "root", "-untrusted", tmp_path / "chain", "-purpose", "sslserver",
            "-verify_hostname", HOST, tmp_path / "leaf")
    # It ends no later than the one that it was given.
    assert certificate(tmp_path / "leaf").not_valid_after_utc <= x509.load_der_x509_certificate(good.der).not_valid_after_utc


def test_many_requests_are_answered_at_once_and_what_is_wrong_with_one_is_told_of_it(plain, tmp_path):
    key = Key("EC_P256", tmp_path)
    names = [f"n{n}.shop.example.com" for n in range(20)]
    requests = [{"Csr": request(f"CN={one}", key, [alt_names(one)])} for one in names]
    requests[7] = {"Csr": request("CN=x", key, [alt_names("x.example.com")], spoil=lambda signature: signature[:-1])}
    answered = plain.pki("BatchIssueCertificate", AuthorityName=plain.name, Profile="server", Requests=requests)["Certificates"]
    assert len(answered) == 20 and answered[7]["Code"] == "InvalidParameter" and "Certificate" not in answered[7]
    serials = set()
    for at, (one, row) in enumerate(zip(names, answered)):
        if at != 7:
            file = tmp_path / str(at)
            file.write_text(row["Certificate"])
            assert plain.verify(file, "-purpose", "sslserver", "-verify_hostname", one)[0]
            serials.add(certificate(file).serial_number)
    assert len(serials) == 19


def test_all_that_was_issued_is_found(authority):
    made, file = authority.issue(KeySpec="EC_P256")
    filters = [{"Key": "Serial", "Values": [made["SerialNumber"]]}, {"Key": "Origin", "Values": ["ISSUED"]}]
    listed = authority.pki("ListCertificates", Filters=filters)["Certificates"]["Certificate"]
    assert [row["CertificateId"] for row in listed] == [made["CertificateId"]]
    described = authority.pki("DescribeCertificate", CertificateId=made["CertificateId"])
    leaf = certificate(file)
    assert (described["Status"], described["Issuer"]) == ("ACTIVE", "CN=Keymill Issuing,O=Example,C=CN")
    assert described["NotAfter"] == f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}" and int(described["Serial"], 16) == leaf.serial_number
    held = authority.pki("GetCertificate", CertificateId=made["CertificateId"])
    assert held["Certificate"] == made["Certificate"] and held["CertificateChain"] == made["CertificateChain"]
    # Its key signs as that of any other certificate does.
    signed = authority.pki("CertificatePrivateKeySign", CertificateId=made["CertificateId"], Algorithm="ECDSA_SHA_256", Message="AA==")
    leaf.public_key().verify(base64.b64decode(signed["SignatureValue"]), b"\0", ec.ECDSA(hashes.SHA256()))
