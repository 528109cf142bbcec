"""One server for the whole run, two CMKs in it, and connections that are closed after their test."""

import os
from pathlib import Path

import instances
import pytest

from http_front import Front
from server_process import Attached, ServerProcess

# Names the file of an instance on a server that another process started: it is the server of the run.
ATTACHED = os.environ.get("KEYMILL_INTEROP_INSTANCE")


def pytest_collection_modifyitems(items):
    """Skips what is not for an instance, where the server of the run is one."""
    for item in items if instances.WANTED else []:
        if reason := instances.alone(item.module.__name__, item.name):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server; that it drains and exits 0 at the end is part of the run."""
    if ATTACHED:
        process = Attached(instances.Instance.decode(Path(ATTACHED).read_text()))
    else:
        process = ServerProcess(tmp_path_factory.mktemp("keymill"))
    yield process
    code = process.stop()
    assert code == 0, f"the server exited with {code}:\n{process.log_tail()}"


@pytest.fixture(scope="session")
def cmk(server):
    """The id of an AES-256 CMK that no test disables."""
    return new_cmk(server)


@pytest.fixture(scope="session")
def other_cmk(server):
    """The id of a second such CMK."""
    return new_cmk(server)


@pytest.fixture
def fresh_cmk(server):
    """The id of a CMK that this test alone uses."""
    return new_cmk(server)


@pytest.fixture
def connect(server):
    """Returns a function that opens connections without a login."""
    yield from _opener(server.connect)


@pytest.fixture
def login(server):
    """Returns a function that opens connections with a login."""
    yield from _opener(server.login)


@pytest.fixture
def conn(login):
    """A connection that is logged in."""
    return login()


@pytest.fixture
def front(server):
    """The HTTP front, signing with the bootstrap access key."""
    return Front(server.http, server.credentials)


def new_cmk(server):
    with server.login() as connection:
        return connection.call("CreateKey", {"Description": "interop"})["KeyMetadata"]["KeyId"]


def _opener(open_connection):
    opened = []

    def open_one():
        opened.append(open_connection())
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()
