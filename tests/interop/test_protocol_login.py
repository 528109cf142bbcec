"""The login: challenge, hello, welcome; who is refused, and that every refusal ends in a close."""

import hmac
import selectors
import struct
import time

import pytest

from keymill_tcp import FRAME_BEFORE_WELCOME, MAX_FRAME, ServerError, access_key_auth, hello_bytes
from raw_msgpack import encode

LOGIN_S = 10


def refused(connection, auth, **options):
    """Says a hello that must fail, and checks the status; `hello` has checked the form and the close."""
    with pytest.raises(ServerError) as caught:
        connection.hello(auth, **options)
    assert 400 <= caught.value.status <= 404, caught.value
    return caught.value


def good_auth(server, connection):
    return access_key_auth(
        connection.challenge["Nonce"], server.credentials.access_key_id, server.credentials.access_key_secret
    )


def test_the_challenge_is_as_specified_and_never_the_same(connect):
    challenges = [connect().challenge for _ in range(20)]
    assert len({challenge["Nonce"] for challenge in challenges}) == 20
    assert {challenge["MaxFrame"] for challenge in challenges} == {MAX_FRAME}
    assert {challenge["MaxInFlight"] for challenge in challenges} == {1024}


def test_an_access_key_logs_in(server, connect):
    connection = connect()
    assert connection.hello(good_auth(server, connection))
    assert connection.call("DescribeLimits")


