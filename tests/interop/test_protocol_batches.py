"""The batch operations: order, contexts, bad items beside good ones, results that agree with the single operations."""

import uuid

import pytest

import xaes
from keymill_tcp import batch_errors
from raw_msgpack import Pairs
from server_process import ALGORITHM

OPAQUE = "InvalidParameter"


def encrypt(conn, key_id, items, **more):
    """Returns the blobs of `items`, after checking the whole result."""
    result = conn.call("BatchEncrypt", {"KeyId": key_id, "Items": items} | more)
    check_sealed(result, len(items))
    assert result["Errors"] == []
    return result["Items"]


def decrypt(conn, blobs, **more):
    """Returns (items, errors by index, key ids by index) of a `BatchDecrypt`."""
    result = conn.call("BatchDecrypt", {"Items": blobs} | more)
    assert set(result) - {"RequestId"} == {"Items", "KeyIds", "KeyIndex", "Errors"}
    errors = batch_errors(result, len(blobs))
    key_ids, index = result["KeyIds"], result["KeyIndex"]
    assert len(index) == len(blobs) and len(set(key_ids)) == len(key_ids)
    assert all(isinstance(key_id, str) for key_id in key_ids)
    assert all(index[i] is not None for i in range(len(blobs)) if i not in errors)
    return result["Items"], errors, [None if at is None else key_ids[at] for at in index]


def check_sealed(result, count):
    assert set(result) - {"RequestId"} == {"KeyId", "KeyVersionId", "Items", "Errors"}
    assert isinstance(result["KeyId"], str) and isinstance(result["KeyVersionId"], str) and result["KeyVersionId"]
    return batch_errors(result, count)


def test_single_encrypt_and_decrypt_agree_with_each_other(conn, cmk):
    sealed = conn.call("Encrypt", {"KeyId": cmk, "Plaintext": b"\x00one\xff"})
    assert set(sealed) == {"CiphertextBlob", "KeyId", "KeyVersionId", "RequestId"}
    opened = conn.call("Decrypt", {"CiphertextBlob": sealed["CiphertextBlob"]})
    assert set(opened) == {"Plaintext", "KeyId", "KeyVersionId", "RequestId"}
    assert opened["Plaintext"] == b"\x00one\xff"
    assert opened["KeyId"] == sealed["KeyId"] == cmk
    assert opened["KeyVersionId"] == sealed["KeyVersionId"]
    assert opened["RequestId"] != sealed["RequestId"]


def test_results_keep_the_order_of_the_request(conn, cmk):
    items = [str(number).encode() * (number % 7) for number in range(5_000)]
    opened, errors, keys = decrypt(conn, encrypt(conn, cmk, items))
    assert opened == items and not errors and set(keys) == {cmk}


def test_batch_and_single_forms_open_each_other(conn, cmk):
    context = {"tenant": "a", "row": "7"}
    single = conn.call("Encrypt", {"KeyId": cmk, "Plaintext": b"a", "EncryptionContext": context})["CiphertextBlob"]
    (batch,) = encrypt(conn, cmk, [b"b"], EncryptionContext=context)
    assert decrypt(conn, [single, batch], EncryptionContext=context)[0] == [b"a", b"b"]
    assert conn.call("Decrypt", {"CiphertextBlob": batch, "EncryptionContext": context})["Plaintext"] == b"b"


def test_an_empty_batch_has_an_empty_result(conn, cmk):
    assert encrypt(conn, cmk, []) == []
    assert decrypt(conn, []) == ([], {}, [])


