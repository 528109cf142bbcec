"""Envelopes: Tink opens what the program sealed, given the data key, and the program opens what Tink sealed behind a header."""

import os
import subprocess

import pytest
from tink import TinkError

import envelope
from server_process import BINARY

CONTEXT = {"tenant": "ä", "row": "7"}
FIRST = envelope.SEGMENT - envelope.START - envelope.TAG
NEXT = envelope.SEGMENT - envelope.TAG
LENGTHS = [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + NEXT, FIRST + NEXT + 1, FIRST + 3 * NEXT + 12345]


@pytest.fixture
def keymill(server, tmp_path):
    """Returns a function that runs `keymill envelope` in a directory of its own."""
    home = {name: value for name, value in os.environ.items() if not name.startswith(("KEYMILL_", "XDG_"))}
    environment = home | {
        "HOME": str(tmp_path),
        "KEYMILL_TCP": server.msgpack,
        "KEYMILL_ACCESS_KEY_ID": server.credentials.access_key_id,
        "KEYMILL_ACCESS_KEY_SECRET": server.credentials.access_key_secret,
    }

    def run(*args):
        return subprocess.run(
            [BINARY, "envelope", *args], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True
        )

    return run


def payload(length):
    return bytes(range(251)) * (length // 251) + bytes(range(length % 251))


def given(context):
    return {"EncryptionContext": context} if context else {}


@pytest.mark.parametrize("context", [CONTEXT, {}], ids=["context", "none"])
@pytest.mark.parametrize("length", LENGTHS)
def test_tink_opens_what_the_program_sealed(keymill, conn, cmk, tmp_path, length, context):
    (tmp_path / "plain").write_bytes(payload(length))
    pairs = [arg for name, value in context.items() for arg in ("--context", f"{name}={value}")]
    done = keymill("seal", "--in", "plain", "--out", "sealed", "--key", cmk, *pairs)
    assert done.returncode == 0, done.stderr
    header, stream = envelope.parse((tmp_path / "sealed").read_bytes())
    assert (header.key_id, header.context) == (cmk, context)
    data_key = conn.call("Decrypt", {"CiphertextBlob": header.edk, "KeyId": header.key_id} | given(context))["Plaintext"]
    assert len(data_key) == 32
    assert envelope.open_stream(data_key, header.raw, stream) == payload(length)
    with pytest.raises(TinkError):
        envelope.open_stream(data_key, header.raw[:-1], stream)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_program_opens_what_tink_sealed(keymill, conn, cmk, tmp_path, length):
    made = conn.call("GenerateDataKey", {"KeyId": cmk, "KeySpec": "AES_256"} | given(CONTEXT))
    header = envelope.build(cmk, made["CiphertextBlob"], CONTEXT)
    stream = envelope.seal_stream(made["Plaintext"], header, payload(length))
    (tmp_path / "sealed").write_bytes(header + stream)
    done = keymill("open", "--in", "sealed", "--out", "plain")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plain").read_bytes() == payload(length)


def test_a_stream_behind_another_header_does_not_open(keymill, conn, cmk, tmp_path):
    made = conn.call("GenerateDataKey", {"KeyId": cmk, "KeySpec": "AES_256"})
    header = envelope.build(cmk, made["CiphertextBlob"], {})
    stream = envelope.seal_stream(made["Plaintext"], header, b"text")
    other = envelope.build(cmk, conn.call("GenerateDataKey", {"KeyId": cmk})["CiphertextBlob"], {})
    errors = set()
    for bytes_ in (
        other + stream,
        header + stream[:-1],
        header + stream + b"\0",
        envelope.build(cmk, made["CiphertextBlob"], {"a": "1"}) + stream,
        envelope.build("00000000-0000-4000-8000-000000000000", made["CiphertextBlob"], {}) + stream,
        header + envelope.seal_stream(made["Plaintext"], other, b"text"),
    ):
        (tmp_path / "sealed").write_bytes(bytes_)
        refused = keymill("open", "--in", "sealed", "--out", "plain")
        assert refused.returncode == 1 and not (tmp_path / "plain").exists()
        errors.add(refused.stderr)
    assert len(errors) == 1, errors
