"""A client of the keymill MessagePack TCP protocol, version 1, written from its specification alone.

It trusts the server with nothing: each frame received is checked for length, form, nesting and types, and each answer
must belong to a request in flight. Breaches raise `ProtocolError`; errors that the server reports are `ServerError`.
"""

import hashlib
import hmac
import socket
import struct
from dataclasses import dataclass

import msgpack

from raw_msgpack import encode

VERSION = 1
FRAME_BEFORE_WELCOME = 16 * 1024
MAX_FRAME = 16 * 1024 * 1024
MAX_DEPTH = 16
MAX_ID = 2**53
TIMEOUT_S = 30


class ProtocolError(Exception):
    """The server sent what the specification does not allow."""


@dataclass
class ServerError(Exception):
    """An error that the server reported, with the status that HTTP would give it."""

    status: int
    code: str
    message: str
    request_id: str
    retryable: bool
    retry_after_ms: int | None = None

    def face(self):
        """Returns what a caller can tell errors apart by."""
        return (self.status, self.code, self.message, self.retryable, self.retry_after_ms)


class Connection:
    """One connection, from the challenge on. Requests may be pipelined; answers come in any order."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.receive_limit = FRAME_BEFORE_WELCOME
        self.in_flight = set()
        self.last_id = 0
        self.challenge = check_challenge(self.read_value())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that still sends
        except OSError:
            pass  # closed by the server already
        self.socket.close()

    # Login

    def login(self, access_key_id, secret, client="interop"):
        """Says hello with an access key and returns the principal that the server names."""
        return self.hello(access_key_auth(self.challenge["Nonce"], access_key_id, secret), client)

    def hello(self, auth, client="interop", version=VERSION):
        """Sends a hello and returns the principal; raises `ServerError` where the server refuses and closes."""
        self.send([0, "Hello", {"Version": version, "Client": client, "Auth": auth}])
        return self.welcome()

    def welcome(self):
        """Reads the answer to a hello."""
        id_, status, body = check_response(self.read_value())
        require(id_ == 0, f"the answer to a hello has id {id_}")
        if status != 0:
            require(self.read_value() is None, "a refused hello is not followed by a close")
            raise check_error(status, body)
        require(set(body) == {"Principal"}, f"welcome holds {sorted(body)}")
        require(isinstance(body["Principal"], str) and body["Principal"], "Principal is not text")
        self.receive_limit = self.challenge["MaxFrame"]
        return body["Principal"]

    # Requests

    def call(self, operation, parameters=None):
        """Sends one request and returns its result; raises the error it is answered with."""
        sent = self.request(operation, parameters)
        id_, status, body = self.response()
        require(id_ == sent, f"answer {id_} to request {sent}")
        if status != 0:
            raise check_error(status, body)
        return body

    def refusal(self, operation, parameters=None):
        """Sends one request that must fail by itself, and returns its error; the connection stays usable."""
        try:
            result = self.call(operation, parameters)
        except ServerError as error:
            if error.status >= 500:
                raise AssertionError(f"{operation} failed by the server's fault: {error}") from error
            return error
        raise AssertionError(f"{operation} was not refused: its result holds {sorted(result)}")

    def request(self, operation, parameters=None, id_=None):
        """Sends a request without waiting, and returns its id."""
        if id_ is None:
            self.last_id += 1
            id_ = self.last_id
        self.in_flight.add(id_)
        self.send([id_, operation, {} if parameters is None else parameters])
        return id_

    def response(self):
        """Returns (id, status, body) of the next answer."""
        value = self.read_value()
        if value is None:
            raise ProtocolError(f"closed with {len(self.in_flight)} requests unanswered")
        id_, status, body = check_response(value)
        if id_ == 0:
            raise check_error(status, body)
        require(id_ in self.in_flight, f"answer {id_} belongs to no request in flight")
        self.in_flight.remove(id_)
        if status != 0:
            check_error(status, body)
        return id_, status, body

    def responses(self, ids):
        """Returns {id: (status, body)} once each of `ids` is answered."""
        wanted, answers = set(ids), {}
        while wanted:
            id_, status, body = self.response()
            wanted.discard(id_)
            answers[id_] = (status, body)
        return answers

    def fatal(self):
        """Reads up to the close and returns the one error, of id 0, that must come before it."""
        id_, status, body = check_response(self.read_value())
        require(id_ == 0, f"frame of id {id_} where an error of id 0 is due")
        error = check_error(status, body)
        require(self.read_value() is None, "a frame follows the error that ends the connection")
        return error

    # Frames

    def send(self, value):
        """Sends `value` as one frame."""
        self.send_frame(encode(value))

    def send_frame(self, payload):
        """Sends `payload`, MessagePack or not, under its right length."""
        self.send_bytes(struct.pack(">I", len(payload)) + payload)

    def send_bytes(self, data):
        self.socket.sendall(data)

    def finish_sending(self):
        """Closes the sending side; answers can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def read_value(self):
        """Returns the value of the next frame, or None where the server closed between frames."""
        head = self._read_exactly(4, at_start=True)
        if head is None:
            return None
        (length,) = struct.unpack(">I", head)
        require(1 <= length <= self.receive_limit, f"frame of {length} bytes, limit {self.receive_limit}")
        return decode(self._read_exactly(length))

    def _read_exactly(self, count, at_start=False):
        data = bytearray(count)
        view, filled = memoryview(data), 0
        while filled < count:
            try:
                got = self.socket.recv_into(view[filled:])
            except ConnectionResetError:
                got = 0
            if got == 0:
                if at_start and filled == 0:
                    return None
                raise ProtocolError(f"closed within a frame: {filled} of {count} bytes")
            filled += got
        return bytes(data)


