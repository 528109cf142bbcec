"""Runs the suite twice at the same time, against two instances of one server; arguments are pytest's. What is not for instances is skipped, and
listed in `instances.py`. Exits 0 if both pass, the server drains, and the audits of all are in order."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["KEYMILL_INTEROP_INSTANCES"] = "1"

from server_process import BINARY, ServerProcess  # noqa: E402


def run(directory, arguments):
    """Returns what went wrong."""
    wrong = []
    server = ServerProcess(directory)
    try:
        suites = [Suite(directory, number, instance, arguments) for number, instance in enumerate(server.instances)]
        for suite in suites:
            wrong += suite.end()
    finally:
        code = server.stop()
    if code != 0:
        wrong.append(f"the server exited with {code}:\n{server.log_tail()}")
    if b"panicked" in server.log.read_bytes():
        wrong.append(f"the server panicked:\n{server.log_tail()}")
    for whose in ([], *(["--instance", instance.id] for instance in server.instances)):
        wrong += verify(server, whose)
    return wrong


class Suite:
    """The suite as it runs against one of the instances."""

    def __init__(self, directory, number, instance, arguments):
        self.number, self.output = number, directory / f"suite-{number}.log"
        reached = directory / f"instance-{number}.json"
        reached.touch(mode=0o600)
        reached.write_text(instance.encode())
        environment = os.environ | {"KEYMILL_INTEROP_INSTANCE": str(reached)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment)

    def end(self):
        code = self.process.wait()
        print(f"-- instance {self.number}\n{self.output.read_text(errors='replace')}", flush=True)
        return [f"the suite against instance {self.number} exited with {code}"] if code else []


def verify(server, whose):
    """Has an audit checked against the store."""
    done = subprocess.run(
        [BINARY, "audit", "verify", "--store", "--config", server.config, "--data-dir", server.data, *whose],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=server.environment,
    )
    if done.returncode or " 0 bad" not in done.stdout or " 0 wrong" not in done.stdout:
        return [f"the audit{' of '.join(['', *whose[1:]])} is not in order: {done.stdout}{done.stderr}"]
    return []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="side-") as made:
        found = run(Path(made), sys.argv[1:])
    for line in found:
        print(line, file=sys.stderr)
    sys.exit(1 if found else 0)
