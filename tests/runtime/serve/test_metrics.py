"""GET /metrics as Prometheus reads it, and the statistics of the protocol's extension."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_runtime.backends import Feeds
from seed_runtime.serve import ServedModel, Server, limits, server
from seed_runtime.serve.metrics import BOUNDS_S, CALLS, Metrics, Times
from tests.runtime.serve.support.serving import Client, doubler, in_process, tensor

REQUEST = {"inputs": [tensor("x", np.ones((2, 4), np.float32), "FP32"), tensor("n", np.array(3), "INT64")]}
RUN_S = 0.02


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_POLL_S", 0.05)
    monkeypatch.setattr(limits, "LINGER_S", 0.5)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Client, Server]]:
    made = doubler()

    def run(feeds: Feeds) -> Any:
        time.sleep(RUN_S)
        return made.run(feeds)

    model = ServedModel(made.name, made.version, made.inputs, made.outputs, run, digest="ab" * 32)
    with in_process(f"unix:{tmp_path}/s", model) as found:
        yield found


@pytest.fixture
def client(served: tuple[Client, Server]) -> Client:
    return served[0]


def families(text: str) -> dict[str, Any]:
    """Metrics by name, read by Prometheus' own parser; every one has a help text and a type."""
    from prometheus_client.parser import text_string_to_metric_families  # only these tests need it

    found = {family.name: family for family in text_string_to_metric_families(text)}
    for family in found.values():
        assert family.documentation.endswith(".")
        assert family.type != "unknown"
        for sample in family.samples:
            assert sample.name.startswith(family.name)
            assert f"# TYPE {family.name}" in text
    return found


def scrape(client: Client) -> dict[str, Any]:
    got = client.get("/metrics")
    assert got.status == 200
    assert got.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return families(got.body.decode())


def value(found: dict[str, Any], name: str, sample: str = "", **labels: str) -> float:
    (one,) = (each for each in found[name].samples if each.labels == labels and each.name in (sample or each.name))
    return float(one.value)


def test_prometheus_reads_the_metrics_of_a_server_that_was_never_asked(client: Client) -> None:
    found = scrape(client)
    assert {each.labels["call"]: each.value for each in found["seed_requests"].samples} == dict.fromkeys(CALLS, 0.0)
    assert found["seed_request_errors"].samples == []
    assert found["seed_inference_duration_seconds"].type == "histogram"
    (info,) = found["seed_model_info"].samples
    assert (info.labels["model"], info.labels["version"], info.labels["digest"]) == ("doubler", "7", "ab" * 32)
    assert info.value == 1


def test_names_and_units_follow_the_conventions_of_prometheus(client: Client) -> None:
    client.get("/v2/nothing")
    for family in scrape(client).values():
        assert family.name.startswith(("seed_", "process_"))
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample
        if any(word in family.name for word in ("memory", "bytes")):
            assert family.name.endswith("_bytes")
        if any(word in family.name for word in ("duration", "time", "cpu", "queue", "run_")):
            assert family.name.endswith("_seconds")


def test_requests_errors_and_times_are_counted(client: Client) -> None:
    for _ in range(3):
        assert client.infer(REQUEST).status == 200
    assert client.infer(b"nonsense").status == 400
    assert client.ask("GET", "/v2/models/doubler/infer").status == 405
    assert client.get("/v2/nothing").status == 404
    assert client.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert client.ask("HEAD", "/v2/health/ready").status == 200
    assert client.get("/v2/models/doubler").status == 200
    found = scrape(client)
    counts = {each.labels["call"]: each.value for each in found["seed_requests"].samples}
    assert counts == {
        "ask": 0, "generate": 0, "infer": 5, "other": 2, "health": 1, "metadata": 1, "metrics": 0, "statistics": 0
    }  # fmt: skip
    errors = {(each.labels["call"], each.labels["code"]): each.value for each in found["seed_request_errors"].samples}
    assert errors == {("infer", "400"): 1, ("infer", "405"): 1, ("other", "404"): 1, ("other", "400"): 1}
    name = "seed_inference_duration_seconds"
    assert value(found, name, f"{name}_count") == 3
    assert value(found, name, f"{name}_sum") >= 3 * RUN_S
    assert value(found, "seed_inference_run_seconds") >= 3 * RUN_S
    assert value(found, "seed_connections") == 1
    assert value(found, "seed_memory_peak_bytes") >= value(found, "process_resident_memory_bytes") > 1 << 20
    assert abs(value(found, "process_start_time_seconds") - time.time()) < 60
    assert "seed_memory_limit_bytes" not in found


def test_the_buckets_of_the_histogram_are_cumulative() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.001, 0.002, 0.3, 1000.0):
        metrics.add_success(Times(0, 0, seconds, 0))
    found = families(metrics.prometheus_text(doubler(), 0, 1 << 30))
    name = "seed_inference_duration_seconds"
    buckets = [(float(each.labels["le"]), each.value) for each in found[name].samples if each.name.endswith("_bucket")]
    assert [bound for bound, _ in buckets] == [*BOUNDS_S, math.inf]
    assert dict(buckets)[0.001] == 2
    assert dict(buckets)[0.0025] == 3
    assert dict(buckets)[0.5] == 4
    assert dict(buckets)[math.inf] == value(found, name, f"{name}_count") == 5
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert value(found, "seed_memory_limit_bytes") == 1 << 30


def test_names_of_models_are_escaped() -> None:
    name = 'a "b" \\ c\nd'
    model = ServedModel(name, "1", (), (), lambda feeds: {})
    (info,) = families(Metrics().prometheus_text(model, 0, None))["seed_model_info"].samples
    assert info.labels["model"] == name


def test_statistics_are_those_of_the_extension(client: Client) -> None:
    assert client.get("/v2").json["extensions"] == ["binary_tensor_data", "statistics"]
    (before,) = client.get("/v2/models/stats").json["model_stats"]
    assert (before["last_inference"], before["inference_count"]) == (0, 0)
    for _ in range(3):
        client.infer(REQUEST)
    client.infer(b"nonsense")
    paths = ("/v2/models/stats", "/v2/models/doubler/stats", "/v2/models/doubler/versions/7/stats")
    answers = [client.get(path).json for path in paths]
    assert answers[0] == answers[1] == answers[2]
    (found,) = answers[0]["model_stats"]
    assert (found["name"], found["version"]) == ("doubler", "7")
    assert (found["inference_count"], found["execution_count"]) == (3, 3)
    assert abs(found["last_inference"] / 1e3 - time.time()) < 60
    times = found["inference_stats"]
    counts = {key: each["count"] for key, each in times.items()}
    assert counts == {"success": 3, "fail": 1, "cache_hit": 0, "cache_miss": 0} | dict.fromkeys(
        ("queue", "compute_input", "compute_infer", "compute_output"), 3
    )
    assert times["compute_infer"]["ns"] >= 3 * RUN_S * 1e9
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert abs(times["success"]["ns"] - sum(times[key]["ns"] for key in parts)) <= 4
    assert found["batch_stats"] == []


@pytest.mark.parametrize("path", ["/v2/models/other/stats", "/v2/models/doubler/versions/8/stats"])
def test_statistics_of_other_models_are_404(client: Client, path: str) -> None:
    assert client.get(path).status == 404
    assert client.ask("POST", "/v2/models/stats", b"{}").status == 405


def test_web_pages_get_no_metrics() -> None:
    with in_process(":0") as (client, _):
        assert client.ask("GET", "/metrics", headers={"Host": "evil.example"}).status == 421
        assert client.ask("GET", "/metrics", headers={"Origin": "http://evil.example"}).status == 403