def test_blobs_have_the_layout_of_the_format(conn, cmk):
    items = [b"x" * length for length in range(16)]
    blobs = [xaes.parse_blob(blob) for blob in encrypt(conn, cmk, items)]
    assert {blob.cmk_id for blob in blobs} == {uuid.UUID(cmk)}
    assert {(blob.algorithm, blob.is_text, blob.version) for blob in blobs} == {(ALGORITHM, False, 1)}
    assert [len(blob.body) for blob in blobs] == [len(item) + xaes.TAG for item in items]
    if ALGORITHM != xaes.XAES_256_GCM:
        assert len({blob.nonce for blob in blobs}) == 16, "nonces of 96 bits are random, each"
        return
    # Item i: epoch prefix, then batch value + i mod 2^96.
    assert len({blob.nonce[:12] for blob in blobs}) == 1
    first = int.from_bytes(blobs[0].nonce[12:], "big")
    assert [int.from_bytes(blob.nonce[12:], "big") for blob in blobs] == [(first + i) % 2**96 for i in range(16)]


def test_no_nonce_comes_twice_over_batches_singles_and_connections(login, cmk):
    nonces, expected = set(), 0
    for _ in range(4):
        connection = login()
        for _ in range(5):
            nonces |= {blob[22:46] for blob in encrypt(connection, cmk, [b""] * 1_000)}
        ids = [connection.request("Encrypt", {"KeyId": cmk, "Plaintext": b""}) for _ in range(200)]
        nonces |= {body["CiphertextBlob"][22:46] for _, body in connection.responses(ids).values()}
        expected += 5_200
    assert len(nonces) == expected


def test_one_context_for_all_binds_every_item(conn, cmk):
    blobs = encrypt(conn, cmk, [b"a", b"b"], EncryptionContext={"t": "1", "u": "2"})
    assert decrypt(conn, blobs, EncryptionContext=Pairs([("u", "2"), ("t", "1")]))[0] == [b"a", b"b"]
    for other in ({}, {"t": "1"}, {"t": "1", "u": "2", "v": "3"}, {"t": "2", "u": "1"}, {"T": "1", "u": "2"}):
        items, errors, _ = decrypt(conn, blobs, EncryptionContext=other)
        assert items == [None, None] and {code for code, _ in errors.values()} == {OPAQUE}


def test_a_context_for_each_item_binds_that_item(conn, cmk):
    contexts = [{"row": "0"}, None, {}, {"row": "3"}]
    blobs = encrypt(conn, cmk, [b"0", b"1", b"2", b"3"], EncryptionContexts=contexts)
    assert decrypt(conn, blobs, EncryptionContexts=contexts)[0] == [b"0", b"1", b"2", b"3"]
    # No context and an empty one are the same.
    assert decrypt(conn, blobs, EncryptionContexts=[{"row": "0"}, {}, None, {"row": "3"}])[1] == {}
    assert set(decrypt(conn, blobs)[1]) == {0, 3}
    assert set(decrypt(conn, blobs, EncryptionContexts=contexts[::-1])[1]) == {0, 3}


@pytest.mark.parametrize("operation", ["BatchEncrypt", "BatchDecrypt", "BatchGenerateDataKey"])
def test_both_kinds_of_context_at_once_are_refused(conn, cmk, operation):
    rest = {
        "BatchEncrypt": {"KeyId": cmk, "Items": [b"a"]},
        "BatchDecrypt": {"Items": [b"a"]},
        "BatchGenerateDataKey": {"KeyId": cmk, "Count": 1, "NumberOfBytes": 32},
    }[operation]
    error = conn.refusal(operation, rest | {"EncryptionContext": {"a": "b"}, "EncryptionContexts": [{"a": "b"}]})
    assert error.status == 400 and "EncryptionContext" in error.message


@pytest.mark.parametrize("count", [0, 1, 3])
def test_contexts_must_be_as_many_as_items(conn, cmk, count):
    error = conn.refusal("BatchEncrypt", {"KeyId": cmk, "Items": [b"a", b"b"], "EncryptionContexts": [None] * count})
    assert error.status == 400 and "EncryptionContexts" in error.message


