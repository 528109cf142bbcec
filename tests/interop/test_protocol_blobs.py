"""Altered blobs: one error whatever was altered, the not-found error for CMKs that are not there, never a plaintext."""

import os
import unicodedata
import uuid

import pytest

import xaes
from keymill_tcp import batch_errors
from server_process import ALGORITHM

CONTEXT = {"tenant": "a", "row": "7"}
PLAINTEXT = b"8 bytes!"
ID = range(2, 18)


@pytest.fixture
def blob(conn, cmk):
    return seal(conn, cmk)


def seal(conn, cmk, plaintext=PLAINTEXT, context=CONTEXT):
    return conn.call("Encrypt", {"KeyId": cmk, "Plaintext": plaintext, "EncryptionContext": context})["CiphertextBlob"]


def put(blob, offset, data):
    return blob[:offset] + data + blob[offset + len(data):]


def opaque_error(conn, blob):
    """Returns (code, message) of a wrong tag, which all other alterations must share."""
    error = conn.refusal("Decrypt", {"CiphertextBlob": blob[:-1] + bytes([blob[-1] ^ 1]), "EncryptionContext": CONTEXT})
    assert (error.status, error.code, error.retryable) == (400, "InvalidParameter", False)
    return error.code, error.message


def refused_items(conn, blobs, good, context=CONTEXT):
    """Decrypts `blobs` with `good` at either end and checks that `good` alone opens; returns the errors in order."""
    items = [good, *blobs, good]
    result = conn.call("BatchDecrypt", {"Items": items, "EncryptionContext": context})
    errors = batch_errors(result, len(items))
    assert set(errors) == set(range(1, len(items) - 1)), "an altered blob opened, or a good one did not"
    assert result["Items"][0] == result["Items"][-1] == PLAINTEXT
    return [errors[index] for index in sorted(errors)]


