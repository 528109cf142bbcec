"""Limits: exact at the edge, refused one past it, published by `DescribeLimits`; and deadlines."""

import time

import pytest

import xaes
from keymill_tcp import MAX_FRAME, batch_errors
from server_process import ALGORITHM

ITEMS = 65_536
ITEM_BYTES = 65_536
PLAINTEXT_BYTES = 6_144
CONTEXT_CHARACTERS = 8_192


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def past_a_limit(conn, operation, parameters):
    """Returns the error of a request that is too large; how the codes of limits are called is not fixed yet."""
    error = conn.refusal(operation, parameters)
    assert 400 <= error.status < 500 and error.code, error
    assert conn.call("DescribeLimits")
    return error


def test_describe_limits_publishes_every_limit(conn):
    published = leaves(conn.call("DescribeLimits"))
    numbers = [leaf for leaf in published if isinstance(leaf, int) and not isinstance(leaf, bool)]
    for limit in (PLAINTEXT_BYTES, MAX_FRAME, 60_000, CONTEXT_CHARACTERS, 1024):
        assert limit in numbers, limit
    assert numbers.count(65_536) >= 2, "items of a request, and bytes of an item"


def test_a_batch_holds_65_536_items_and_no_more(conn, cmk):
    items = [b""] * ITEMS
    sealed = conn.call("BatchEncrypt", {"KeyId": cmk, "Items": items})
    assert batch_errors(sealed, ITEMS) == {}
    opened = conn.call("BatchDecrypt", {"Items": sealed["Items"]})
    assert batch_errors(opened, ITEMS) == {} and opened["Items"] == items
    assert len(set(sealed["Items"])) == ITEMS
    past_a_limit(conn, "BatchEncrypt", {"KeyId": cmk, "Items": items + [b""]})
    past_a_limit(conn, "BatchDecrypt", {"Items": items + [b""]})
    past_a_limit(conn, "BatchReEncrypt", {"DestinationKeyId": cmk, "Items": items + [b""]})


def test_data_keys_count_as_items(conn, cmk):
    data_keys = {"KeyId": cmk, "KeySpec": "AES_128", "WithoutPlaintext": True}
    assert batch_errors(conn.call("BatchGenerateDataKey", data_keys | {"Count": ITEMS}), ITEMS) == {}
    past_a_limit(conn, "BatchGenerateDataKey", data_keys | {"Count": ITEMS + 1})
    past_a_limit(conn, "BatchGenerateDataKey", data_keys | {"Count": 2**32})


def test_an_item_holds_64_kib_and_no_more(conn, cmk):
    items = [b"a", bytes(ITEM_BYTES), b"c", bytes(ITEM_BYTES + 1), b"e"]
    sealed = conn.call("BatchEncrypt", {"KeyId": cmk, "Items": items})
    errors = batch_errors(sealed, len(items))
    assert set(errors) == {3} and errors[3][0]
    kept = [index for index in range(len(items)) if index != 3]
    opened = conn.call("BatchDecrypt", {"Items": [sealed["Items"][index] for index in kept]})
    assert batch_errors(opened, len(kept)) == {}, "what BatchEncrypt made of 64 KiB must open in a batch"
    assert opened["Items"] == [items[index] for index in kept]


def test_a_blob_larger_than_any_item_fails_alone(conn, cmk):
    good = conn.call("BatchEncrypt", {"KeyId": cmk, "Items": [b"a"]})["Items"][0]
    result = conn.call("BatchDecrypt", {"Items": [good, bytes(1024 * 1024), good]})
    assert set(batch_errors(result, 3)) == {1} and result["Items"] == [b"a", None, b"a"]


@pytest.mark.parametrize("length", [0, 1, PLAINTEXT_BYTES - 1, PLAINTEXT_BYTES])
def test_encrypt_takes_up_to_6_144_bytes(conn, cmk, length):
    plaintext = bytes(length)
    blob = conn.call("Encrypt", {"KeyId": cmk, "Plaintext": plaintext})["CiphertextBlob"]
    assert len(blob) == 22 + xaes.ALGORITHMS[ALGORITHM][1] + length + 16
    assert conn.call("Decrypt", {"CiphertextBlob": blob})["Plaintext"] == plaintext


def test_encrypt_refuses_more(conn, cmk):
    past_a_limit(conn, "Encrypt", {"KeyId": cmk, "Plaintext": bytes(PLAINTEXT_BYTES + 1)})
    past_a_limit(conn, "Encrypt", {"KeyId": cmk, "Plaintext": bytes(15 * 1024 * 1024)})


