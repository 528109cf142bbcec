"""RSAES-OAEP by hand (RFC 8017, 7.1.1), so that each part of an encoded message can be put wrong, and raw RSA under a public key."""

import hashlib
import os

from cryptography.hazmat.primitives.serialization import load_pem_public_key


class PublicKey:
    """The numbers of an RSA key in PEM."""

    def __init__(self, pem):
        numbers = load_pem_public_key(pem.encode()).public_numbers()
        self.n, self.e = numbers.n, numbers.e
        self.size = (self.n.bit_length() + 7) // 8

    def raw(self, encoded):
        """Encrypts an encoded message, which is below the modulus."""
        message = int.from_bytes(encoded, "big")
        assert message < self.n
        return self.number(pow(message, self.e, self.n))

    def number(self, value):
        """Returns a number in as many bytes as the modulus has."""
        return value.to_bytes(self.size, "big")


def encode(message, size, digest, *, first=0, label=b"", label_hash=None, mask_digest=None, padding=None, separator=1):
    """Returns the encoded message of `size` bytes under the hash of that name; what is given by name replaces what is right."""
    label_hash = hashlib.new(digest, label).digest() if label_hash is None else label_hash
    space = size - 2 * len(label_hash) - 2 - len(message)
    padding = bytes(space) if padding is None else padding
    assert len(padding) == space
    block = label_hash + padding + bytes([separator]) + message
    seed = os.urandom(len(label_hash))
    mask_digest = mask_digest or digest
    masked = _xor(block, _mgf1(seed, len(block), mask_digest))
    return bytes([first]) + _xor(seed, _mgf1(masked, len(seed), mask_digest)) + masked


def _mgf1(seed, length, digest):
    blocks = -(-length // hashlib.new(digest).digest_size)
    return b"".join(hashlib.new(digest, seed + i.to_bytes(4, "big")).digest() for i in range(blocks))[:length]


def _xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
