"""XAES-256-GCM against the answers published with its specification, and blobs of the real engine given their key."""

import hashlib
import json
import os
import uuid

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import xaes

# C2SP XAES-256-GCM.md, "Test vectors".
NONCE = bytes.fromhex("4142434445464748494a4b4c4d4e4f505152535455565758")
MESSAGE = bytes.fromhex("584145532d3235362d47434d")
PUBLISHED = [
    ("01" * 32, "", "ce546ef63c9cc60765923609" "b33a9a1974e96e52daf2fcf7075e2271"),
    (
        "03" * 32,
        "633273702e6f72672f584145532d3235362d47434d",
        "986ec1832593df5443a17943" "7fd083bf3fdb41abd740a21f71eb769d",
    ),
]
ACCUMULATED_10_000 = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


@pytest.mark.parametrize("key, aad, sealed", PUBLISHED, ids=["without_aad", "with_aad"])
def test_published_vectors_seal_and_open(key, aad, sealed):
    key, aad, sealed = bytes.fromhex(key), bytes.fromhex(aad), bytes.fromhex(sealed)
    assert xaes.seal(key, NONCE, MESSAGE, aad) == sealed
    assert xaes.open_(key, NONCE, sealed, aad) == MESSAGE
    with pytest.raises(InvalidTag):
        xaes.open_(key, NONCE, sealed, aad + b"\x00")
    with pytest.raises(InvalidTag):
        xaes.open_(key, NONCE, sealed[:-1] + bytes([sealed[-1] ^ 1]), aad)


def test_accumulated_vectors_of_10_000_iterations():
    # Inputs are one SHAKE-128 stream of an empty input; hashlib gives no stream, so its longest need is taken at once.
    iterations = 10_000
    stream = memoryview(hashlib.shake_128().digest(iterations * (32 + 24 + 2 * 256)))
    position = 0

    def take(count):
        nonlocal position
        position += count
        return bytes(stream[position - count:position])

    answer = hashlib.shake_128()
    for _ in range(iterations):
        key, nonce = take(32), take(24)
        plaintext = take(take(1)[0])
        aad = take(take(1)[0])
        sealed = xaes.seal(key, nonce, plaintext, aad)
        answer.update(sealed)
        assert xaes.open_(key, nonce, sealed, aad) == plaintext
    assert answer.hexdigest(32) == ACCUMULATED_10_000


def test_canonical_context_is_sorted_and_injective():
    assert xaes.canonical_context(None) == xaes.canonical_context({}) == bytes(4)
    assert xaes.canonical_context({"b": "2", "a": "1"}) == bytes.fromhex(
        "00000002" "00000001" "61" "00000001" "31" "00000001" "62" "00000001" "32"
    )
    # Sorted by UTF-8 bytes: U+FF5E (ef bd 9e) stands before U+10000 (f0 90 80 80), unlike in UTF-16.
    above = xaes.canonical_context({"\U00010000": "", "\uff5e": ""})
    assert above.index("\uff5e".encode()) < above.index("\U00010000".encode())
    alike = [{"a": "bc"}, {"ab": "c"}, {"abc": ""}, {"": "abc"}, {"a": "1", "b": "2"}, {"a": "1b2"}]
    assert len({xaes.canonical_context(context) for context in alike}) == len(alike)


@pytest.mark.parametrize("algorithm", sorted(xaes.ALGORITHMS))
def test_a_blob_opens_with_its_own_key_and_context_only(algorithm):
    key_bytes, nonce_bytes = xaes.ALGORITHMS[algorithm]
    key, nonce, context = bytes(range(key_bytes)), bytes(range(nonce_bytes)), {"tenant": "a", "row": "7"}
    header = bytes([1, algorithm]) + uuid.UUID(int=7).bytes + (1).to_bytes(4, "big")
    aad = header + xaes.canonical_context(context)
    seal = xaes.seal if algorithm == xaes.XAES_256_GCM else _seal_gcm
    blob = header + nonce + seal(key, nonce, b"plaintext", aad)
    assert xaes.open_blob(key, blob, dict(reversed(context.items()))) == b"plaintext"
    assert xaes.parse_blob(blob).cmk_id == uuid.UUID(int=7)
    with pytest.raises(InvalidTag):
        xaes.open_blob(key, blob, {"tenant": "a"})
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((InvalidTag, xaes.BadBlob)):
            xaes.open_blob(key, bytes(changed), context)
    for length in range(len(blob)):
        with pytest.raises((InvalidTag, xaes.BadBlob)):
            xaes.open_blob(key, blob[:length], context)


def test_blobs_of_the_engine_open_with_the_key_alone():
    path = os.environ.get("KEYMILL_BLOBS")
    if path is None:
        pytest.skip("KEYMILL_BLOBS is not set: it names JSON lines of key, blob, context and plaintext from the engine")
    with open(path, encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines if line.strip()]
    assert entries, f"{path} holds no blob"
    for number, entry in enumerate(entries, start=1):
        key, blob = bytes.fromhex(entry["key"]), bytes.fromhex(entry["blob"])
        context, plaintext = entry.get("context") or {}, bytes.fromhex(entry["plaintext"])
        assert xaes.open_blob(key, blob, context) == plaintext, f"line {number}"
        with pytest.raises(InvalidTag):
            xaes.open_blob(key, blob, {**context, "not": "there"})
        with pytest.raises(InvalidTag):
            xaes.open_blob(key, blob[:-1] + bytes([blob[-1] ^ 0x80]), context)


def _seal_gcm(key, nonce, plaintext, aad):
    return AESGCM(key).encrypt(nonce, plaintext, aad)
