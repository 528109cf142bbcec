"""Parameters: what is wrong with a request is that request's error, names the field, and leaves the connection usable."""

import uuid

import pytest

from raw_msgpack import Pairs, Raw

CMK = "{cmk}"  # replaced by the id of the run's CMK

WRONG_TYPES = [
    ("Encrypt", {"KeyId": CMK, "Plaintext": "text"}, "Plaintext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": [1]}, "Plaintext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": 7}, "Plaintext"),
    ("Encrypt", {"KeyId": b"alias/a", "Plaintext": b"a"}, "KeyId"),
    ("Encrypt", {"KeyId": 7, "Plaintext": b"a"}, "KeyId"),
    ("Encrypt", {"KeyId": [], "Plaintext": b"a"}, "KeyId"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": ["a", "b"]}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": '{"a":"b"}'}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": {"a": 1}}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": {"a": b"b"}}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": {"a": None}}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": {"a": {"b": "c"}}}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": {b"a": "b"}}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "EncryptionContext": {1: "b"}}, "EncryptionContext"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "TimeoutMs": "1000"}, "TimeoutMs"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "TimeoutMs": True}, "TimeoutMs"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "TimeoutMs": -1}, "TimeoutMs"),
    ("Encrypt", {"KeyId": CMK, "Plaintext": b"a", "TimeoutMs": 2**64 - 1}, "TimeoutMs"),
    ("Decrypt", {"CiphertextBlob": "AQ=="}, "CiphertextBlob"),
    ("Decrypt", {"CiphertextBlob": b"a", "KeyId": b"a"}, "KeyId"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": b"abc"}, "Items"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": {"a": b"b"}}, "Items"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [b"a", "b"]}, "Items"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [b"a", None]}, "Items"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [b"a", 1]}, "Items"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [[b"a"]]}, "Items"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [b"a"], "EncryptionContexts": {"a": "b"}}, "EncryptionContexts"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [b"a"], "EncryptionContexts": ["a"]}, "EncryptionContexts"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [b"a"], "EncryptionContexts": [{"a": 1}]}, "EncryptionContexts"),
    ("BatchEncrypt", {"KeyId": CMK, "Items": [b"a"], "EncryptionContext": [{"a": "b"}]}, "EncryptionContext"),
    ("BatchDecrypt", {"Items": ["AQ=="]}, "Items"),
    ("BatchReEncrypt", {"DestinationKeyId": b"a", "Items": []}, "DestinationKeyId"),
    ("BatchGenerateDataKey", {"KeyId": CMK, "Count": "1", "NumberOfBytes": 32}, "Count"),
    ("BatchGenerateDataKey", {"KeyId": CMK, "Count": True, "NumberOfBytes": 32}, "Count"),
    ("BatchGenerateDataKey", {"KeyId": CMK, "Count": -1, "NumberOfBytes": 32}, "Count"),
    ("BatchGenerateDataKey", {"KeyId": CMK, "Count": 1, "NumberOfBytes": b"32"}, "NumberOfBytes"),
    ("BatchGenerateDataKey", {"KeyId": CMK, "Count": 1, "KeySpec": b"AES_256"}, "KeySpec"),
    ("BatchGenerateDataKey", {"KeyId": CMK, "Count": 1, "KeySpec": "AES_256", "WithoutPlaintext": 1}, "WithoutPlaintext"),
    ("CreateKey", {"Description": b"bin"}, "Description"),
    ("ScheduleKeyDeletion", {"KeyId": CMK, "PendingWindowInDays": "7"}, "PendingWindowInDays"),
    ("DisableKey", {"KeyId": b"bin"}, "KeyId"),
]
MISSING = [
    ("Encrypt", {"Plaintext": b"a"}, "KeyId"),
    ("Encrypt", {"KeyId": CMK}, "Plaintext"),
    ("Decrypt", {}, "CiphertextBlob"),
    ("BatchEncrypt", {"Items": [b"a"]}, "KeyId"),
    ("BatchEncrypt", {"KeyId": CMK}, "Items"),
    ("BatchDecrypt", {}, "Items"),
    ("BatchReEncrypt", {"Items": []}, "DestinationKeyId"),
    ("BatchGenerateDataKey", {"KeyId": CMK, "NumberOfBytes": 32}, "Count"),
    ("DisableKey", {}, "KeyId"),
    ("CreateAlias", {"AliasName": "alias/interop-without-key"}, "KeyId"),
    ("ScheduleKeyDeletion", {"KeyId": CMK}, "PendingWindowInDays"),
]


