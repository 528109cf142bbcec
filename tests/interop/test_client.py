"""The client itself: that its checks of the server have teeth. Needs no server, only bytes played to it."""

import hashlib
import hmac
import socket
import struct
import threading

import msgpack
import pytest

import keymill_tcp
from keymill_tcp import Connection, ProtocolError, batch_errors, decode
from raw_msgpack import Pairs, Raw, encode, every_width, long_bin, long_str, nested

CHALLENGE = [0, "Challenge", {
    "Version": 1, "Nonce": bytes(range(32)), "Server": "fake", "MaxFrame": 1 << 24, "MaxInFlight": 1024,
}]
ERROR = {"Code": "InvalidParameter", "Message": "no", "RequestId": "r", "Retryable": False}


def frame(value):
    payload = encode(value)
    return struct.pack(">I", len(payload)) + payload


@pytest.fixture
def played():
    """Returns a function that connects to a listener which sends the given bytes and closes."""
    threads, connections = [], []

    def play(data):
        listener = socket.create_server(("127.0.0.1", 0))

        def send():
            with listener, listener.accept()[0] as peer:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass

        threads.append(threading.Thread(target=send))
        threads[-1].start()
        connections.append(Connection(f"127.0.0.1:{listener.getsockname()[1]}"))
        return connections[-1]

    yield play
    for connection in connections:
        connection.close()
    for thread in threads:
        thread.join(5)


def test_a_login_and_answers_out_of_order_are_taken(played):
    second, first = [2, 0, {"B": 2}], [1, 404, ERROR]
    with played(frame(CHALLENGE) + frame([0, 0, {"Principal": "p"}]) + frame(second) + frame(first)) as connection:
        assert connection.login("id", "secret") == "p"
        ids = [connection.request("X"), connection.request("Y")]
        assert connection.responses(ids) == {1: (404, ERROR), 2: (0, {"B": 2})}


def test_a_refused_login_and_a_fatal_error_end_in_a_close(played):
    with played(frame(CHALLENGE) + frame([0, 403, ERROR])) as connection:
        with pytest.raises(keymill_tcp.ServerError):
            connection.login("id", "secret")
    with played(frame(CHALLENGE) + frame([0, 400, ERROR])) as connection:
        assert connection.fatal().code == "InvalidParameter"
    with played(frame(CHALLENGE) + frame([0, 400, ERROR]) + frame([1, 0, {}])) as connection:
        with pytest.raises(ProtocolError):
            connection.fatal()


@pytest.mark.parametrize("answer", [
    frame([1, 0, {}])[:-1], frame([1, 0]), frame([1, 0, []]), frame([1, -1, ERROR]), frame([1, 200, {}]),
    frame([1.0, 0, {}]), frame([2, 0, {}]), frame([1, 400, {}]), frame([1, 400, ERROR | {"Extra": 1}]),
    frame([1, 400, ERROR | {"Retryable": 0}]), b"\0\0\0\0", b"\xff\xff\xff\xff", b"",
], ids=range(13))
def test_answers_that_break_the_protocol_are_refused(played, answer):
    with played(frame(CHALLENGE) + frame([0, 0, {"Principal": "p"}]) + answer) as connection:
        connection.login("id", "secret")
        connection.request("X")
        with pytest.raises(ProtocolError):
            connection.response()


@pytest.mark.parametrize("change", [
    {"Version": 2}, {"Nonce": b"short"}, {"Nonce": "a" * 32}, {"More": 1}, {"MaxFrame": "1"},
], ids=range(5))
def test_other_challenges_are_refused(played, change):
    with pytest.raises(ProtocolError):
        played(frame([0, "Challenge", CHALLENGE[2] | change]))


@pytest.mark.parametrize("payload", [
    b"", b"\xc1", b"\x90\x90", encode(1.5), encode([{"a": 1.5}]), encode(msgpack.ExtType(5, b"x")),
    encode(msgpack.Timestamp(1)), encode(Pairs([("a", 1), ("a", 2)])), encode({1: 2}), encode({b"a": 2}),
    b"\xa1\xff", nested(17), b"\x91" * 10_000 + b"\x90",
], ids=range(13))
def test_values_that_no_frame_may_hold_are_refused(payload):
    with pytest.raises(ProtocolError):
        decode(payload)
    assert decode(nested(16)) is not None


def test_the_hello_signature_covers_what_the_specification_lists():
    nonce = bytes(range(32))
    signed = b"keymill-hello-1\x00" + nonce + b"\x00\x04" + b"KM\xc3\xa9" + b"\x00\x00"
    auth = keymill_tcp.access_key_auth(nonce, "KMé", "sécret")
    assert auth == {
        "Type": "AccessKey",
        "AccessKeyId": "KMé",
        "Signature": hmac.new("sécret".encode(), signed, hashlib.sha256).digest(),
    }


def test_batch_results_must_agree_with_their_errors():
    good = {"Items": [b"a", None], "Errors": [[1, "C", "m"]]}
    assert batch_errors(good, 2) == {1: ("C", "m")}
    for bad in (
        {"Items": [b"a", None]}, {"Items": [b"a", None], "Errors": []}, {"Items": [b"a"], "Errors": []},
        {"Items": [b"a", b"b"], "Errors": [[1, "C", "m"]]}, {"Items": [None, None], "Errors": [[1, "C", ""], [0, "C", ""]]},
        {"Items": [b"a", None], "Errors": [[1, "C"]]}, {"Items": [b"a", None], "Errors": [[2, "C", "m"]]},
    ):
        with pytest.raises(ProtocolError):
            batch_errors(bad, 2)


def test_unusual_encodings_mean_what_they_say():
    assert [msgpack.unpackb(form) for form in every_width(5)] == [5] * 9
    assert len(set(every_width(5))) == 9
    assert [msgpack.unpackb(long_str("ab", head)) for head in (0xD9, 0xDA, 0xDB)] == ["ab"] * 3
    assert [msgpack.unpackb(long_bin(b"ab", head)) for head in (0xC4, 0xC5, 0xC6)] == [b"ab"] * 3
    assert msgpack.unpackb(encode([{"a": Raw(b"\xc0")}, Pairs([("b", 1)])])) == [{"a": None}, {"b": 1}]
    assert encode({"a": [1, "b", b"c", None, True]}) == msgpack.packb({"a": [1, "b", b"c", None, True]})