def test_every_single_bit_is_protected(conn, blob):
    opaque = opaque_error(conn, blob)
    flipped = [put(blob, bit // 8, bytes([blob[bit // 8] ^ 1 << bit % 8])) for bit in range(len(blob) * 8)]
    errors = refused_items(conn, flipped, blob)
    for bit, error in enumerate(errors):
        if bit // 8 in ID:
            assert error[0] == "Forbidden.KeyNotFound", bit
        else:
            assert error == opaque, bit


def test_every_other_length_is_refused_alike(conn, blob):
    cut = [blob[:length] for length in range(len(blob))]
    longer = [blob + b"\x00", blob + blob, b"\x00" + blob, blob + bytes(60_000)]
    assert set(refused_items(conn, cut + longer, blob)) == {opaque_error(conn, blob)}


def test_bytes_that_never_were_a_blob_are_refused_alike(conn, blob):
    header = blob[:22]
    junk = [bytes(length) for length in (1, 21, 22, 37, 38, 62, 100)] + [b"\xff" * 80]
    junk += [header + os.urandom(length) for length in (0, 1, 24, 39, 40, 41, 1000)]
    assert set(refused_items(conn, junk, blob)) == {opaque_error(conn, blob)}


def test_the_single_operation_gives_the_same_face_for_every_alteration(conn, cmk, other_cmk, blob):
    opaque_error(conn, blob)
    other_algorithm = next(algorithm for algorithm in xaes.ALGORITHMS if algorithm != ALGORITHM)
    body = 22 + xaes.ALGORITHMS[ALGORITHM][1]
    altered = {
        "format 0": put(blob, 0, b"\x00"), "format 2": put(blob, 0, b"\x02"), "format 255": put(blob, 0, b"\xff"),
        "algorithm 0": put(blob, 1, b"\x00"), "another algorithm": put(blob, 1, bytes([other_algorithm])),
        "algorithm 3": put(blob, 1, b"\x03"),
        "algorithm 127": put(blob, 1, b"\x7f"), "text bit": put(blob, 1, bytes([0x80 | ALGORITHM])),
        "id of another cmk": put(blob, 2, uuid.UUID(other_cmk).bytes),
        "version 0": put(blob, 18, bytes(4)), "version 2": put(blob, 18, b"\0\0\0\x02"),
        "version 2^32-1": put(blob, 18, b"\xff" * 4),
        "nonce": put(blob, 22, bytes([blob[22] ^ 1])), "prefix": put(blob, 22, bytes(12)),
        "body": put(blob, body, bytes([blob[body] ^ 1])), "tag zero": blob[:-16] + bytes(16),
        "tag of another": blob[:-16] + seal(conn, cmk)[-16:], "body of another": blob[:body] + seal(conn, cmk)[body:],
        "tag cut to 15": blob[:-1], "tag cut to 4": blob[:-12], "empty": b"", "one byte more": blob + b"\x00",
    }
    faces = {
        name: conn.refusal("Decrypt", {"CiphertextBlob": data, "EncryptionContext": CONTEXT}).face()
        for name, data in altered.items()
    }
    faces["context"] = conn.refusal("Decrypt", {"CiphertextBlob": blob}).face()
    assert len(set(faces.values())) == 1, faces
    assert conn.call("Decrypt", {"CiphertextBlob": blob, "EncryptionContext": CONTEXT})["Plaintext"] == PLAINTEXT


def test_unknown_cmks_are_not_found_whatever_else_is_wrong(conn, blob):
    stranger = put(blob, 2, uuid.uuid4().bytes)
    errors = set()
    for data in (stranger, stranger[:-1] + bytes([stranger[-1] ^ 1]), put(blob, 2, uuid.uuid4().bytes)):
        error = conn.refusal("Decrypt", {"CiphertextBlob": data, "EncryptionContext": CONTEXT})
        assert (error.status, error.code) == (404, "Forbidden.KeyNotFound")
        errors.add(error.code)
    assert {code for code, _ in refused_items(conn, [stranger], blob)} == errors


def test_a_named_key_id_must_be_the_one_of_the_blob(conn, cmk, other_cmk, blob):
    given = {"CiphertextBlob": blob, "EncryptionContext": CONTEXT}
    assert conn.call("Decrypt", given | {"KeyId": cmk})["Plaintext"] == PLAINTEXT
    assert 400 <= conn.refusal("Decrypt", given | {"KeyId": other_cmk}).status < 500
    absent = conn.refusal("Decrypt", given | {"KeyId": str(uuid.uuid4())})
    assert 400 <= absent.status < 500


COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
SEALED_UNDER = [
    ({"a": "bc"}, [{"ab": "c"}, {"abc": ""}, {"": "abc"}, {"a": "b", "c": ""}, {"bc": "a"}, {"A": "bc"}, {"a": "bC"}]),
    ({"a": "1", "b": "2"}, [{"a": "1b2"}, {"a": "1"}, {"b": "2"}, {"a": "2", "b": "1"}, {"1": "a", "2": "b"}]),
    ({}, [{"": ""}, {"a": ""}]),
    ({"": ""}, [{}, {"": "\0"}, {"\0": ""}]),
    ({"k": COMPOSED}, [{"k": DECOMPOSED}, {"k": "e"}]),
    ({DECOMPOSED: "v"}, [{COMPOSED: "v"}]),
    ({"a": 'b","c":"d'}, [{"a": "b", "c": "d"}, {"a": "b\",\"c\":\"d "}]),
    ({"a": "x\0y"}, [{"a": "x"}, {"a": "xy"}]),
    ({"a": "b\nc=d"}, [{"a": "b", "c": "d"}]),
]


@pytest.mark.parametrize("context, others", SEALED_UNDER, ids=range(len(SEALED_UNDER)))
def test_no_two_contexts_are_taken_for_each_other(conn, cmk, context, others):
    blob = seal(conn, cmk, context=context)
    result = conn.call("BatchDecrypt", {"Items": [blob] * (len(others) + 1), "EncryptionContexts": [context, *others]})
    errors = batch_errors(result, len(others) + 1)
    assert result["Items"][0] == PLAINTEXT
    assert set(errors) == set(range(1, len(others) + 1))
    assert set(errors.values()) == {opaque_error(conn, seal(conn, cmk))}