def names(cases):
    return [f"{number}-{operation}-{field}" for number, (operation, _, field) in enumerate(cases)]


def with_cmk(parameters, cmk):
    return {name: cmk if isinstance(value, str) and value == CMK else value for name, value in parameters.items()}


@pytest.mark.parametrize("operation, parameters, field", WRONG_TYPES, ids=names(WRONG_TYPES))
def test_a_value_of_the_wrong_type_is_named(conn, cmk, operation, parameters, field):
    error = conn.refusal(operation, with_cmk(parameters, cmk))
    assert error.status == 400 and not error.retryable, error
    assert field in error.message, error
    assert conn.call("DescribeLimits")


@pytest.mark.parametrize("operation, parameters, field", MISSING, ids=names(MISSING))
def test_a_missing_parameter_is_named(conn, cmk, operation, parameters, field):
    error = conn.refusal(operation, with_cmk(parameters, cmk))
    assert error.status == 400 and field in error.message, error
    assert conn.call("DescribeLimits")


@pytest.mark.parametrize("operation", [
    "Encrypt", "Decrypt", "BatchEncrypt", "BatchDecrypt", "BatchReEncrypt", "BatchGenerateDataKey", "CreateKey",
    "DescribeLimits",
])
@pytest.mark.parametrize("name", ["Bogus", "keyId", "KeyID", "RequestId", "Nonce"])
def test_an_unknown_parameter_is_named(conn, cmk, operation, name):
    good = {
        "Encrypt": {"KeyId": cmk, "Plaintext": b"a"},
        "Decrypt": {"CiphertextBlob": b"a"},
        "BatchEncrypt": {"KeyId": cmk, "Items": [b"a"]},
        "BatchDecrypt": {"Items": [b"a"]},
        "BatchReEncrypt": {"DestinationKeyId": cmk, "Items": [b"a"]},
        "BatchGenerateDataKey": {"KeyId": cmk, "Count": 1, "NumberOfBytes": 32},
    }.get(operation, {})
    error = conn.refusal(operation, good | {name: "value"})
    assert error.status == 400 and name in error.message, error
    assert conn.call("DescribeLimits")


@pytest.mark.parametrize("key", [1, b"KeyId", None, Raw(b"\x90")], ids=["integer", "bin", "nil", "array"])
def test_a_parameter_name_that_is_not_text_is_refused(conn, cmk, key):
    error = conn.refusal("Encrypt", Pairs([("KeyId", cmk), ("Plaintext", b"a"), (key, "x")]))
    assert error.status == 400, error
    assert conn.call("DescribeLimits")


@pytest.mark.parametrize("pairs, field", [
    ([("KeyId", CMK), ("Plaintext", b"a"), ("KeyId", CMK)], "KeyId"),
    ([("KeyId", CMK), ("Plaintext", b"a"), ("Plaintext", b"b")], "Plaintext"),
    ([("KeyId", CMK), ("Plaintext", b"a"), ("TimeoutMs", 1000), ("TimeoutMs", 1000)], "TimeoutMs"),
    ([("KeyId", CMK), ("Plaintext", b"a"), ("EncryptionContext", {}), ("EncryptionContext", {})], "EncryptionContext"),
], ids=["KeyId", "Plaintext", "TimeoutMs", "EncryptionContext"])
def test_a_parameter_that_comes_twice_is_named(conn, cmk, pairs, field):
    error = conn.refusal("Encrypt", Pairs([(name, cmk if value == CMK else value) for name, value in pairs]))
    assert error.status == 400 and field in error.message, error
    assert conn.call("DescribeLimits")


