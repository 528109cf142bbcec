#!/usr/bin/env python3
"""A receiver of keymill's rotations: it keeps the password of a service in a file, and checks it there.

    openssl rand -hex 32 > hook.key && chmod 600 hook.key
    python3 receiver.py hook.key password.txt 8099

with `url = "http://127.0.0.1:8099/keymill"` and `secrets = ["apps/orders"]` in the configuration of keymill. Instead of the file, set and try the password where it is used.
"""

import hashlib
import hmac
import http.server
import json
import pathlib
import sys
import time

KEY = pathlib.Path(sys.argv[1]).read_text().strip().encode()
FILE = pathlib.Path(sys.argv[2])
MOST = 256 * 1024  # bytes of a request: three values, and what JSON makes of them
SEEN = {}


def signature(*lines, body):
    return hmac.new(KEY, "".join(f"{line}\n" for line in lines).encode() + body, hashlib.sha256).hexdigest()


def perform(turn):
    """Does a step, each of which may come again, and returns the status."""
    if turn["Step"] == "set":
        FILE.touch(0o600)
        FILE.write_text(turn["Pending"])
    if turn["Step"] == "test":
        return 200 if FILE.exists() and FILE.read_text() == turn["Pending"] else 422
    return 200


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", -1))
        if not 0 <= length <= MOST:
            return self.send_error(413)
        body = self.rfile.read(length)
        at, nonce = self.headers.get("X-Keymill-Timestamp", ""), self.headers.get("X-Keymill-Nonce", "")
        expected = signature("POST", self.path, at, nonce, body=body)
        if not hmac.compare_digest(expected, self.headers.get("X-Keymill-Signature", "")):
            return self.send_error(401)
        for old in [old for old, seen in SEEN.items() if seen < time.time() - 600]:
            del SEEN[old]
        if abs(time.time() - int(at)) > 300 or nonce in SEEN:
            return self.send_error(401)
        SEEN[nonce] = time.time()
        status = perform(json.loads(body))
        self.send_response(status)
        self.send_header("X-Keymill-Signature", signature("ANSWER", nonce, status, body=b""))
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[3])), Receiver).serve_forever()
