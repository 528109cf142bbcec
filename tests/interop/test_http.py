"""HTTP `/v1/<Operation>`: JSON and MessagePack bodies, what is wrong with a body, limits, health and metrics."""

import base64
import json
import uuid

import msgpack
import pytest

from http_front import MSGPACK, b64, encrypt_body
from server_process import ALGORITHM


def test_encrypt_and_decrypt_in_json(front, cmk):
    context = {"tenant": "a", "schlüssel": "密"}
    sealed = front.call("Encrypt", encrypt_body(cmk, EncryptionContext=context))
    assert set(sealed) == {"CiphertextBlob", "KeyId", "KeyVersionId", "RequestId"} and sealed["KeyId"] == cmk
    blob = base64.b64decode(sealed["CiphertextBlob"], validate=True)
    assert blob[2:18] == uuid.UUID(cmk).bytes and blob[:2] == bytes([1, ALGORITHM])
    opened = front.call("Decrypt", {
        "CiphertextBlob": sealed["CiphertextBlob"], "EncryptionContext": dict(reversed(context.items())),
    })
    assert opened["Plaintext"] == b64(b"plain") and opened["KeyVersionId"] == sealed["KeyVersionId"]
    assert opened["RequestId"] != sealed["RequestId"]
    other = front.post("Decrypt", {"CiphertextBlob": sealed["CiphertextBlob"]})
    assert (other.status, other.error()["Code"]) == (400, "InvalidParameter")


def test_json_escapes_and_order_do_not_change_a_context(front, cmk):
    blob = front.call("Encrypt", encrypt_body(cmk, EncryptionContext={"a": "é/", "b": "2"}))["CiphertextBlob"]
    body = f'{{"EncryptionContext":{{"b":"2","\\u0061":"\\u00e9\\/"}},"CiphertextBlob":"{blob}"}}'
    assert front.call("Decrypt", body.encode())["Plaintext"] == b64(b"plain")


def test_encrypt_and_decrypt_in_msgpack(front, cmk):
    def call(operation, parameters):
        answer = front.post(operation, msgpack.packb(parameters), content_type=MSGPACK)
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"].split(";")[0] == MSGPACK
        return msgpack.unpackb(answer.body)

    sealed = call("Encrypt", {"KeyId": cmk, "Plaintext": b"\xff\x00", "EncryptionContext": {"a": "b"}})
    assert isinstance(sealed["CiphertextBlob"], bytes)
    opened = call("Decrypt", {"CiphertextBlob": sealed["CiphertextBlob"], "EncryptionContext": {"a": "b"}})
    assert opened["Plaintext"] == b"\xff\x00"
    batch = call("BatchEncrypt", {"KeyId": cmk, "Items": [b"a", b"b"]})
    assert call("BatchDecrypt", {"Items": batch["Items"]})["Items"] == [b"a", b"b"]


def test_batches_in_json_carry_base64(front, cmk):
    sealed = front.call("BatchEncrypt", {"KeyId": cmk, "Items": [b64(b"a"), b64(b"")]})
    assert sealed["Errors"] == []
    opened = front.call("BatchDecrypt", {"Items": [sealed["Items"][0], b64(b"junk"), sealed["Items"][1]]})
    assert opened["Items"] == [b64(b"a"), None, b64(b"")]
    assert [error[:2] for error in opened["Errors"]] == [[1, "InvalidParameter"]]


def test_blobs_pass_between_http_and_tcp(front, conn, cmk):
    blob = base64.b64decode(front.call("Encrypt", encrypt_body(cmk))["CiphertextBlob"])
    assert conn.call("Decrypt", {"CiphertextBlob": blob})["Plaintext"] == b"plain"
    blob = conn.call("Encrypt", {"KeyId": cmk, "Plaintext": b"tcp"})["CiphertextBlob"]
    assert front.call("Decrypt", {"CiphertextBlob": b64(blob)})["Plaintext"] == b64(b"tcp")


def test_errors_have_the_status_of_the_tcp_protocol(front, conn):
    unknown = {"KeyId": str(uuid.uuid4()), "Plaintext": b64(b"a")}
    answer = front.post("Encrypt", unknown)
    tcp = conn.refusal("Encrypt", unknown | {"Plaintext": b"a"})
    assert (answer.status, answer.error()["Code"]) == (tcp.status, tcp.code) == (404, "Forbidden.KeyNotFound")
    answer = front.post("Bogus", {})
    assert (answer.status, answer.error()["Code"]) == (404, "InvalidAction.NotFound")


