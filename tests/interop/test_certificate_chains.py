"""Certificates and chains that are not to be trusted, uploaded through the cloud's SDK: each is refused with what is wrong with it, and leaves
the certificate waiting for a better one."""

import re

import pytest
from test_certificate import NAMES, SUBJECT_NAME, WRONG, create, issue, issuers, public_key, refusal, sdk  # noqa: F401
from x509_made import DAY, NOW, Key, alt_names, basic_constraints, certificate_authority, certify, extension, name, sequence, tlv, usage

LEAF = [basic_constraints(False), usage(0, 2), alt_names(*NAMES)]


@pytest.fixture
def waiting(sdk):
    """A certificate of an elliptic curve that waits for its upload."""
    return Waiting(sdk, "EC_P256")


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """Makes an authority of an elliptic curve: of a name, and of the one that certifies it."""
    directory = tmp_path_factory.mktemp("authorities")

    def one(subject, issuer=None, kind="EC_P256", **odd):
        return certificate_authority(kind, directory, f"C=CN,O=Example,CN={subject}", issuer, **odd)

    return one


class Waiting:
    """A certificate whose upload is tried."""

    def __init__(self, sdk, spec):
        self.sdk, self.id = sdk, create(sdk, spec)["CertificateId"]
        _, self.spki = public_key(sdk, self.id)

    def issue(self, issuer, **odd):
        return issue(self.sdk, self.id, issuer, **odd)

    def takes(self, certificate, *chain):
        self._upload(certificate, chain)
        assert self.sdk("DescribeCertificate", CertificateId=self.id)["Status"] == "ACTIVE"

    def refuses(self, why, certificate, *chain):
        """Neither is taken, the message tells why, and the certificate waits as before."""
        given = {"Certificate": certificate if isinstance(certificate, str) else certificate.pem}
        if chain:
            given["CertificateChain"] = "".join(part if isinstance(part, str) else part.pem for part in chain)
        code, told = refusal(self.sdk, "UploadCertificate", CertificateId=self.id, **given)
        assert code == WRONG, (code, told)
        assert re.search(why, told, re.IGNORECASE), told
        assert not re.search("internal|panick|MII", told), told
        assert self.sdk("DescribeCertificate", CertificateId=self.id)["Status"] == "PENDING"

    def _upload(self, certificate, chain):
        given = {"CertificateChain": "".join(part.pem for part in chain)} if chain else {}
        self.sdk("UploadCertificate", CertificateId=self.id, Certificate=certificate.pem, **given)


@pytest.fixture(scope="session")
def path(make):
    """A root, and two authorities below it, each certified by the one before."""
    root = make("Root")
    upper = make("Upper", root, path=1)
    return root, upper, make("Lower", upper, path=0)


def test_a_chain_is_taken_in_its_order_alone(waiting, path):
    root, upper, lower = path
    leaf = waiting.issue(lower)
    for chain in ([root, upper, lower], [upper, lower, root], [lower, root, upper], [lower, root], [upper, root]):
        waiting.refuses("order|issue|sign", leaf, *chain)
    waiting.takes(leaf, lower, upper, root)


def test_a_chain_of_another_family_or_of_nothing_is_refused(waiting, path, make):
    root, upper, lower = path
    leaf, stranger = waiting.issue(lower), make("Stranger")
    waiting.refuses("order|issue|sign", leaf, stranger)
    waiting.refuses("order|issue|sign", leaf, lower, stranger)
    waiting.refuses("order|issue|sign|last|self", leaf, lower, upper, root, stranger)
    # The leaf once more in its own chain.
    waiting.refuses("order|issue|sign|twice|authority", leaf, leaf, lower, upper, root)
    waiting.takes(leaf, lower, upper, root)


def test_a_certificate_of_another_key_is_refused(waiting, path, tmp_path):
    root, upper, lower = path
    for kind in ("EC_P256", "RSA_2048"):
        other = certify(SUBJECT_NAME, Key(kind, tmp_path).spki, lower, extensions=LEAF)
        waiting.refuses("key", other, lower, upper, root)
    # The chain's own end in place of the certificate.
    waiting.refuses("key|authority", lower, upper, root)


