"""Certificates put together byte by byte (RFC 5280), so that each part of one can be put wrong, and signed outside of keymill: by `cryptography`,
and for SM2, which it has not, by the `openssl` command."""

import base64
import datetime
import os
import subprocess

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

SM2_ID = "distid:1234567812345678"
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
# Signature algorithms by name: the object identifier, whether NULL follows it, and the hash.
SIGNATURES = {
    "RSA_MD5": ("1.2.840.113549.1.1.4", True, hashes.MD5),
    "RSA_SHA1": ("1.2.840.113549.1.1.5", True, hashes.SHA1),
    "RSA_SHA256": ("1.2.840.113549.1.1.11", True, hashes.SHA256),
    "ECDSA_SHA1": ("1.2.840.10045.4.1", False, hashes.SHA1),
    "ECDSA_SHA256": ("1.2.840.10045.4.3.2", False, hashes.SHA256),
    "SM2_SM3": ("1.2.156.10197.1.501", False, None),
}
ATTRIBUTES = {"CN": "2.5.4.3", "C": "2.5.4.6", "L": "2.5.4.7", "ST": "2.5.4.8", "O": "2.5.4.10", "OU": "2.5.4.11"}


def tlv(tag, *parts):
    """One element of DER."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    width = (size.bit_length() + 7) // 8
    return bytes([tag, 0x80 | width]) + size.to_bytes(width, "big") + content


def sequence(*parts):
    return tlv(0x30, *parts)


def oid(dotted):
    first, second, *rest = (int(part) for part in dotted.split("."))
    out = bytes([40 * first + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        out += bytes(reversed(groups))
    return tlv(0x06, out)


def integer(value):
    """An INTEGER: of a number, or of bytes that are taken as they are."""
    if isinstance(value, int):
        value = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return tlv(0x02, value)


def bits(data, unused=0):
    return tlv(0x03, bytes([unused]), data)


def name(text):
    """A name of pairs (`[("C", "CN"), ...]`), or of the text `C=CN,O=x`, in the order of its encoding."""
    pairs = [part.split("=", 1) for part in text.split(",")] if isinstance(text, str) else text
    return sequence(*(
        tlv(0x31, sequence(oid(ATTRIBUTES[kind]), tlv(0x13 if kind == "C" else 0x0C, value.encode()))) for kind, value in pairs
    ))


def moment(when):
    if when.year < 2050:
        return tlv(0x17, when.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(0x18, when.strftime("%Y%m%d%H%M%SZ").encode())


def extension(dotted, value, critical=False):
    return sequence(oid(dotted), *([tlv(0x01, b"\xff")] if critical else []), tlv(0x04, value))


def basic_constraints(is_one=True, path=None):
    """Basic constraints."""
    inner = [tlv(0x01, b"\xff")] if is_one else []
    return extension("2.5.29.19", sequence(*inner, *([integer(path)] if path is not None else [])), True)


def usage(*purposes):
    """Key usage, of the numbers of its bits."""
    data = bytearray((max(purposes) // 8) + 1)
    for bit in purposes:
        data[bit // 8] |= 0x80 >> bit % 8
    return extension("2.5.29.15", bits(bytes(data), 7 - max(purposes) % 8), True)


def alt_names(*names):
    """Alternative names: DNS names, or bytes that stand in place of one."""
    return extension("2.5.29.17", sequence(*(tlv(0x82, n if isinstance(n, bytes) else n.encode()) for n in names)))


def key_ids(own, issuer):
    digest = lambda spki: hashes_of(spki)[:20]
    return [extension("2.5.29.14", tlv(0x04, digest(own))), extension("2.5.29.35", sequence(tlv(0x80, digest(issuer))))]


def hashes_of(data):
    """Its SHA-256."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


class Key:
    """A key pair outside of keymill; SM2 is held as a file that the `openssl` command reads."""

    def __init__(self, kind, directory, size=2048):
        self.kind = kind
        if kind == "EC_SM2":
            self.file = directory / f"{os.urandom(6).hex()}.pem"
            openssl("genpkey", "-algorithm", "SM2", "-out", self.file)
            self.spki = openssl("pkey", "-in", self.file, "-pubout", "-outform", "DER")
            self.algorithm = "SM2_SM3"
            return
        self.private = rsa.generate_private_key(65537, size) if kind == "RSA_2048" else ec.generate_private_key(ec.SECP256R1())
        self.spki = self.private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.algorithm = "RSA_SHA256" if kind == "RSA_2048" else "ECDSA_SHA256"

    def sign(self, data, algorithm):
        if self.kind == "EC_SM2":
            message = self.file.with_suffix(".tbs")
            message.write_bytes(data)
            return openssl("pkeyutl", "-sign", "-inkey", self.file, "-rawin", "-digest", "sm3", "-pkeyopt", SM2_ID, "-in", message)
        digest = SIGNATURES[algorithm][2]()
        if self.kind == "RSA_2048":
            return self.private.sign(data, padding.PKCS1v15(), digest)
        return self.private.sign(data, ec.ECDSA(digest))