def test_other_methods_are_refused(front, cmk):
    body = json.dumps(encrypt_body(cmk)).encode()
    for method in ("GET", "PUT", "DELETE"):
        assert 400 <= front.send("/v1/Encrypt", front.sign("Encrypt", body), body, method=method).status < 500


@pytest.mark.parametrize("more, field", [
    ({"Bogus": 1}, "Bogus"), ({"keyid": "x"}, "keyid"), ({"EncryptionContexts": []}, "EncryptionContexts"),
    ({"Plaintext": 7}, "Plaintext"), ({"Plaintext": None}, "Plaintext"), ({"Plaintext": ["YQ=="]}, "Plaintext"),
    ({"KeyId": 7}, "KeyId"), ({"KeyId": None}, "KeyId"), ({"EncryptionContext": "{}"}, "EncryptionContext"),
    ({"EncryptionContext": {"a": 1}}, "EncryptionContext"), ({"EncryptionContext": {"a": None}}, "EncryptionContext"),
    ({"EncryptionContext": []}, "EncryptionContext"), ({"TimeoutMs": 1.5}, "TimeoutMs"), ({"TimeoutMs": "1"}, "TimeoutMs"),
    ({"TimeoutMs": -1}, "TimeoutMs"), ({"TimeoutMs": 60_001}, "TimeoutMs"), ({"TimeoutMs": True}, "TimeoutMs"),
    # Strict base64: canonical alphabet, padding, no white space, no spare bits.
    ({"Plaintext": "YQ"}, "Plaintext"), ({"Plaintext": "YQ="}, "Plaintext"), ({"Plaintext": "YQ== "}, "Plaintext"),
    ({"Plaintext": "YQ==\n"}, "Plaintext"), ({"Plaintext": "_-8="}, "Plaintext"), ({"Plaintext": "YR=="}, "Plaintext"),
    ({"Plaintext": "YWI="[:-1]}, "Plaintext"), ({"Plaintext": "=YQ="}, "Plaintext"),
    ({"Plaintext": "plain text"}, "Plaintext"),
    ({"Plaintext": "YQ==YQ=="}, "Plaintext"), ({"Plaintext": "YQ\u003d\u00a0"}, "Plaintext"),
], ids=lambda part: json.dumps(part) if isinstance(part, dict) else "")
def test_a_wrong_field_is_named(front, cmk, more, field):
    answer = front.post("Encrypt", encrypt_body(cmk) | more)
    assert answer.status == 400 and field in answer.error()["Message"], answer.body


def test_strict_base64_also_guards_blobs(front, cmk):
    blob = front.call("Encrypt", encrypt_body(cmk))["CiphertextBlob"]
    for text in (blob.rstrip("="), blob + "=", blob[:10] + "\n" + blob[10:], " " + blob):
        if text == blob:
            text = blob + "===="
        answer = front.post("Decrypt", {"CiphertextBlob": text})
        assert answer.status == 400 and answer.error()


