"""Serve a seed over HTTP on this machine, and ask it with the standard library alone.

Any client of the Open Inference Protocol (v2, REST) can ask in the same way.

Prints:
    classifier: inputs x FP32 [-1, 64]
    classes of three samples: [6, 2, 8]
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import small_model

import seed_exporter

options = seed_exporter.Options(effort=1, target=4, model_id="classifier")
seed_exporter.export(small_model.write_all(), output="model.seed", options=options)
with socket.create_server(("127.0.0.1", 0)) as free:
    address = f"127.0.0.1:{free.getsockname()[1]}"


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request, a POST if it has a body, and return the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}/v2/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or "null")


def wait_until_ready() -> None:
    """Return as soon as the server answers."""
    for _ in range(600):
        try:
            ask("health/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit("the server doesn't answer")


server = subprocess.Popen([sys.executable, "-m", "seed_runtime.cli", "model.seed", "--serve", address, "-q"])
try:
    wait_until_ready()
    (taken,) = ask("models/classifier")["inputs"]
    print(f"classifier: inputs {taken['name']} {taken['datatype']} {taken['shape']}")
    x = small_model.samples(3, rng_seed=6)["x"]
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    (scores,) = ask("models/classifier/infer", {"inputs": [tensor]})["outputs"]
    rows = [scores["data"][start : start + 10] for start in range(0, 30, 10)]
    print(f"classes of three samples: {[row.index(max(row)) for row in rows]}")
finally:
    server.terminate()
    server.wait()