def test_a_bad_item_in_the_middle_fails_alone(conn, cmk):
    items = [b"%d" % number for number in range(101)]
    blobs = encrypt(conn, cmk, items)
    bad = {0: b"", 50: blobs[50][:-1] + bytes([blobs[50][-1] ^ 1]), 51: bytes(70), 100: blobs[100] + b"\x00"}
    for index, blob in bad.items():
        blobs[index] = blob
    opened, errors, keys = decrypt(conn, blobs)
    assert set(errors) == set(bad)
    assert len(set(errors.values())) == 1 and errors[0][0] == OPAQUE
    assert [item for index, item in enumerate(opened) if index not in bad] == [
        item for index, item in enumerate(items) if index not in bad
    ]
    assert {key for index, key in enumerate(keys) if index not in bad} == {cmk}


def test_items_of_several_cmks_open_in_one_batch(conn, cmk, other_cmk):
    mine, others = encrypt(conn, cmk, [b"a", b"c"]), encrypt(conn, other_cmk, [b"b", b"d"])
    stranger = mine[0][:2] + uuid.uuid4().bytes + mine[0][18:]
    opened, errors, keys = decrypt(conn, [mine[0], others[0], stranger, mine[1], others[1]])
    assert opened == [b"a", b"b", None, b"c", b"d"]
    assert [code for code, _ in errors.values()] == ["Forbidden.KeyNotFound"]
    assert [keys[index] for index in (0, 1, 3, 4)] == [cmk, other_cmk, cmk, other_cmk]


def test_a_key_id_in_batch_decrypt_keeps_other_cmks_out(conn, cmk, other_cmk):
    blobs = encrypt(conn, cmk, [b"a"]) + encrypt(conn, other_cmk, [b"b"])
    assert decrypt(conn, blobs[:1], KeyId=cmk)[0] == [b"a"]
    opened, errors, _ = decrypt(conn, blobs, KeyId=cmk)
    assert opened == [b"a", None] and set(errors) == {1}


def test_re_encrypt_moves_items_to_another_cmk_and_context(conn, cmk, other_cmk):
    blobs = encrypt(conn, cmk, [b"a", b"b", b"c"], EncryptionContext={"from": "1"})
    result = conn.call("BatchReEncrypt", {
        "Items": [blobs[0], blobs[1][:-1], blobs[2]],
        "DestinationKeyId": other_cmk,
        "SourceEncryptionContext": {"from": "1"},
        "DestinationEncryptionContexts": [{"to": "0"}, {"to": "1"}, None],
    })
    errors = check_sealed(result, 3)
    assert set(errors) == {1} and errors[1][0] == OPAQUE and result["KeyId"] == other_cmk
    moved = [result["Items"][0], result["Items"][2]]
    opened, errors, keys = decrypt(conn, moved, EncryptionContexts=[{"to": "0"}, None])
    assert (opened, errors, keys) == ([b"a", b"c"], {}, [other_cmk] * 2)

    result = conn.call("BatchReEncrypt", {
        "Items": blobs,
        "DestinationKeyId": cmk,
        "SourceEncryptionContexts": [{"from": "1"}, None, {"from": "1"}],
        "DestinationEncryptionContext": {"to": "all"},
    })
    assert set(check_sealed(result, 3)) == {1}
    assert decrypt(conn, [result["Items"][2]], EncryptionContext={"to": "all"})[0] == [b"c"]


@pytest.mark.parametrize("side", ["Source", "Destination"])
def test_re_encrypt_takes_one_kind_of_context_a_side(conn, cmk, side):
    both = {f"{side}EncryptionContext": {"a": "b"}, f"{side}EncryptionContexts": [{"a": "b"}]}
    error = conn.refusal("BatchReEncrypt", {"Items": [b"a"], "DestinationKeyId": cmk} | both)
    assert error.status == 400 and f"{side}EncryptionContext" in error.message