@pytest.mark.parametrize("context", [
    Pairs([("a", "1"), ("a", "2")]),
    Pairs([("a", "1"), ("a", "1")]),
    Pairs([("a", "1"), ("b", "1"), (Raw(b"\xd9\x01a"), "2")]),
    Pairs([("", ""), ("", "")]),
], ids=["other_value", "same_value", "other_encoding", "empty_key"])
def test_a_context_key_that_comes_twice_is_refused(conn, cmk, context):
    single = conn.refusal("Encrypt", {"KeyId": cmk, "Plaintext": b"a", "EncryptionContext": context})
    for_all = conn.refusal("BatchEncrypt", {"KeyId": cmk, "Items": [b"a"], "EncryptionContext": context})
    assert single.status == for_all.status == 400
    assert "EncryptionContext" in single.message and "EncryptionContext" in for_all.message
    assert conn.call("DescribeLimits")


def test_invalid_utf_8_is_refused(conn, cmk):
    bad = Raw(b"\xa2\xc3\x28")
    for parameters in (
        {"KeyId": bad, "Plaintext": b"a"},
        {"KeyId": cmk, "Plaintext": b"a", "EncryptionContext": {"a": bad}},
        {"KeyId": cmk, "Plaintext": b"a", "EncryptionContext": Pairs([(bad, "a")])},
        {"KeyId": cmk, "Plaintext": b"a", "EncryptionContext": {"a": Raw(b"\xa3\xed\xa0\x80")}},  # a lone surrogate
    ):
        assert conn.refusal("Encrypt", parameters).status == 400
    assert conn.call("DescribeLimits")


@pytest.mark.parametrize("operation", ["Bogus", "encrypt", "", "Encrypt ", "Challenge", "Hello", "x" * 10_000, "Encrypt\0"])
def test_an_unknown_operation_fails_alone(conn, operation):
    error = conn.refusal(operation, {"Any": b"thing"})
    assert (error.status, error.code, error.retryable) == (404, "InvalidAction.NotFound", False)
    assert len(error.message) < 1_000
    assert conn.call("DescribeLimits")


def test_key_ids_of_every_form_find_the_cmk(conn, fresh_cmk):
    metadata = conn.call("DescribeKey", {"KeyId": fresh_cmk})["KeyMetadata"]
    alias = f"alias/interop-{fresh_cmk}"
    conn.call("CreateAlias", {"AliasName": alias, "KeyId": fresh_cmk})
    for name in (fresh_cmk, alias, metadata["Arn"]):
        result = conn.call("Encrypt", {"KeyId": name, "Plaintext": b"a"})
        assert result["KeyId"] == fresh_cmk
        assert conn.call("BatchEncrypt", {"KeyId": name, "Items": [b"a"]})["KeyId"] == fresh_cmk


@pytest.mark.parametrize("operation, rest", [
    ("Encrypt", {"Plaintext": b"a"}),
    ("BatchEncrypt", {"Items": [b"a", b"b"]}),
    ("BatchGenerateDataKey", {"Count": 1, "NumberOfBytes": 32}),
])
def test_an_unknown_cmk_fails_the_request_as_a_whole(conn, operation, rest):
    unknown = conn.refusal(operation, {"KeyId": str(uuid.uuid4())} | rest)
    assert (unknown.status, unknown.code) == (404, "Forbidden.KeyNotFound")
    alias = conn.refusal(operation, {"KeyId": "alias/interop-nobody"} | rest)
    assert (alias.status, alias.code) == (404, "Forbidden.AliasNotFound")
    for text in ("", "not-a-key", "alias/", "../" * 20, "\0", "x" * 10_000, "١٢٣"):
        error = conn.refusal(operation, {"KeyId": text} | rest)
        assert 400 <= error.status <= 404 and len(error.message) < 1_000
    assert conn.call("DescribeLimits")


def test_a_refused_request_changes_nothing(conn, cmk):
    """What is wrong behind good fields must not leave an alias behind."""
    alias = "alias/interop-refused"
    conn.refusal("CreateAlias", Pairs([("AliasName", alias), ("KeyId", cmk), ("Bogus", 1)]))
    conn.refusal("CreateAlias", Pairs([("AliasName", alias), ("KeyId", cmk), ("KeyId", cmk)]))
    assert conn.refusal("Encrypt", {"KeyId": alias, "Plaintext": b"a"}).code == "Forbidden.AliasNotFound"
