"""XAES-256-GCM after the C2SP text, and the ciphertext format of keymill around it.

Independent of the server: AES, CMAC and GCM come from PyPI's cryptography, the layout from the format's specification.

| offset | size | field |
|---|---|---|
| 0 | 1 | format version, 0x01 |
| 1 | 1 | algorithm; bit 0x80: the plaintext was taken as text |
| 2 | 16 | CMK id, a UUID |
| 18 | 4 | CMK version number, big-endian, from 1 |
| 22 | 24 or 12 | nonce |
| .. | n + 16 | ciphertext and tag |
"""

import struct
import uuid
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

HEADER = 22
TAG = 16
TEXT_BIT = 0x80
XAES_256_GCM, AES_256_GCM = 0x01, 0x02
# algorithm: (key bytes, nonce bytes)
ALGORITHMS = {XAES_256_GCM: (32, 24), AES_256_GCM: (32, 12), 0x04: (16, 12), 0x05: (24, 12)}


class BadBlob(Exception):
    """The bytes are no blob of this format."""


@dataclass(frozen=True)
class Blob:
    """The fields of a blob; `header` is its first 22 bytes, `body` the ciphertext with its tag."""

    header: bytes
    algorithm: int
    is_text: bool
    cmk_id: uuid.UUID
    version: int
    nonce: bytes
    body: bytes


def derive_key(key, nonce):
    """Returns the AES-256 subkey for the first 12 bytes of a nonce (SP 800-108r1 in counter mode, CMAC-AES-256)."""
    return b"".join(_cmac(key, bytes([0, counter, 0x58, 0]) + nonce[:12]) for counter in (1, 2))


def seal(key, nonce, plaintext, aad):
    """Returns ciphertext and tag."""
    _check_sizes(key, nonce)
    return AESGCM(derive_key(key, nonce)).encrypt(nonce[12:], plaintext, aad)


def open_(key, nonce, sealed, aad):
    """Returns the plaintext; raises `cryptography.exceptions.InvalidTag` where anything differs."""
    _check_sizes(key, nonce)
    return AESGCM(derive_key(key, nonce)).decrypt(nonce[12:], sealed, aad)


def parse_blob(blob):
    """Returns the fields of `blob`."""
    if len(blob) < HEADER or blob[0] != 1:
        raise BadBlob(f"{len(blob)} bytes of format {blob[:1].hex()}")
    algorithm = blob[1] & ~TEXT_BIT
    if algorithm not in ALGORITHMS:
        raise BadBlob(f"algorithm {blob[1]:#04x}")
    (version,) = struct.unpack(">I", blob[18:22])
    end = HEADER + ALGORITHMS[algorithm][1]
    if version == 0 or len(blob) < end + TAG:
        raise BadBlob(f"version {version}, {len(blob)} bytes")
    return Blob(
        header=blob[:HEADER],
        algorithm=algorithm,
        is_text=bool(blob[1] & TEXT_BIT),
        cmk_id=uuid.UUID(bytes=blob[2:18]),
        version=version,
        nonce=blob[HEADER:end],
        body=blob[end:],
    )


def canonical_context(context):
    """Returns the canonical bytes of an encryption context; None and {} are the same."""
    pairs = sorted((key.encode(), value.encode()) for key, value in (context or {}).items())
    return struct.pack(">I", len(pairs)) + b"".join(
        struct.pack(">I", len(part)) + part for pair in pairs for part in pair
    )


def open_blob(key, blob, context=None):
    """Returns the plaintext of `blob` under the key material of its CMK version."""
    fields = parse_blob(blob)
    if len(key) != ALGORITHMS[fields.algorithm][0]:
        raise BadBlob(f"key of {len(key)} bytes for algorithm {fields.algorithm:#04x}")
    aad = fields.header + canonical_context(context)
    if fields.algorithm == XAES_256_GCM:
        return open_(key, fields.nonce, fields.body, aad)
    return AESGCM(key).decrypt(fields.nonce, fields.body, aad)


def _cmac(key, message):
    mac = CMAC(AES(key))
    mac.update(message)
    return mac.finalize()


def _check_sizes(key, nonce):
    if len(key) != 32 or len(nonce) != 24:
        raise ValueError(f"key of {len(key)} and nonce of {len(nonce)} bytes, 32 and 24 wanted")