@pytest.mark.parametrize("size, length", [
    ({"KeySpec": "AES_256"}, 32), ({"KeySpec": "AES_128"}, 16), ({"NumberOfBytes": 1}, 1), ({"NumberOfBytes": 1024}, 1024),
], ids=["AES_256", "AES_128", "1", "1024"])
def test_data_keys_come_with_their_ciphertext(conn, cmk, size, length):
    context = {"use": "rows"}
    result = conn.call("BatchGenerateDataKey", {"KeyId": cmk, "Count": 50, "EncryptionContext": context} | size)
    assert batch_errors(result, 50) == {} and result["Errors"] == []
    assert all(len(item) == 2 and isinstance(item[0], bytes) and isinstance(item[1], bytes) for item in result["Items"])
    plaintexts = [plaintext for _, plaintext in result["Items"]]
    assert {len(plaintext) for plaintext in plaintexts} == {length}
    assert length < 16 or len(set(plaintexts)) == 50
    blobs = [blob for blob, _ in result["Items"]]
    assert decrypt(conn, blobs, EncryptionContext=context)[0] == plaintexts
    assert set(decrypt(conn, blobs)[1]) == set(range(50))


def test_data_keys_without_plaintext_keep_it_inside(conn, cmk):
    contexts = [{"n": "0"}, None]
    result = conn.call("BatchGenerateDataKey", {
        "KeyId": cmk, "Count": 2, "KeySpec": "AES_256", "WithoutPlaintext": True, "EncryptionContexts": contexts,
    })
    assert batch_errors(result, 2) == {}
    assert [plaintext for _, plaintext in result["Items"]] == [None, None]
    opened, errors, _ = decrypt(conn, [blob for blob, _ in result["Items"]], EncryptionContexts=contexts)
    assert errors == {} and [len(key) for key in opened] == [32, 32]


@pytest.mark.parametrize("size", [{"NumberOfBytes": 0}, {"NumberOfBytes": 1025}, {"KeySpec": "AES_512"}, {"KeySpec": ""}],
                         ids=["0", "1025", "AES_512", "empty"])
def test_data_keys_of_other_sizes_are_refused(conn, cmk, size):
    error = conn.refusal("BatchGenerateDataKey", {"KeyId": cmk, "Count": 1} | size)
    assert error.status == 400 and next(iter(size)) in error.message


def test_a_disabled_cmk_is_refused_at_once_on_every_connection(login, fresh_cmk, cmk):
    admin, user = login(), login()
    blob = user.call("Encrypt", {"KeyId": fresh_cmk, "Plaintext": b"a"})["CiphertextBlob"]
    assert user.call("Decrypt", {"CiphertextBlob": blob})["Plaintext"] == b"a"
    (healthy,) = encrypt(user, cmk, [b"b"])

    def check(code):
        for operation, parameters in (
            ("Encrypt", {"KeyId": fresh_cmk, "Plaintext": b"a"}),
            ("Decrypt", {"CiphertextBlob": blob}),
            ("BatchEncrypt", {"KeyId": fresh_cmk, "Items": [b"a"]}),
            ("BatchGenerateDataKey", {"KeyId": fresh_cmk, "Count": 1, "NumberOfBytes": 32}),
        ):
            error = user.refusal(operation, parameters)
            assert (error.status, error.code) == (409, code), operation
        opened, errors, _ = decrypt(user, [blob, healthy])
        assert opened == [None, b"b"] and errors[0][0] == code

    admin.call("DisableKey", {"KeyId": fresh_cmk})
    check("Rejected.Disabled")
    admin.call("EnableKey", {"KeyId": fresh_cmk})
    assert user.call("Decrypt", {"CiphertextBlob": blob})["Plaintext"] == b"a"
    admin.call("ScheduleKeyDeletion", {"KeyId": fresh_cmk, "PendingWindowInDays": 7})
    check("Rejected.PendingDeletion")
    admin.call("CancelKeyDeletion", {"KeyId": fresh_cmk})
    assert user.call("Decrypt", {"CiphertextBlob": blob})["Plaintext"] == b"a"
