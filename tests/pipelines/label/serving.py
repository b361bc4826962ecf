"""A label server as a user starts it, and MONAI Label's client beside it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from pipelines.label import environment
from tests.conftest import ROOT

PATIENCE = 240  # seconds for what takes a few on a machine that does nothing else


def environ():
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}


def wait_for(condition):
    """What a condition gives, as soon as it is true."""
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


class Server:
    """`featherseg label` in a folder, with options; its output goes to `server.log` there."""

    def __init__(self, folder, *options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.options = [*options, "--port", str(self.port)]

    def __enter__(self):
        words = [sys.executable, "-m", "pipelines.cli", "label", *self.options]
        self.log = (self.folder / "server.log").open("a")
        self.process = subprocess.Popen(
            words, cwd=self.folder, env=environ(), stdout=self.log, stderr=subprocess.STDOUT
        )
        wait_for(self.answers)
        return self

    def answers(self):
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/info/", timeout=5) as answer:
            return answer.status == 200
        return False

    def latency(self):
        """Seconds until /info/ has answered."""
        since = time.perf_counter()
        urllib.request.urlopen(f"{self.url}/info/", timeout=60).read()
        return time.perf_counter() - since

    def post(self, path, content=None):
        """Status and answer of a request that the client has no method for."""
        body = json.dumps(content or {}).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", body, {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["detail"]

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Client:
    """MONAI Label's client: its methods, and of what it raises the message."""

    def __init__(self, url, scratch):
        scratch.mkdir(exist_ok=True)
        words = [environment.python(), Path(__file__).with_name("client_process.py"), url, scratch]
        self.process = subprocess.Popen(
            list(map(str, words)),
            env=environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ask(self, name, *arguments, **options):
        self.process.stdin.write(f"{json.dumps([name, list(map(_plain, arguments)), options])}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __getattr__(self, name):
        def call(*arguments, **options):
            answer = self.ask(name, *arguments, **options)
            assert "error" not in answer, answer["error"]
            return answer["result"]

        return call

    def refused(self, name, *arguments, **options):
        """The message with which a call was refused."""
        answer = self.ask(name, *arguments, **options)
        assert "error" in answer, answer
        return answer["error"]


def _plain(value):
    return str(value) if isinstance(value, Path) else value