def test_a_signature_that_does_not_verify_is_refused(waiting, path, make, tmp_path):
    root, upper, lower = path
    # By another key, whose authority has the same name.
    twin = make("Lower", upper, path=0)
    waiting.refuses("sign|issue", waiting.issue(lower, signer=twin.key), lower, upper, root)
    waiting.refuses("sign|issue", waiting.issue(twin), lower, upper, root)
    altered = lambda signature: signature[:-1] + bytes([signature[-1] ^ 1])
    waiting.refuses("sign|issue", waiting.issue(lower, spoil=altered), lower, upper, root)
    waiting.refuses("sign|issue|DER", waiting.issue(lower, spoil=lambda signature: b""), lower, upper, root)
    # Of an authority in the middle, and of the root upon itself.
    odd = certify("C=CN,O=Example,CN=Odd", lower.key.spki, upper, lower.key, extensions=[basic_constraints(True, 0), usage(5, 6)], spoil=altered)
    waiting.refuses("sign|issue", waiting.issue(odd), odd, upper, root)


def test_a_name_that_is_not_the_issuers_is_refused(waiting, path):
    root, upper, lower = path
    waiting.refuses("issue|order", waiting.issue(lower, issuer_name=name("C=CN,O=Example,CN=Another")), lower, upper, root)


def test_what_is_not_valid_now_is_refused(waiting, path, make):
    root, upper, lower = path
    waiting.refuses("expire", waiting.issue(lower, start=NOW - 30 * DAY, end=NOW - DAY), lower, upper, root)
    waiting.refuses("valid|last", waiting.issue(lower, start=NOW, end=NOW - DAY), lower, upper, root)
    waiting.refuses("expire|valid|moment", waiting.issue(lower, end=NOW.replace(year=1951)), lower, upper, root)
    old = make("Old", upper, path=0, start=NOW - 30 * DAY, end=NOW - DAY)
    waiting.refuses("expire", waiting.issue(old), old, upper, root)
    waiting.refuses("not.*(yet|valid|before)", waiting.issue(lower, start=NOW + DAY), lower, upper, root)


def test_a_chain_that_runs_in_a_circle_is_refused(waiting, make, tmp_path):
    one, two = Key("EC_P256", tmp_path), Key("EC_P256", tmp_path)
    parts = {"extensions": [basic_constraints(True), usage(5, 6)]}
    names = "C=CN,O=Example,CN=One", "C=CN,O=Example,CN=Two"
    first = certify(names[0], one.spki, None, one, signer=two, issuer_name=name(names[1]), **parts)
    second = certify(names[1], two.spki, None, two, signer=one, issuer_name=name(names[0]), **parts)
    # Each vouches for the other, and the circle is cut or closed.
    leaf = waiting.issue(first)
    for chain in ([first, second, first], [first, second] * 4):
        waiting.refuses("twice|loop|circle|again|long|most", leaf, *chain)
    root = make("Root")
    waiting.refuses("twice|loop|circle|again|last|self|order|issue", waiting.issue(root), root, root)


def test_a_chain_without_end_is_refused(waiting, make):
    issuer, chain = None, []
    for n in range(24):
        issuer = make(f"N{n}", issuer)
        chain.insert(0, issuer)
    waiting.refuses("long|more than", waiting.issue(issuer), *chain)


@pytest.mark.parametrize("odd, why", [
    ({"extensions": [basic_constraints(False), usage(5, 6)]}, "authority|basic constraints|CA"),
    ({"extensions": [usage(5, 6)]}, "authority|basic constraints|CA"),
    ({"extensions": [basic_constraints(True), usage(0)]}, "key usage|sign|authority"),
    ({"extensions": [], "version": 0}, "authority|version|basic constraints"),
], ids=["says that it is none", "does not say so", "is not to sign certificates", "of version 1"])
def test_an_issuer_that_is_no_authority_is_refused(waiting, path, make, odd, why):
    root, upper, _ = path
    none = make("None", upper, **odd)
    waiting.refuses(why, waiting.issue(none), none, upper, root)


