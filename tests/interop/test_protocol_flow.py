"""Pipelining and flow control: everything sent is answered, in any order, and nothing is buffered without bound."""

import signal
import threading
import time

from keymill_tcp import ProtocolError, ServerError
from server_process import ServerProcess

PIPELINED = 2_000
EIGHT_MIB = [bytes(65_536)] * 127  # a frame of 8 MiB, less a little


class Sender(threading.Thread):
    """Sends on a thread of its own, so that the test can read, or decline to; counts the requests that went out."""

    def __init__(self, connection, requests):
        super().__init__(daemon=True)
        self.connection, self.requests, self.sent, self.failure = connection, requests, 0, None
        self.ids = range(1, len(requests) + 1)
        connection.in_flight |= set(self.ids)
        connection.last_id = len(requests)
        self.start()

    def run(self):
        try:
            for id_, (operation, parameters) in zip(self.ids, self.requests):
                self.connection.send([id_, operation, parameters])
                self.sent += 1
        except OSError as error:
            self.failure = error

    def await_standstill(self, seconds=1):
        """Waits until nothing more went out for that long, or all of it did."""
        last, since = self.sent, time.monotonic()
        while self.is_alive() and time.monotonic() - since < seconds:
            time.sleep(0.02)
            if self.sent != last:
                last, since = self.sent, time.monotonic()
        return self.sent

    def finish(self):
        self.join(30)
        assert not self.is_alive() and self.failure is None, self.failure


def test_2_000_pipelined_requests_are_all_answered(conn, cmk):
    sender = Sender(conn, [("Encrypt", {"KeyId": cmk, "Plaintext": b"%d" % id_}) for id_ in range(PIPELINED)])
    answers = conn.responses(sender.ids)
    sender.finish()
    assert {status for status, _ in answers.values()} == {0}
    blobs = [answers[id_][1]["CiphertextBlob"] for id_ in sender.ids]
    assert conn.call("BatchDecrypt", {"Items": blobs})["Items"] == [b"%d" % id_ for id_ in range(PIPELINED)]


def test_max_in_flight_is_flow_control_and_no_error(conn, cmk):
    """Nothing is read while the requests go out: the server may stop reading, it may not refuse."""
    limit = conn.challenge["MaxInFlight"]
    requests = [("BatchEncrypt", {"KeyId": cmk, "Items": [bytes(4096)]})] * (limit * 6)
    sender = Sender(conn, requests)
    sender.await_standstill()
    answers = conn.responses(sender.ids)
    sender.finish()
    assert {status for status, _ in answers.values()} == {0}


def test_a_client_that_does_not_read_is_held_back(server, conn, login, cmk):
    """112 MiB of requests: the server holds at most 64 MiB of requests and answers of a connection."""
    before = server.memory("VmRSS")
    sender = Sender(conn, [("BatchEncrypt", {"KeyId": cmk, "Items": EIGHT_MIB})] * 14)
    sent = sender.await_standstill()
    assert sent < 14, "112 MiB went out while no answer was read"
    assert login().call("Encrypt", {"KeyId": cmk, "Plaintext": b"a"}), "others must not wait for it"
    assert server.memory("VmRSS") - before < 160 * 1024 * 1024
    answers = conn.responses(sender.ids)
    sender.finish()
    assert {status for status, _ in answers.values()} == {0}


def test_half_close_gets_the_answers_of_what_was_sent(conn, cmk):
    sender = Sender(conn, [("Encrypt", {"KeyId": cmk, "Plaintext": b"a"})] * 300
                    + [("BatchEncrypt", {"KeyId": cmk, "Items": EIGHT_MIB}), ("Bogus", {})])
    sender.finish()
    conn.finish_sending()
    answers = conn.responses(sender.ids)
    assert [answers[id_][0] for id_ in sender.ids] == [0] * 301 + [404]
    assert conn.read_value() is None, "the server closes once all is answered"


def test_half_close_after_the_login_is_an_orderly_end(conn):
    conn.finish_sending()
    assert conn.read_value() is None


def test_answers_may_come_in_any_order_but_once_each(conn, cmk):
    """Large and small, good and bad mixed: which comes first is the server's affair."""
    kinds = [
        ("BatchEncrypt", {"KeyId": cmk, "Items": [bytes(1024)] * 2_000}),
        ("Encrypt", {"KeyId": cmk, "Plaintext": b"a"}),
        ("Encrypt", {"KeyId": cmk}),
        ("Bogus", {}),
        ("CreateKey", {"Description": "any order"}),
        ("DescribeLimits", {}),
    ]
    sender = Sender(conn, kinds * 10)
    answers = conn.responses(sender.ids)
    sender.finish()
    assert [answers[id_][0] for id_ in sender.ids] == [0, 0, 400, 404, 0, 0] * 10
    assert conn.in_flight == set()
    assert conn.call("DescribeLimits")


def test_a_client_that_vanishes_with_work_queued_harms_nobody(login, cmk):
    for _ in range(5):
        connection = login()
        for _ in range(3):
            connection.request("BatchEncrypt", {"KeyId": cmk, "Items": EIGHT_MIB})
        connection.close()
    assert login().call("Encrypt", {"KeyId": cmk, "Plaintext": b"a"})


def test_sigterm_finishes_what_was_accepted_and_exits_0(tmp_path):
    own = ServerProcess(tmp_path)
    try:
        connection = own.login()
        cmk = connection.call("CreateKey")["KeyMetadata"]["KeyId"]
        sender = Sender(connection, [("BatchEncrypt", {"KeyId": cmk, "Items": [bytes(1024)] * 1_000})] * 200)
        answered = [connection.response()[0]]
        own.process.send_signal(signal.SIGTERM)
        try:
            while connection.in_flight:
                id_, status, body = connection.response()
                assert status == 0 or body["Retryable"], body
                answered.append(id_)
        except ProtocolError as error:
            assert "requests unanswered" in str(error), "the connection was cut inside a frame"
        except ServerError as error:
            assert error.status == 503 and error.retryable, error
        connection.close()
        sender.join(30)
        assert len(set(answered)) == len(answered)
    finally:
        code = own.stop()
    assert code == 0, own.log_tail()
