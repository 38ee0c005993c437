"""Inferences that a service on a device is asked for."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


def ask(path: Path, model: str) -> None:
    """Send one inference to the server of a model at this socket."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    with contextlib.closing(connection):
        connection.sock.connect(str(path))
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [0.0] * 16}
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}))
        connection.getresponse().read()


@contextlib.contextmanager
def asked_all_along(path: Path, model: str) -> Iterator[None]:
    """Let a client ask the server for as long as the block runs."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask(path, model)
            ended.wait(0.005)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