def test_more_authorities_than_one_may_have_below_it_are_refused(waiting, path, make):
    root, upper, lower = path
    below = make("Below", lower)
    waiting.refuses("path|length|many", waiting.issue(below), below, lower, upper, root)


def constraints(permitted=(), excluded=()):
    """Name constraints (RFC 5280 §4.2.1.10)."""
    both = [tlv(tag, *(sequence(subtree) for subtree in trees)) for tag, trees in ((0xA0, permitted), (0xA1, excluded)) if trees]
    return extension("2.5.29.30", sequence(*both), True)


@pytest.mark.parametrize("permitted, excluded", [
    ([b"other.example"], []), ([b"ample.com"], []), ([], [b"example.com"]), ([], [b"EXAMPLE.com"]), ([], [b"orders.example.com"]),
    ([b"example.com"], [b"x.orders.example.com"]),
], ids=repr)
def test_names_that_an_authority_may_not_certify_are_refused(waiting, path, make, permitted, excluded):
    """The last of them: the certificate is for any name one below, and so for that."""
    root, upper, _ = path
    of = lambda names: [tlv(0x82, one) for one in names]
    bound = make("Bound", upper, extensions=[basic_constraints(True, 0), usage(5, 6), constraints(of(permitted), of(excluded))])
    waiting.refuses("constraint|excluded|permitted", waiting.issue(bound), bound, upper, root)


def test_names_that_an_authority_may_certify_are_taken(waiting, path, make):
    root, upper, _ = path
    allowed = constraints([tlv(0x82, b"example.com"), tlv(0xA4, name("C=CN,O=Example"))], [tlv(0x82, b"other.example.com")])
    bound = make("Bound", upper, extensions=[basic_constraints(True, 0), usage(5, 6), allowed])
    waiting.refuses("constraint|excluded|permitted", waiting.issue(bound, subject="C=CN,O=Another,CN=x"), bound, upper, root)
    waiting.takes(waiting.issue(bound), bound, upper, root)


@pytest.mark.parametrize("algorithm", ["RSA_MD5", "RSA_SHA1", "ECDSA_SHA1"])
def test_signatures_over_md5_and_sha1_are_refused(waiting, path, make, algorithm):
    root, upper, _ = path
    kind = "RSA_2048" if algorithm.startswith("RSA") else "EC_P256"
    issuing = make("Issuing", upper, kind)
    why = algorithm.split("_")[1].replace("SHA1", "SHA-?1")
    waiting.refuses(why, waiting.issue(issuing, algorithm=algorithm), issuing, upper, root)
    waiting.refuses(why, waiting.issue(issuing, algorithm=algorithm))
    below = make("Below", issuing, algorithm=algorithm)
    waiting.refuses(why, waiting.issue(below), below, issuing, upper, root)


def test_an_algorithm_that_is_another_outside_than_inside_is_refused(waiting, path, make):
    root, upper, lower = path
    waiting.refuses("algorithm", waiting.issue(lower, inner="ECDSA_SHA1"), lower, upper, root)
    waiting.refuses("algorithm", waiting.issue(lower, inner="RSA_SHA256"), lower, upper, root)


def test_certificates_of_the_other_specs_are_checked_alike(sdk, issuers, tmp_path):
    for spec in ("RSA_2048", "EC_SM2"):
        root, issuing = issuers(spec)
        waiting = Waiting(sdk, spec)
        altered = lambda signature: signature[:-1] + bytes([signature[-1] ^ 1])
        waiting.refuses("sign|issue", waiting.issue(issuing, spoil=altered), issuing, root)
        waiting.refuses("order|issue|sign", waiting.issue(issuing), root, issuing)
        waiting.refuses("key", certify(SUBJECT_NAME, Key(spec, tmp_path).spki, issuing, extensions=LEAF), issuing, root)
        waiting.takes(waiting.issue(issuing), issuing, root)