class AnyKey:
    """A key pair of which each half may be any."""

    def __init__(self, kind, spki, sign):
        self.kind, self.spki, self.sign = kind, spki, sign
        self.algorithm = "RSA_SHA256" if kind == "RSA_2048" else "ECDSA_SHA256"


def signs_rsa(modulus, exponent):
    """Signs by an exponent that need not be of any key (RFC 8017 §8.2, with SHA-256)."""
    def sign(data, _algorithm):
        size = (abs(modulus).bit_length() + 7) // 8
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashes_of(data)
        padded = b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest
        return pow(int.from_bytes(padded, "big"), exponent, abs(modulus)).to_bytes(size, "big")

    return sign


class Made:
    """A certificate, and the key of what it is for where that is outside of keymill."""

    def __init__(self, der, subject, key):
        self.der, self.subject, self.key = der, subject, key
        self.pem = pem("CERTIFICATE", der)


def certify(subject, spki, issuer=None, key=None, extensions=None, serial=None, start=NOW - DAY, end=NOW + 90 * DAY,
            algorithm=None, inner=None, signer=None, version=2, issuer_name=None, spoil=None, ids=True):
    """Makes a certificate of `subject` (a name, or its DER) for `spki`, signed by `issuer`, or by `key` where it is to sign itself. The rest
    is what else it says: `inner` another algorithm within than without, `signer` another key than the issuer's, `spoil` a change of the end
    of it, `ids` whether it names the keys of both."""
    subject = subject if isinstance(subject, bytes) else name(subject)
    by = signer or (issuer.key if issuer else key)
    algorithm = algorithm or by.algorithm
    told = lambda which: sequence(oid(SIGNATURES[which][0]), *([tlv(0x05)] if SIGNATURES[which][1] else []))
    parts = [integer(int.from_bytes(os.urandom(15), "big") | 1 << 112 if serial is None else serial), told(inner or algorithm),
             issuer_name or (issuer.subject if issuer else subject), sequence(moment(start), moment(end)), subject, spki]
    if version:
        parts.insert(0, tlv(0xA0, integer(version)))
    if extensions is None:
        extensions = [basic_constraints(False), usage(0)]
    if extensions:
        named = key_ids(spki, (issuer.key if issuer else by).spki) if ids else []
        parts.append(tlv(0xA3, sequence(*extensions, *named)))
    tbs = sequence(*parts)
    signature = by.sign(tbs, algorithm)
    if spoil:
        signature = spoil(signature)
    return Made(sequence(tbs, told(algorithm), bits(signature)), subject, key)


def request(subject, key, extensions=(), algorithm=None, version=0, spki=None, spoil=None):
    """Makes a request for a certificate (RFC 2986), in PEM; `spki` another key than the one that signs."""
    algorithm = algorithm or key.algorithm
    # The attribute that asks for extensions (RFC 2985 §5.4.2).
    asked = [sequence(oid("1.2.840.113549.1.9.14"), tlv(0x31, sequence(*extensions)))] if extensions else []
    info = sequence(integer(version), subject if isinstance(subject, bytes) else name(subject), spki or key.spki, tlv(0xA0, *asked))
    signature = key.sign(info, algorithm)
    told = sequence(oid(SIGNATURES[algorithm][0]), *([tlv(0x05)] if SIGNATURES[algorithm][1] else []))
    return pem("CERTIFICATE REQUEST", sequence(info, told, bits(spoil(signature) if spoil else signature)))


def certificate_authority(kind, directory, subject, issuer=None, path=None, key=None, **odd):
    """Makes a root, or an intermediate of `issuer`."""
    key = key or Key(kind, directory)
    odd.setdefault("extensions", [basic_constraints(True, path), usage(5, 6)])
    return certify(subject, key.spki, issuer, key, **odd)


def openssl(*arguments, check=True):
    """Runs the command; returns what it printed, or the whole result where it may fail."""
    done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True)
    if check:
        assert done.returncode == 0, (arguments, done.stderr.decode(errors="replace"))
        return done.stdout
    return done


def pem(label, der):
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at:at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"