@pytest.mark.parametrize("context", [
    {"k": "v" * (CONTEXT_CHARACTERS - len('{"k":""}'))},
    {"k": "密" * 4_000},
    {f"{number:04}": "" for number in range(800)},
], ids=["8192_as_json", "12000_bytes_of_4000_characters", "800_pairs"])
def test_a_context_of_8_192_characters_is_taken(conn, cmk, context):
    given = {"EncryptionContext": context}
    blob = conn.call("Encrypt", {"KeyId": cmk, "Plaintext": b"a"} | given)["CiphertextBlob"]
    assert conn.call("Decrypt", {"CiphertextBlob": blob} | given)["Plaintext"] == b"a"
    batch = conn.call("BatchEncrypt", {"KeyId": cmk, "Items": [b"a"]} | given)
    assert batch_errors(batch, 1) == {}


@pytest.mark.parametrize("context", [
    # Too long by any way of counting: keys and values alone are 8,193 characters.
    {"k": "v" * CONTEXT_CHARACTERS},
    {"k" * CONTEXT_CHARACTERS: "v"},
    {f"{number:05}": "value" for number in range(1_000)},
], ids=["value", "key", "pairs"])
def test_a_longer_context_is_refused(conn, cmk, context):
    past_a_limit(conn, "Encrypt", {"KeyId": cmk, "Plaintext": b"a", "EncryptionContext": context})
    past_a_limit(conn, "BatchEncrypt", {"KeyId": cmk, "Items": [b"a"], "EncryptionContext": context})


def test_an_answer_longer_than_max_frame_is_refused_before_any_work(conn, cmk):
    started = time.monotonic()
    past_a_limit(conn, "BatchGenerateDataKey", {"KeyId": cmk, "Count": ITEMS, "NumberOfBytes": 1024})
    assert time.monotonic() - started < 1, "138 MB of data keys were refused, but not before the work"
    # The request fits into a frame of 16 MiB, its blobs do not.
    past_a_limit(conn, "BatchEncrypt", {"KeyId": cmk, "Items": [bytes(216)] * ITEMS})
    past_a_limit(conn, "BatchEncrypt", {"KeyId": cmk, "Items": [b"a"] + [bytes(255)] * 55_500})


def test_a_request_and_an_answer_of_nearly_max_frame_pass(conn, cmk):
    items = [bytes(ITEM_BYTES)] * 255
    sealed = conn.call("BatchEncrypt", {"KeyId": cmk, "Items": items})
    assert batch_errors(sealed, 255) == {}
    opened = conn.call("BatchDecrypt", {"Items": sealed["Items"]})
    assert batch_errors(opened, 255) == {} and opened["Items"] == items


@pytest.mark.parametrize("operation, rest", [
    ("Encrypt", {"Plaintext": b"a"}), ("BatchEncrypt", {"Items": [b"a"]}),
    ("BatchGenerateDataKey", {"Count": 1, "NumberOfBytes": 32}),
])
def test_timeouts_reach_60_000_ms_and_no_further(conn, cmk, operation, rest):
    given = {"KeyId": cmk} | rest
    assert conn.call(operation, given | {"TimeoutMs": 60_000})
    for timeout in (60_001, 2**32, 2**53):
        error = conn.refusal(operation, given | {"TimeoutMs": timeout})
        assert error.status == 400 and "TimeoutMs" in error.message, error
    assert conn.call("DescribeLimits", {"TimeoutMs": 60_000})


@pytest.mark.parametrize("timeout", [0, 1])
def test_items_not_done_in_time_say_so_and_finished_ones_stand(conn, cmk, timeout):
    """A time-out of 0 may also be refused as a parameter; what is done in the end depends on the machine."""
    count = 10_000
    conn.request("BatchEncrypt", {"KeyId": cmk, "Items": [bytes(1024)] * count, "TimeoutMs": timeout})
    _, status, body = conn.response()
    if status == 0:
        errors = batch_errors(body, count)
        assert {code for code, _ in errors.values()} <= {"RequestTimeout"}
        done = [item for item in body["Items"] if item is not None]
        opened = conn.call("BatchDecrypt", {"Items": done})
        assert batch_errors(opened, len(done)) == {} and set(opened["Items"]) <= {bytes(1024)}
    elif body["Code"] != "RequestTimeout":
        assert timeout == 0 and status == 400 and "TimeoutMs" in body["Message"]
    assert conn.call("DescribeLimits")