def test_a_wrong_signature_is_refused_whichever_bit_differs(server, connect):
    for bit in (0, 255):
        connection = connect()
        auth = good_auth(server, connection)
        signature = bytearray(auth["Signature"])
        signature[bit // 8] ^= 1 << bit % 8
        refused(connection, auth | {"Signature": bytes(signature)})


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_signature_of_another_length_is_refused(server, connect, length):
    connection = connect()
    auth = good_auth(server, connection)
    refused(connection, auth | {"Signature": (auth["Signature"] * 2)[:length]})


def test_an_unknown_id_and_a_wrong_secret_look_alike(server, connect):
    known, unknown = connect(), connect()
    key_id = server.credentials.access_key_id
    other_id = key_id[:-1] + ("A" if key_id[-1] != "A" else "B")
    wrong = refused(known, access_key_auth(known.challenge["Nonce"], key_id, "wrong"))
    absent = refused(unknown, access_key_auth(unknown.challenge["Nonce"], other_id, "wrong"))
    assert wrong.face() == absent.face()


def test_a_replayed_hello_is_refused(server, connect):
    first, second = connect(), connect()
    auth = good_auth(server, first)
    assert first.hello(auth)
    refused(second, auth)


def test_the_hello_of_another_open_challenge_is_refused(server, connect):
    first, second = connect(), connect()
    refused(second, good_auth(server, first))


def test_a_signature_with_a_made_up_exporter_is_refused(server, connect):
    connection = connect()
    auth = good_auth(server, connection)
    signed = hello_bytes(connection.challenge["Nonce"], auth["AccessKeyId"], exporter=bytes(32))
    signature = hmac.digest(server.credentials.access_key_secret.encode(), signed, "sha256")
    refused(connection, auth | {"Signature": signature})


@pytest.mark.parametrize("auth", [
    {"Type": "Certificate"},
    {"Type": "ClientKey", "ClientKeyId": "KAAP.00000000-0000-4000-8000-000000000001", "Signature": bytes(256)},
    {"Type": "None"},
    {"Type": "accesskey"},
    {"Type": b"AccessKey"},
    {},
    {"Type": "AccessKey"},
    {"Type": "AccessKey", "AccessKeyId": "x", "Signature": "0" * 32},
    {"Type": "AccessKey", "AccessKeyId": b"x", "Signature": bytes(32)},
    {"Type": "AccessKey", "AccessKeyId": "", "Signature": bytes(32)},
], ids=range(10))
def test_other_kinds_of_login_are_refused(connect, auth):
    refused(connect(), auth)


def test_an_unknown_field_of_auth_is_refused(server, connect):
    connection = connect()
    refused(connection, good_auth(server, connection) | {"Extra": 1})


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_version_is_refused(server, connect, version):
    connection = connect()
    refused(connection, good_auth(server, connection), version=version)


@pytest.mark.parametrize("first", [
    [1, "DescribeLimits", {}],
    [0, "DescribeLimits", {}],
    [0, "Welcome", {}],
    [0, 0, {"Principal": "me"}],
    [0, "Hello"],
    [0, "Hello", []],
    [1, "Hello", {}],
    [0, "Hello", {}],
    None,
    {},
], ids=range(10))
def test_anything_but_a_hello_comes_first_is_refused_and_closed(connect, first):
    connection = connect()
    connection.send(first)
    assert 400 <= connection.fatal().status < 500


def test_a_request_sent_with_a_failing_hello_is_not_answered(connect):
    connection = connect()
    auth = access_key_auth(connection.challenge["Nonce"], "nobody", "wrong")
    hello = encode([0, "Hello", {"Version": 1, "Client": "interop", "Auth": auth}])
    request = encode([1, "DescribeLimits", {}])
    connection.send_bytes(b"".join(struct.pack(">I", len(frame)) + frame for frame in (hello, request)))
    assert 400 <= connection.fatal().status <= 404


def test_a_request_in_the_same_packet_as_a_good_hello_is_answered(server, connect):
    connection = connect()
    hello = encode([0, "Hello", {"Version": 1, "Client": "interop", "Auth": good_auth(server, connection)}])
    request = encode([1, "DescribeLimits", {}])
    connection.send_bytes(b"".join(struct.pack(">I", len(frame)) + frame for frame in (hello, request)))
    assert connection.welcome()
    connection.in_flight.add(1)
    assert connection.response()[:2] == (1, 0)


def test_a_second_hello_ends_the_connection(server, connect):
    connection = connect()
    auth = good_auth(server, connection)
    connection.hello(auth)
    connection.send([0, "Hello", {"Version": 1, "Client": "interop", "Auth": auth}])
    assert 400 <= connection.fatal().status < 500


def test_frames_before_the_welcome_end_at_16_kib(server, connect):
    connection = connect()
    connection.send_bytes(struct.pack(">I", FRAME_BEFORE_WELCOME + 1))
    assert 400 <= connection.fatal().status < 500

    connection = connect()
    auth = good_auth(server, connection)
    hello = [0, "Hello", {"Version": 1, "Client": "", "Auth": auth}]
    padding = FRAME_BEFORE_WELCOME - len(encode(hello)) - 2  # an empty str takes one byte, a str16 head three
    hello[2]["Client"] = "c" * padding
    assert len(encode(hello)) == FRAME_BEFORE_WELCOME
    connection.send(hello)
    assert connection.welcome()


def test_after_the_welcome_the_limit_is_max_frame(conn, cmk):
    plaintext = bytes(FRAME_BEFORE_WELCOME + 1)
    assert conn.call("BatchEncrypt", {"KeyId": cmk, "Items": [plaintext]})["Errors"] == []


def test_ten_seconds_without_a_hello_close_the_connection(server, connect):
    """Four slow clients at once: silent, stuck in the length, stuck in the hello, and one that sends a byte a second."""
    started = time.monotonic()
    silent, in_length, in_hello, trickling = (connect() for _ in range(4))
    hello = encode([0, "Hello", {"Version": 1, "Client": "c" * 64, "Auth": good_auth(server, trickling)}])
    hello = struct.pack(">I", len(hello)) + hello
    in_length.send_bytes(hello[:2])
    in_hello.send_bytes(hello[:-1])

    closed, sent = {}, 0
    with selectors.DefaultSelector() as selector:
        for connection in (silent, in_length, in_hello, trickling):
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while selector.get_map() and time.monotonic() - started < LOGIN_S + 5:
            for event, _ in selector.select(0.1):
                # A last error frame is allowed; `fatal` would wait for the close, which is what is measured.
                try:
                    data = event.fileobj.recv(4096)
                except ConnectionResetError:
                    data = b""
                if not data:
                    closed[event.data] = time.monotonic() - started
                    selector.unregister(event.fileobj)
            if trickling not in closed and time.monotonic() - started > sent + 1:
                try:
                    trickling.send_bytes(hello[sent:sent + 1])
                except (BrokenPipeError, ConnectionResetError):
                    pass  # closed meanwhile: the next turn reads it
                sent += 1
    assert len(closed) == 4, f"{4 - len(closed)} of 4 slow clients are still connected after {LOGIN_S + 5} s"
    assert all(LOGIN_S - 0.5 <= after <= LOGIN_S + 3 for after in closed.values()), sorted(closed.values())
