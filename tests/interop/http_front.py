"""The HTTP front as the tests see it: requests signed and sent exactly as given, answers checked for their form."""

import base64
import http.client
import json
import socket

import acs3

JSON, MSGPACK = "application/json", "application/msgpack"


class Answer:
    """Status, headers (names in lower case) and body of an answer."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self):
        assert self.headers["content-type"].split(";")[0] == JSON, self.headers
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    def error(self):
        """Returns the error of the body after checking its form."""
        error = self.json()
        assert 400 <= self.status < 500, (self.status, error)
        assert all(isinstance(error[name], str) and error[name] for name in ("Code", "Message", "RequestId")), error
        assert "Plaintext" not in error and "CiphertextBlob" not in error
        return error


class Front:
    """The HTTP front of the server, with credentials to sign for it."""

    def __init__(self, host, credentials):
        self.host, self.credentials = host, credentials

    def send(self, path, headers, body=b"", method="POST"):
        """Sends the request exactly as given; nothing is added but the length of the body."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def sign(self, operation, body, **options):
        return acs3.signed_post(operation, self.host, body, self.credentials, **options)

    def post(self, operation, body, **options):
        """Signs and sends `body`: bytes as they are, anything else as JSON."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send(f"/v1/{operation}", self.sign(operation, body, **options), body)

    def call(self, operation, body):
        answer = self.post(operation, body)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()

    def raw(self, data):
        """Sends bytes and returns (status or None, rest) once the server closes; never waits for a further request."""
        host, port = self.host.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as peer:
            received = b""
            try:
                peer.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all was sent: the answer is still to be read
            try:
                while chunk := peer.recv(65_536):
                    received += chunk
            except ConnectionResetError:
                pass
        return (int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.") else None), received


def b64(data):
    return base64.b64encode(data).decode()


def encrypt_body(cmk, **more):
    """Returns the parameters of a good `Encrypt`, with `more` over them."""
    return {"KeyId": cmk, "Plaintext": b64(b"plain")} | more
