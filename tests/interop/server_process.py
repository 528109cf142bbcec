"""The keymill program as a child process: started on free ports, awaited until ready, ended by SIGTERM."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import time
from pathlib import Path

import instances
import xaes
from acs3 import Credentials
from hsm_token import Token
from keymill_tcp import Connection

DEFAULT_BINARY = Path(__file__).resolve().parents[2] / "target" / "release" / "keymill"
# The program, which is server and command line.
BINARY = Path(os.environ.get("KEYMILL_BIN", DEFAULT_BINARY)).resolve()
# Where all keys are in a token: the mode that they have there.
BULK_MODE = os.environ.get("KEYMILL_INTEROP_BULK_MODE")
# How its keys seal.
ALGORITHM = xaes.AES_256_GCM if BULK_MODE == "InHsm" else xaes.XAES_256_GCM
# What secrets are rotated by.
ROTATORS = '[rotators.passwords]\nkind = "password"\n'
READY_S = 60
STOP_S = 60


class Server:
    """A server that runs: its two addresses, the credentials of who may do everything there, what policies there call its instance, and where the
    tests come from as it sees them."""

    instance, source = "shared", "127.0.0.1"

    def connect(self):
        """Returns a connection that has read its challenge and said nothing."""
        return Connection(self.msgpack)

    def login(self):
        """Returns a connection that is logged in with the first access key."""
        connection = self.connect()
        connection.login(self.credentials.access_key_id, self.credentials.access_key_secret)
        return connection

    def reach(self, instance):
        """Has all this be of an instance from here on."""
        self.instance, self.source, self.credentials = instance.id, instance.source, instance.credentials
        self.http, self.msgpack = instance.http, instance.msgpack


class Attached(Server):
    """An instance of a server that another process started."""

    def __init__(self, instance):
        self.reach(instance)

    def stop(self):
        return 0

    def log_tail(self):
        return "whoever started the server has its log"


class ServerProcess(Server):
    """A running server and the credentials that it wrote at first start; `config` is a file of more options, `ca` the one that
    vouches for its HTTP listener where that speaks TLS, `http` where that listens if it must be known before. With instances, it is the first of
    two on it."""

    def __init__(self, directory, config=None, ca=None, http="127.0.0.1:0"):
        if not BINARY.is_file():
            raise FileNotFoundError(f"no server at {BINARY}: build it, or name one in KEYMILL_BIN")
        self.data, self.log, self.ca = directory / "data", directory / "server.log", ca
        credentials = directory / "credentials.json"
        home = directory / "home"
        home.mkdir(exist_ok=True)
        environment, text = _environment(home), config.read_text() if config else ""
        if instances.WANTED:
            text = f"{text}\n{instances.CONFIG}"
        if BULK_MODE:
            token = Token(BINARY, os.environ["KEYMILL_INTEROP_MODULE"], BULK_MODE, directory / "token", environment)
            environment, text = token.environment, f"{text}\n{token.config.read_text()}"
        self.config, self.environment = directory / "serve.toml", environment
        self.config.write_text(f"{text}\n{ROTATORS}")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--config", self.config, "--data-dir", self.data, "--http", http, "--msgpack",
                 "127.0.0.1:0", "--credentials", credentials],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
            )
        try:
            self._await_ready(credentials)
            self.instances = instances.make(self) if instances.WANTED else []
            if self.instances:
                self.reach(self.instances[0])
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def memory(self, field):
        """Returns a field of the process's status in bytes, such as `VmRSS`."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise KeyError(field)

    def stop(self):
        """Asks the server to drain and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def log_tail(self):
        return self.log.read_bytes()[-4096:].decode(errors="replace")

    def _await_ready(self, credentials):
        deadline = time.monotonic() + READY_S
        while True:
            try:
                addresses = json.loads((self.data / "addresses.json").read_text())
                pair = json.loads(credentials.read_text())
                self.http, self.msgpack = addresses["http"], addresses["msgpack"]
                self.credentials = Credentials(pair["AccessKeyId"], pair["AccessKeySecret"])
                if _status(self.http, "/readyz", self.ca) == 200:
                    return
            except (OSError, ValueError, http.client.HTTPException):
                pass  # not there yet, or half written
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server is not ready after {READY_S} s:\n{self.log_tail()}")
            time.sleep(0.02)


def _environment(home):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEYMILL_", "XDG_"))}
    return kept | {"HOME": str(home)}


def _status(address, path, ca):
    if ca is None:
        connection = http.client.HTTPConnection(address, timeout=5)
    else:
        connection = http.client.HTTPSConnection(address, timeout=5, context=ssl.create_default_context(cafile=ca))
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