def access_key_auth(nonce, access_key_id, secret):
    """Returns the `Auth` map of an access key on a channel without TLS."""
    signature = hmac.digest(secret.encode(), hello_bytes(nonce, access_key_id), hashlib.sha256)
    return {"Type": "AccessKey", "AccessKeyId": access_key_id, "Signature": signature}


def hello_bytes(nonce, identity, exporter=b""):
    """Returns the bytes that a hello signs."""
    name = identity.encode()
    return (
        b"keymill-hello-1\x00" + nonce
        + struct.pack(">H", len(name)) + name
        + struct.pack(">H", len(exporter)) + exporter
    )


def decode(payload):
    """Returns the one value of a frame; refuses trailing bytes, floats, extensions, repeated keys, deep nesting."""
    try:
        value = msgpack.unpackb(payload, raw=False, object_pairs_hook=_map, ext_hook=_no_extension)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not one MessagePack value: {error}") from error
    _check(value, 0)
    return value


def _map(pairs):
    keys = [key for key, _ in pairs]
    require(all(isinstance(key, str) for key in keys), "a map key is not text")
    require(len(set(keys)) == len(keys), "a map key comes twice")
    return dict(pairs)


def _no_extension(code, _data):
    raise ProtocolError(f"extension type {code}")


def _check(value, depth):
    if isinstance(value, (list, dict)):
        require(depth < MAX_DEPTH, f"nested deeper than {MAX_DEPTH}")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth + 1)
    else:
        require(value is None or isinstance(value, (bool, int, str, bytes)), f"{type(value).__name__} in a frame")


def check_challenge(value):
    """Returns the map of a challenge frame."""
    require(isinstance(value, list) and len(value) == 3, "challenge is not an array of three")
    require(is_uint(value[0]) and value[:2] == [0, "Challenge"], f"challenge begins {value[:2]}")
    challenge = value[2]
    require(isinstance(challenge, dict), "challenge holds no map")
    fields = {"Version", "Nonce", "Server", "MaxFrame", "MaxInFlight"}
    require(set(challenge) == fields, f"challenge holds {sorted(challenge)}")
    require(challenge["Version"] == VERSION and is_uint(challenge["Version"]), "challenge of another version")
    require(isinstance(challenge["Nonce"], bytes) and len(challenge["Nonce"]) == 32, "Nonce is not 32 bytes")
    require(isinstance(challenge["Server"], str), "Server is not text")
    require(is_uint(challenge["MaxFrame"]) and challenge["MaxFrame"] > 0, "MaxFrame is not a number")
    require(is_uint(challenge["MaxInFlight"]) and challenge["MaxInFlight"] > 0, "MaxInFlight is not a number")
    return challenge


def check_response(value):
    """Returns (id, status, body) of a response frame."""
    require(value is not None, "closed where a response is due")
    require(isinstance(value, list) and len(value) == 3, "response is not an array of three")
    id_, status, body = value
    require(is_uint(id_) and id_ <= MAX_ID, f"response id {id_!r}")
    require(is_uint(status) and (status == 0 or 400 <= status <= 599), f"status {status!r}")
    require(isinstance(body, dict), "response holds no map")
    return id_, status, body


def check_error(status, body):
    """Returns the `ServerError` of an error map."""
    require(status != 0, "a result stands where an error is due")
    fields = {"Code", "Message", "RequestId", "Retryable"}
    require(fields <= set(body) <= fields | {"RetryAfterMs", "NothingDone"}, f"error holds {sorted(body)}")
    require(all(isinstance(body[name], str) for name in ("Code", "Message", "RequestId")), "error without text")
    require(body["Code"] and body["Message"] and body["RequestId"], "error with an empty field")
    require(isinstance(body["Retryable"], bool), "Retryable is not a boolean")
    require("NothingDone" not in body or body["NothingDone"] is True, "NothingDone is not true")
    require("RetryAfterMs" not in body or is_uint(body["RetryAfterMs"]), "RetryAfterMs is not a number")
    return ServerError(
        status, body["Code"], body["Message"], body["RequestId"], body["Retryable"], body.get("RetryAfterMs")
    )


def batch_errors(result, count):
    """Checks `Items` and `Errors` of a batch result against each other; returns {index: (code, message)}."""
    items, errors = result.get("Items"), result.get("Errors")
    require(isinstance(items, list) and len(items) == count, f"Items are not {count}")
    require(isinstance(errors, list), "Errors is absent")
    for entry in errors:
        require(isinstance(entry, list) and len(entry) == 3, "an entry of Errors is not an array of three")
        require(is_uint(entry[0]) and entry[0] < count, f"Errors names item {entry[0]!r}")
        require(isinstance(entry[1], str) and isinstance(entry[2], str) and entry[1], "Errors without text")
    indexes = [entry[0] for entry in errors]
    require(all(a < b for a, b in zip(indexes, indexes[1:])), "Errors is not sorted by index")
    missing = [index for index, item in enumerate(items) if item is None]
    require(missing == indexes, f"items without a result {missing[:5]}, items with an error {indexes[:5]}")
    return {index: (code, message) for index, code, message in errors}


def is_uint(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def require(condition, message):
    if not condition:
        raise ProtocolError(message)
