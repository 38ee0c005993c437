"""What an agent finds out of a service's server: whether it is ready, and how long its inferences took."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from seed_runtime.agent.service import health, service, settings
from seed_runtime.agent.store.store import Store
from tests.runtime.agent.support.device_agent import LocalAgent
from tests.runtime.agent.support.services import make_current
from tests.support.model_seeds import FEATURES, classifier
from tests.support.service_manager import kill_servers

METRICS = """\
# TYPE seed_inference_duration_seconds histogram
seed_inference_duration_seconds_bucket{le="0.001"} 3
seed_inference_duration_seconds_bucket{le="30.0"} 5
seed_inference_duration_seconds_bucket{le="+Inf"} 6
seed_inference_duration_seconds_sum 31.25
seed_inference_duration_seconds_count 6
"""


def test_the_histogram_is_read_from_the_metrics() -> None:
    assert health.parse_latency(METRICS) == {"bounds": [0.001, 30.0], "counts": [3, 5, 6], "seconds": 31.25}


@pytest.mark.parametrize("cut", ["_sum", '"+Inf"', "_bucket"])
def test_metrics_without_a_whole_histogram_have_none(cut: str) -> None:
    assert health.parse_latency("".join(line for line in METRICS.splitlines(True) if cut not in line)) is None
    assert health.parse_latency(METRICS.replace("31.25", "1.2.3")) is None


def ask(path: Path) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, FEATURES], "data": [0.0] * FEATURES}
    connection.request("POST", "/v2/models/classifier/infer", json.dumps({"inputs": [tensor]}))
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.slow
def test_a_server_tells_that_it_is_ready_and_how_long_it_took_until_it_is_gone(
    local: LocalAgent, manager: Path, tmp_path: Path
) -> None:
    store = Store()
    commands = store.home / "runtime" / "0.1.0-00000000" / "bin"
    commands.mkdir(parents=True)
    (store.home / "runtime" / "current").symlink_to("0.1.0-00000000")
    (commands / "seed-run").symlink_to(Path(sys.executable).with_name("seed-run"))
    make_current(store, "a" * 64, classifier())
    assert local.call("health", name="m")["ready"] is None
    service.install(store, "m", "unix")
    for _ in range(3):
        ask(tmp_path / "run" / "seed-m.sock")
    found = local.call("health", name="m")
    assert (found["ready"], found["problem"]) == (True, None)
    assert found["latency"]["counts"][-1] == 3
    assert len(found["latency"]["counts"]) == len(found["latency"]["bounds"]) + 1
    kill_servers(manager)
    os.unlink(tmp_path / "run" / "seed-m.sock")
    found = local.call("health", name="m")
    assert (found["ready"], found["latency"]) == (False, None)
    assert found["problem"] == "it does not answer: [Errno 2] No such file or directory"
    assert settings.read(store, "m") is not None
