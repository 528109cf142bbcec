"""What a certificate itself must not say, uploaded through the cloud's SDK: its numbers, names, keys and extensions, and bytes that are none of a
certificate. Each is refused with what is wrong with it."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from test_certificate import WRONG, issuers, refusal, sdk  # noqa: F401
from test_certificate_chains import LEAF, make, path, waiting  # noqa: F401
from x509_made import AnyKey, Key, alt_names, basic_constraints, bits, certify, extension, integer, name, oid, pem, sequence, signs_rsa, tlv, usage

AUTHORITY = [basic_constraints(True, 0), usage(5, 6)]

def test_short_keys_of_rsa_are_refused(waiting, path, make, tmp_path):
    root, upper, _ = path
    # The second has one bit less than enough, and as many bytes.
    for size in (1024, 2047):
        short = make("Short", upper, kind="RSA_2048", key=Key("RSA_2048", tmp_path, size))
        waiting.refuses(f"{size}|2048", waiting.issue(short), short, upper, root)


def test_keys_of_rsa_that_prove_nothing_are_refused(waiting, path):
    root, upper, _ = path
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    modulus = numbers.public_numbers.n
    # Each "signs": with an exponent of 1 the padded digest is its own signature.
    for n, e, d, why in ((modulus, 1, 1, "exponent"), (modulus, 2, 1, "exponent|even"), (modulus, 1 << 2040 | 1, 1, "exponent"),
                         (1 << 16383 | 1, 65537, 1, "16384|bits"), (-modulus, 65537, 1, "modulus|key|negative|integer")):
        key = AnyKey("RSA_2048", sequence(sequence(oid("1.2.840.113549.1.1.1"), tlv(0x05)), bits(sequence(integer(n), integer(e)))), signs_rsa(n, d))
        issuing = certify("C=CN,O=Example,CN=Odd", key.spki, upper, key, extensions=AUTHORITY)
        waiting.refuses(why, waiting.issue(issuing), issuing, upper, root)
    key = AnyKey("RSA_2048", sequence(sequence(oid("1.2.840.113549.1.1.1"), tlv(0x05)), bits(sequence(integer(modulus), integer(65537)))),
                 signs_rsa(modulus, numbers.d))
    issuing = certify("C=CN,O=Example,CN=Good", key.spki, upper, key, extensions=AUTHORITY)
    waiting.takes(waiting.issue(issuing), issuing, upper, root)


def test_keys_of_curves_that_are_no_points_are_refused(waiting, path, tmp_path):
    root, upper, _ = path
    good = Key("EC_P256", tmp_path)
    point, curve = good.spki[-65:], oid("1.2.840.10045.3.1.7")
    of = lambda parameters, *key: sequence(sequence(oid("1.2.840.10045.2.1"), parameters), tlv(0x03, *key))
    for spki in (of(curve, b"\0", point[:-1] + bytes([point[-1] ^ 1])), of(curve, b"\0\0"), of(curve, b"\0"), of(curve, b"\0", point[:-1]),
                 of(curve, b"\0", bytes([6 + point[-1] % 2]), point[1:]), of(curve, b"\1", point), of(tlv(0x05), b"\0", point),
                 of(oid("1.3.132.0.33"), b"\0\4", bytes(56)), of(oid("1.3.132.0.34"), b"\0", point), of(curve, b"\0\4", b"\xff" * 64)):
        issuing = certify("C=CN,O=Example,CN=Odd", spki, upper, AnyKey("EC_P256", spki, good.sign), extensions=AUTHORITY)
        waiting.refuses("key|point|curve", waiting.issue(issuing), issuing, upper, root)


@pytest.mark.parametrize("serial", [-1, 0, b"\x80" + bytes(19), 1 << 160, b"\x7f" * 200, b"", b"\x00\x01", b"\xff\xff"],
                         ids=["negative", "zero", "negative by its first bit", "of 21 bytes", "of 200 bytes", "of none", "not shortest", "minus one, long"])
def test_serial_numbers_that_are_none_are_refused(waiting, path, serial):
    root, upper, lower = path
    waiting.refuses("serial|DER|integer", waiting.issue(lower, serial=serial), lower, upper, root)


def test_the_longest_serial_number_is_taken(waiting, path):
    root, upper, lower = path
    waiting.takes(waiting.issue(lower, serial=b"\x7f" + b"\xff" * 19), lower, upper, root)


@pytest.mark.parametrize("subject", [
    [("C", "CN"), ("O", "Example"), ("OU", "kms"), ("CN", "good.example\0.evil.example")],
    [("C", "CN"), ("O", "Example\u202eelpmaxE"), ("OU", "kms"), ("CN", "x")],
    [("C", "CN"), ("O", "Example"), ("OU", "kms"), ("CN", "good\u200b.example")],
    [("C", "CN"), ("O", "Example"), ("OU", "kms"), ("CN", "good.example\n")],
], ids=["NUL", "the other way", "no width", "a line"])
def test_names_that_deceive_are_refused(waiting, path, make, subject):
    root, upper, lower = path
    waiting.refuses("subject|name|CN|character|U\\+", waiting.issue(lower, subject=name(subject)), lower, upper, root)


@pytest.mark.parametrize("named", [
    b"good.example\0.evil.example", "gооd.example".encode(), b"good.example\n", b"good example", b"", b"\xff\xfe.example", b"x" * 64 + b".example",
    b"a..example", b".example", b"*", b"a.*.example", b"-a.example",
], ids=repr)
def test_alternative_names_that_are_none_are_refused(waiting, path, named):
    root, upper, lower = path
    odd = waiting.issue(lower, extensions=[basic_constraints(False), usage(0), alt_names("good.example", named)])
    waiting.refuses("name", odd, lower, upper, root)


@pytest.mark.parametrize("odd", [
    tlv(0x87, b""), tlv(0x87, bytes(5)), tlv(0x87, bytes(8)), tlv(0x87, bytes(17)), tlv(0x81, b"a@good.example\0.evil.example"), tlv(0x81, b"good.example"),
    tlv(0x81, "é@good.example".encode()), tlv(0x86, b"https://good.example\0.evil.example"), tlv(0x86, b"https://good.example\n"), tlv(0x89, b"x"),
    tlv(0x82, b"10.0.0.1"),
], ids=repr)
def test_addresses_and_other_names_that_are_none_are_refused(waiting, path, odd):
    root, upper, lower = path
    named = extension("2.5.29.17", sequence(tlv(0x82, b"good.example"), odd))
    waiting.refuses("name|address|URI", waiting.issue(lower, extensions=[basic_constraints(False), usage(0), named]), lower, upper, root)


def test_names_of_every_kind_are_taken(sdk, waiting, path):
    root, upper, lower = path
    other = tlv(0xA0, oid("1.3.6.1.4.1.311.20.2.3"), tlv(0xA0, tlv(0x0C, b"u@example")))
    named = extension("2.5.29.17", sequence(tlv(0x82, b"A.Example"), tlv(0x87, b"\x0a\0\0\1"), tlv(0x87, bytes(15) + b"\1"), tlv(0x81, b"ops@a.example"),
                                            tlv(0x86, b"spiffe://a.example/x"), other, tlv(0xA4, name("C=CN,O=x"))))
    waiting.takes(waiting.issue(lower, extensions=[basic_constraints(False), usage(0), named]), lower, upper, root)
    told = sdk("DescribeCertificate", CertificateId=waiting.id)["SubjectAlternativeNames"]
    for one in ("a.example", "10.0.0.1", "::1", "ops@a.example", "spiffe://a.example/x"):
        assert any(one in part for part in told), told


@pytest.mark.parametrize("tag, value", [(0x0C, b"\xff\xfe"), (0x13, b"a\xe9"), (0x16, b"a\xe9"), (0x1E, b"\0a\0"), (0x1E, b"\xd8\0\0a")], ids=repr)
def test_texts_that_are_none_of_their_type_are_refused(waiting, path, tag, value):
    root, upper, lower = path
    common = sequence(tlv(0x31, sequence(oid("2.5.4.3"), tlv(tag, value))))
    waiting.refuses("name|subject|CN|DER|string|UTF-8", waiting.issue(lower, subject=common), lower, upper, root)


@pytest.mark.parametrize("tag, value, shown", [
    (0x0C, b"a,CN=evil\\", "CN=a\\,CN=evil\\\\"), (0x0C, b" x ", "CN=\\ x\\ "), (0x0C, b"#04", "CN=\\#04"), (0x1E, "密".encode("utf-16-be"), "CN=密"),
    (0x04, b"x", "CN=#040178"), (0x30, b"", "CN=#3000"),
], ids=repr)
def test_a_subject_is_shown_so_that_it_is_read_in_one_way_alone(sdk, waiting, path, tag, value, shown):
    """RFC 4514 §2.4: with what separates escaped, and what is no text in hexadecimal."""
    root, upper, lower = path
    common = sequence(tlv(0x31, sequence(oid("2.5.4.3"), tlv(tag, value))))
    waiting.takes(waiting.issue(lower, subject=common), lower, upper, root)
    assert sdk("DescribeCertificate", CertificateId=waiting.id)["Subject"] == shown


def test_extensions_that_nobody_understands_or_that_come_twice_are_refused(waiting, path):
    root, upper, lower = path
    unknown = extension("1.3.6.1.4.1.55555.1", tlv(0x05), critical=True)
    waiting.refuses("critical|1\\.3\\.6", waiting.issue(lower, extensions=LEAF + [unknown]), lower, upper, root)
    waiting.refuses("twice|again|more than once|duplicate", waiting.issue(lower, extensions=LEAF + [alt_names("evil.example")]), lower, upper, root)
    waiting.refuses("version|extension", waiting.issue(lower, version=0), lower, upper, root)
    for hollow in (extension("2.5.29.19", b""), extension("2.5.29.17", sequence()), extension("2.5.29.15", b"\x03\x01\x09", True),
                   extension("2.5.29.19", sequence(tlv(0x01, b"\x01")), True)):
        waiting.refuses("extension|DER|constraints|usage|name|twice|missing", waiting.issue(lower, extensions=[hollow]), lower, upper, root)
    # What is not critical may be unknown.
    waiting.takes(waiting.issue(lower, extensions=LEAF + [extension("1.3.6.1.4.1.55555.1", tlv(0x05))]), lower, upper, root)


def hostile(der):
    """Bytes that are no certificate, or not one alone; each by name."""
    # The header of the whole is four bytes: 30 82 and two of length.
    body = der[4:]
    yield "nothing", b""
    yield "one byte", b"\x30"
    yield "an empty sequence", b"\x30\x00"
    yield "noise", bytes(range(256))
    yield "cut off", der[:-1]
    yield "half", der[:len(der) // 2]
    yield "trailing", der + b"\0"
    yield "two in one", der + der
    yield "a length of 4 GiB", b"\x30\x84\xff\xff\xff\xff" + body
    yield "a length of 8 bytes", b"\x30\x88" + b"\x7f" + b"\xff" * 7 + body
    yield "a length of 126 bytes", b"\x30\xfe" + b"\x01" * 126 + body
    yield "no end", b"\x30\x80" + body + b"\0\0"
    yield "a long form of its length", b"\x30\x83\x00" + der[2:4] + body
    yield "a tag of many bytes", b"\x3f\xff\xff\xff\xff\xff\xff\x7f\x02\x05\x00"
    nested = b""
    for _ in range(8_000):
        nested = tlv(0x30, nested)
    yield "nested", nested
    nested = b""
    for _ in range(8_000):
        nested = b"\x30\x80" + nested
    yield "nested without end", nested


def test_bytes_that_are_no_certificate_are_refused(waiting, path):
    root, upper, lower = path
    leaf = waiting.issue(lower)
    for label, der in hostile(leaf.der):
        waiting.refuses("", pem("CERTIFICATE", der), lower, upper, root)
        waiting.refuses("", leaf, pem("CERTIFICATE", der), upper, root)
    waiting.takes(leaf, lower, upper, root)


def test_each_byte_of_a_certificate_counts(waiting, path):
    root, upper, lower = path
    leaf = waiting.issue(lower)
    for at in range(0, len(leaf.der), 7):
        altered = bytearray(leaf.der)
        altered[at] ^= 1 << at % 8
        waiting.refuses("", pem("CERTIFICATE", bytes(altered)), lower, upper, root)
    waiting.takes(leaf, lower, upper, root)


def test_text_that_holds_no_certificate_is_refused(waiting, path):
    root, upper, lower = path
    leaf = waiting.issue(lower)
    private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n"
    for odd in ("x", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", leaf.pem.replace("-----END CERTIFICATE-----\n", ""),
                leaf.pem.replace("CERTIFICATE", "CERTIFICATE REQUEST"), leaf.pem.replace("CERTIFICATE", "X509 CRL"), private,
                leaf.pem.replace("M", "*", 1), leaf.pem.replace("END CERTIFICATE", "END PUBLIC KEY")):
        waiting.refuses("PEM|certificate|base64", odd, lower, upper, root)
        waiting.refuses("PEM|certificate|base64", leaf, odd)
    # Material that came by mistake is in no message.
    code, told = refusal(waiting.sdk, "UploadCertificate", CertificateId=waiting.id, Certificate=private)
    assert code == WRONG and "AwBQYDK2Vw" not in told
    waiting.takes(leaf, lower, upper, root)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_a_huge_certificate_is_refused(waiting, path, front, size):
    """By an operation of our own: the SDKs have everything in the address, which ends before that."""
    root, upper, lower = path
    for extensions in (LEAF + [extension("1.3.6.1.4.1.55555.1", bytes(size))], [basic_constraints(False), alt_names(*["a.example"] * (size // 11))]):
        leaf = waiting.issue(lower, extensions=extensions)
        answer = front.post("UploadCertificate", {"CertificateId": waiting.id, "Certificate": leaf.pem, "CertificateChain": lower.pem})
        assert answer.status in (400, 413), answer.body
        assert answer.error()["Code"] in ("InvalidParameter", "RequestTooLarge", "PayloadTooLarge"), answer.body
    assert waiting.sdk("DescribeCertificate", CertificateId=waiting.id)["Status"] == "PENDING"