MALFORMED = {
    "empty": b"", "truncated": b'{"KeyId":"@"', "trailing_text": b'{"KeyId":"@","Plaintext":"YQ=="} x',
    "two_values": b'{"KeyId":"@","Plaintext":"YQ=="}{}', "trailing_comma": b'{"KeyId":"@","Plaintext":"YQ==",}',
    "duplicate_member": b'{"KeyId":"@","Plaintext":"YQ==","Plaintext":"YQ=="}',
    "duplicate_by_escape": b'{"KeyId":"@","Plaintext":"YQ==","Pl\\u0061intext":"YQ=="}',
    "duplicate_in_context": b'{"KeyId":"@","Plaintext":"YQ==","EncryptionContext":{"a":"1","a":"1"}}',
    "duplicate_in_context_by_escape": b'{"KeyId":"@","Plaintext":"YQ==","EncryptionContext":{"a":"1","\\u0061":"2"}}',
    "invalid_utf_8": b'{"KeyId":"@","Plaintext":"YQ==","EncryptionContext":{"a":"\xc3\x28"}}',
    "lone_surrogate": b'{"KeyId":"@","Plaintext":"YQ==","EncryptionContext":{"a":"\\ud800"}}',
    "byte_order_mark": b'\xef\xbb\xbf{"KeyId":"@","Plaintext":"YQ=="}',
    "control_character": b'{"KeyId":"@","Plaintext":"YQ==","EncryptionContext":{"a":"\n"}}',
    "single_quotes": b"{'KeyId':'@','Plaintext':'YQ=='}", "comment": b'{"KeyId":"@",/**/"Plaintext":"YQ=="}',
    "nan": b'{"KeyId":"@","Plaintext":"YQ==","TimeoutMs":NaN}',
    "infinity": b'{"KeyId":"@","Plaintext":"YQ==","TimeoutMs":1e999}',
    "100_000_digits": b'{"KeyId":"@","Plaintext":"YQ==","TimeoutMs":' + b"1" * 100_000 + b"}",
    "null": b"null", "array": b'["@","YQ=="]', "text": b'"@"', "number": b"1",
    "100_000_arrays": b'{"KeyId":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "open_arrays": b"[" * 100_000,
    "utf_16": '{"KeyId":"@","Plaintext":"YQ=="}'.encode("utf-16"),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_json_is_refused(front, cmk, body):
    answer = front.post("Encrypt", body.replace(b"@", cmk.encode()))
    assert answer.status == 400 and answer.error()
    assert front.call("DescribeLimits", {})


@pytest.mark.parametrize("body", [
    b"", b"\xc1", b"\xc0", b"\x90", msgpack.packb({"KeyId": "@", "Plaintext": b"a"}) + b"\xc0",
    msgpack.packb({"KeyId": "@", "Plaintext": "YQ=="}), msgpack.packb({"KeyId": "@", "Plaintext": 1.5}),
    b"\xdf\xff\xff\xff\xff", b"\x91" * 100_000, b'{"KeyId":"@","Plaintext":"YQ=="}',
], ids=range(10))
def test_malformed_msgpack_is_refused(front, cmk, body):
    if b"@" in body:
        body = body.replace(b"\xa1@", msgpack.packb(cmk)).replace(b"@", cmk.encode())
    answer = front.post("Encrypt", body, content_type=MSGPACK)
    assert 400 <= answer.status < 500
    assert front.call("DescribeLimits", {})


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_other_content_types_are_refused(front, cmk, content_type):
    answer = front.post("Encrypt", encrypt_body(cmk), content_type=content_type)
    assert answer.status in (400, 415) and answer.error()


def test_encrypt_over_its_limit_is_refused(front, cmk):
    assert front.call("Encrypt", {"KeyId": cmk, "Plaintext": b64(bytes(6_144))})
    answer = front.post("Encrypt", {"KeyId": cmk, "Plaintext": b64(bytes(6_145))})
    assert 400 <= answer.status < 500 and answer.error()["Code"]


def test_a_body_over_the_limit_is_refused_by_its_length(front):
    headers = front.sign("Encrypt", b"") | {"content-length": str(2**30)}
    head = "POST /v1/Encrypt HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    status, _ = front.raw(head.encode())
    assert status == 413
    assert front.call("DescribeLimits", {})


def test_a_chunked_body_without_end_is_refused(server, front):
    before = server.memory("VmRSS")
    headers = front.sign("Encrypt", b"") | {"transfer-encoding": "chunked"}
    head = "POST /v1/Encrypt HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    status, _ = front.raw(head.encode() + chunk * 1024)
    # The close may overtake the answer while chunks are still on their way.
    assert status in (413, None)
    assert server.memory("VmRSS") - before < 96 * 1024 * 1024
    assert front.call("DescribeLimits", {})


def test_headers_over_the_limit_are_refused(front):
    for head in (b"x: " + b"a" * 1024 * 1024, b"\r\n".join(b"x-%d: a" % number for number in range(100_000))):
        status, _ = front.raw(b"POST /v1/Encrypt HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n\r\n")
        assert status in (400, 413, 431, None)
    assert front.call("DescribeLimits", {})


@pytest.mark.parametrize("head", [
    b"content-length: 2\r\ntransfer-encoding: chunked", b"content-length: 2\r\ncontent-length: 3",
    b"content-length: +2", b"content-length: 2, 3", b"transfer-encoding : chunked", b"x: a\r\n b: c",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity", b"x: a\rb",
], ids=range(8))
def test_requests_that_two_parsers_could_read_differently_are_refused(front, head):
    status, received = front.raw(b"POST /v1/DescribeLimits HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n\r\n{}")
    assert status == 400 and received.count(b"HTTP/1.1 ") == 1


def test_health_and_metrics_need_no_signature(front):
    for path in ("/healthz", "/readyz"):
        assert front.send(path, {"host": front.host}, method="GET").status == 200
    metrics = front.send("/metrics", {"host": front.host}, method="GET")
    assert metrics.status == 200
    content_type = metrics.headers["content-type"].replace(" ", "")
    assert content_type.startswith(("text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0"))
    assert b"# TYPE " in metrics.body and metrics.body.endswith(b"\n")


def test_unknown_paths_are_not_found(front):
    for path in ("/v1", "/v1/", "/v2/Encrypt", "/v1/Encrypt/../Decrypt", "/nothing"):
        assert 400 <= front.send(path, {"host": front.host}, method="GET").status < 500
