"""Servers for tests: one in this process whose model is a function, and `seed-run --serve`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seed_runtime.backends import Feeds, TensorSpec, check_feeds
from seed_runtime.serve import Address, ServedModel, Server, listen, parse_address
from tests.support.seed_run import COMMAND

SOON_S = 9.0
"""Time within which others are answered, on a busy machine as well: less than any limit that ends what hangs [s]."""
INPUTS = (TensorSpec("x", "float32", ("batch", 4)), TensorSpec("n", "int64", ()))


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        size = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(size)] if size else self.body)

    @property
    def error(self) -> str:
        """The one line of a refusal."""
        (key,) = self.json
        assert key == "error"
        assert "\n" not in self.json["error"]
        assert self.headers["content-type"] == "application/json"
        return str(self.json["error"])


@dataclass
class Client:
    """A client of one server. Each request has a connection of its own, unless one is given."""

    address: Address
    name: str = "doubler"
    process: subprocess.Popen[bytes] | None = None
    said: list[str] = field(default_factory=list)

    def socket(self) -> socket.socket:
        if self.address.path is not None:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(20)
            link.connect(self.address.path)
            return link
        return socket.create_connection((self.address.host, self.address.port), timeout=20)

    def connection(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("localhost")
        made.sock = self.socket()
        return made

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        with contextlib.ExitStack() as stack:
            link = connection or stack.enter_context(contextlib.closing(self.connection()))
            given = {"Content-Type": "application/json"} if body is not None else {}
            link.request(method, path, body, {**given, **(headers or {})})
            got = link.getresponse()
            return Answer(got.status, {key.lower(): value for key, value in got.getheaders()}, got.read())

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def infer(self, request: Any, **options: Any) -> Answer:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self.ask("POST", f"/v2/models/{self.name}/infer", body, **options)

    def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """All that comes back until the server ends the connection; `end` says that no more is sent."""
        with self.socket() as link:
            link.sendall(data)
            if end:
                link.shutdown(socket.SHUT_WR)
            parts = []
            with contextlib.suppress(ConnectionError):
                while part := link.recv(1 << 16):
                    parts.append(part)
            return b"".join(parts)

    def memory(self) -> tuple[int, int]:
        """VmRSS and VmHWM of the process [B]."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        sizes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text, re.MULTILINE))
        return int(sizes["VmRSS"]) << 10, int(sizes["VmHWM"]) << 10


def doubler(inputs: tuple[TensorSpec, ...] = INPUTS) -> ServedModel:
    """2 * x of float32[batch, 4], and n + 1; the feeds are checked as a session does it."""

    def run(feeds: Feeds) -> dict[str, Any]:
        check_feeds(inputs, feeds)
        return {"y": feeds["x"] * np.float32(2), "m": feeds["n"] + 1}

    outputs = (TensorSpec("y", "float32", ("batch", 4)), TensorSpec("m", "int64", ()))
    return ServedModel("doubler", "7", inputs, outputs, run)


@contextlib.contextmanager
def in_process(
    where: str, model: ServedModel | None = None, body_max: int = 1 << 20
) -> Iterator[tuple[Client, Server]]:
    """Serve in threads of this process within the block."""
    with listen(parse_address(where)) as (listener, address):
        server = Server(model or doubler(), listener, body_max=body_max, bodies_max=2 * body_max)

        def run() -> None:
            with contextlib.suppress(OSError):  # its listener is closed
                server.run()

        thread = threading.Thread(target=run, daemon=True)
        with server:
            thread.start()
            yield Client(address), server
        thread.join(20)


@contextlib.contextmanager
def command(seed: Path, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Client]:
    """Run `seed-run SEED --serve ...` within the block, which begins once it is ready; SIGTERM ends it."""
    process = subprocess.Popen(
        [*COMMAND, str(seed), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line.decode().rstrip())
            if match := re.search(r", on (?:http://)?(.+)$", said[-1]):
                break
        else:
            raise AssertionError(f"the server ended with {process.wait()}: {said}")
        yield Client(parse_address(match[1]), name, process, said)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            rest, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        said += errors.decode().splitlines()
        assert rest == b""


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it is true, for at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def tensor(name: str, array: np.ndarray, datatype: str, *, nested: bool = False) -> dict[str, Any]:
    """Return an input of a request with its data in JSON."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype,
        "data": array.tolist() if nested else array.reshape(-1).tolist(),
    }


def binary(inputs: list[tuple[str, np.ndarray, str]], **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return a body with all tensors as binary data, and its headers."""
    entries = [
        {"name": name, "shape": list(array.shape), "datatype": kind, "parameters": {"binary_data_size": array.nbytes}}
        for name, array, kind in inputs
    ]
    head = json.dumps({"inputs": entries, **more}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return head + b"".join(array.tobytes() for _, array, _ in inputs), headers
