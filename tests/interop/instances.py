"""Two instances (Dedicated KMS) side by side on one server, each with a way of its own: whoever comes by it reaches that instance alone, and needs
to know nothing of it. With `KEYMILL_INTEROP_INSTANCES=1` every server that a test starts has them, and the test asks the first of the two."""

import json
import os
import socket
import threading

from acs3 import Credentials

WANTED = os.environ.get("KEYMILL_INTEROP_INSTANCES") == "1"
# The networks, and where their requests come from.
SOURCES = {"vpc-side-a": "127.0.7.2", "vpc-side-b": "127.0.7.3"}
CONFIG = "".join(f'[networks.{name}]\nsources = ["{source}"]\n' for name, source in SOURCES.items())
# The tests that are not for an instance, by module or by module and name, and why.
ALONE = {
    "test_instance": "is about the installation, which has the instances",
    "test_acme": "an instance offers no ACME",
    "test_pki::test_authorities_are_what_they_are_to_be": "the certificates of an instance do not say where lists and issuers are",
    "test_pki::test_a_certificate_of_a_server_is_trusted": "the certificates of an instance do not say where lists and issuers are",
    "test_pki::test_certificates_tell_where_to_ask": "the certificates of an instance do not say where lists and issuers are",
    "test_secret::test_a_secret_with_a_rotator_is_rotated": "an instance has no rotators",
    "test_http::test_a_chunked_body_without_end_is_refused": "measures the memory of the process, which is of both",
    "test_protocol_flow::test_a_client_that_does_not_read_is_held_back": "measures the memory of the process, which is of both",
    "test_protocol_framing::test_memory_follows_the_bytes_that_came_not_the_length_announced":
        "measures the memory of the process, which is of both",
}


def alone(module, name):
    """Returns why a test is not for an instance; None where it is."""
    return ALONE.get(module) or ALONE.get(f"{module}::{name.split('[')[0]}")


class Instance:
    """An instance: its id, where its requests come from, where it is reached, and what logs in there."""

    def __init__(self, id_, source, http, msgpack, credentials):
        self.id, self.source, self.http, self.msgpack, self.credentials = id_, source, http, msgpack, credentials

    def encode(self):
        pair = (self.credentials.access_key_id, self.credentials.access_key_secret)
        return json.dumps([self.id, self.source, self.http, self.msgpack, *pair])

    @classmethod
    def decode(cls, text):
        *reached, key_id, secret = json.loads(text)
        return cls(*reached, Credentials(key_id, secret))


def make(server):
    """Makes both on a server that has just started; `server` is asked as its own administrator."""
    instances = []
    with server.login() as root:
        for vpc, source in SOURCES.items():
            made = root.call("CreateKmsInstance", {"InstanceName": "interop", "TimeoutMs": 50_000})
            root.call("ConnectKmsInstance", {"KmsInstanceId": made["KmsInstanceId"], "VpcId": vpc})
            credentials = Credentials(made["AccessKeyId"], made["AccessKeySecret"])
            ways = [Way(source, address).address for address in (server.http, server.msgpack)]
            instances.append(Instance(made["KmsInstanceId"], source, *ways, credentials))
    return instances


class Way:
    """A port of 127.0.0.1 whose connections reach a server from another address. It is there as long as the process is."""

    def __init__(self, source, target):
        host, port = target.rsplit(":", 1)
        self.source, self.target = source, (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = "{}:{}".format(*self.listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            try:
                far = socket.create_connection(self.target, source_address=(self.source, 0))
            except OSError:
                near.close()  # a server that is down hangs up
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = [2]
            for here, there in ((near, far), (far, near)):
                threading.Thread(target=_pass, args=(here, there, left), daemon=True).start()


def _pass(here, there, left):
    """Passes on what comes here, and then its end; the last of both directions closes both sockets."""
    try:
        while data := here.recv(65_536):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)
    except OSError:
        # Cut at one end, it is cut at the other.
        for end in (here, there):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
    with _CLOSING:
        left[0] -= 1
        if left[0]:
            return
    here.close()
    there.close()


_CLOSING = threading.Lock()
