"""`seed-run --serve` as a process: from the seed to the last answer, and its memory over many requests.

SEED_SOAK_REQUESTS sets how many (default 1,000), SEED_SOAK_MODEL a seed of Magika to ask with this folder's files.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import importlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.serve import limits
from tests.runtime.serve.support.serving import SOON_S, Client, binary, command, tensor
from tests.support.model_seeds import FEATURES, classifier, tokens
from tests.support.project import ROOT
from tests.support.seed_run import COMMAND, refused, seed_run
from tests.support.tflite_bytes import WEIGHT

REQUESTS = int(os.environ.get("SEED_SOAK_REQUESTS", "1000"))
MODEL = os.environ.get("SEED_SOAK_MODEL")
CLIENTS = 8
GROWTH_MAX = 4 << 20
"""What the process may gain after its first tenth of the requests: heaps settle, nothing else [B]."""

pytestmark = pytest.mark.slow


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "model.seed"
    path.write_bytes(classifier())
    return path


def test_what_is_served_is_what_seed_run_gives(seed: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, FEATURES)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    assert seed_run(seed, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz").returncode == 0
    expected = np.load(tmp_path / "y.npz")["scores"]
    with command(seed, "classifier", "--serve", f"unix:{tmp_path}/s") as client:
        body, headers = binary([("x", x, "FP32")], parameters={"binary_data_output": True})
        got = client.infer(body, headers=headers)
        values = np.frombuffer(got.body[int(got.headers["inference-header-content-length"]) :], np.float32)
        assert np.array_equal(values.reshape(expected.shape), expected)
        got = client.infer({"inputs": [tensor("x", x, "FP32", nested=True)]})
        assert np.array_equal(np.array(got.json["outputs"][0]["data"], np.float32).reshape(expected.shape), expected)
        got = client.infer({"inputs": [tensor("x", x[:, :5], "FP32")]})
        assert (got.status, "the model expects x: FP32[-1, 32]" in got.error) == (400, True)
        for body, headers in (({"inputs": [tensor("x", x[:0], "FP32")]}, {}), binary([("x", x[:0], "FP32")])):
            got = client.infer(body, headers=headers)
            assert (got.status, got.json["outputs"][0]["shape"][0], got.json["outputs"][0]["data"]) == (200, 0, [])
        body, headers = binary([("x", np.full((1, FEATURES), np.nan, np.float32), "FP32")])
        got = client.infer(body, headers=headers)
        assert (got.status, "NaN" in got.error) == (400, True)
        assert client.said == [f"seed-run: serving classifier, version 3, on unix:{tmp_path}/s"]
    assert client.process is not None
    assert client.process.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "s").exists()


def test_a_tflite_model_is_served_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")
    seed = ROOT / "tests" / "conformance" / "seeds" / "tflite-one.seed"
    with command(seed, "vector", "--serve", f"unix:{tmp_path}/s") as client:
        assert client.ask("GET", "/v2/models/vector").json["platform"] == "seed_litert"
        x = np.arange(16, dtype=np.float32)
        got = client.infer({"inputs": [tensor("x", x, "FP32")]}).json["outputs"][0]["data"]
        np.testing.assert_array_equal(got, x + np.array(WEIGHT, np.float32))
        refused_one = client.infer({"inputs": [tensor("x", x[:5], "FP32")]})
        assert (refused_one.status, "the model expects x: FP32[16]" in refused_one.error) == (400, True)


def test_the_limit_that_another_process_planned_is_enough_for_the_largest_input(seed: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-I", "-m", "seed_runtime.cli.plan_server", str(seed)]
    planned = json.loads(subprocess.run([*words, "0"], capture_output=True, check=True).stdout)["planned_bytes"]
    with command(seed, "classifier", "--serve", f"unix:{tmp_path}/s", "--max-memory", str(planned)) as client:
        assert client.infer({"inputs": [tensor("x", np.zeros((64, FEATURES)), "FP32")]}).status == 200
    refused = subprocess.run([*words, str(10 << 20)], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (14, "")
    assert re.fullmatch(r"seed-run: the session needs \d+ MiB and --max-memory allows 10.0 MiB; .*\n", refused.stderr)


def test_values_that_the_graph_itself_refuses_are_a_fault_of_the_client(tmp_path: Path) -> None:
    (tmp_path / "t.seed").write_bytes(tokens())
    with command(tmp_path / "t.seed", "tokens", "--serve", ":0") as client:
        shift = tensor("shift", np.zeros(8), "FP32")
        assert client.infer({"inputs": [tensor("ids", np.ones((1, 2), int), "INT32"), shift]}).status == 200
        got = client.infer({"inputs": [tensor("ids", np.full((1, 2), 999), "INT32"), shift]})
        assert (got.status, "the model can't run on" in got.error) == (400, True)


def test_the_limit_holds_for_the_whole_server_and_its_inputs(seed: Path, tmp_path: Path) -> None:
    assert "allow at least --max-memory" in refused(14, seed, "--serve", ":0", "--max-memory", "40MiB", process=True)
    with command(seed, "classifier", "--serve", f"unix:{tmp_path}/s", "--max-memory", "120MiB") as client:
        for rows in (64, 65, 5000):
            body, headers = binary([("x", np.ones((rows, FEATURES), np.float32), "FP32")])
            got = client.infer(body, headers=headers)
            assert got.status == (200 if rows <= 64 else 413 if rows > 4000 else 400), got.body
        assert client.memory()[1] <= 120 << 20


@pytest.mark.parametrize(
    "sent",
    [b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 90 + b"B: " + b"c" * 15_000, b"GET /metrics HTTP/1.1\r\n\r\n" * 9000],
)
def test_connections_take_no_more_memory_than_is_planned_for_them(seed: Path, tmp_path: Path, sent: bytes) -> None:
    with (
        command(seed, "classifier", "--serve", f"unix:{tmp_path}/s") as client,
        contextlib.ExitStack() as stack,
    ):
        assert client.get("/metrics").status == 200
        before = client.memory()[0]
        for _ in range(limits.CONNECTIONS_MAX):
            link = stack.enter_context(client.socket())
            link.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                link.sendall(sent)
        assert client.get("/metrics").status in (200, 503)
        assert client.memory()[1] - before < limits.CONNECTIONS_MAX * limits.CONNECTION_BYTES


def test_the_service_manager_hears_when_it_is_ready_and_when_it_ends(seed: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with command(seed, "classifier", "--serve", ":0", env={"NOTIFY_SOCKET": str(tmp_path / "notify")}):
            assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"STOPPING=1"


def test_an_address_that_cannot_be_used_is_2(seed: Path, tmp_path: Path) -> None:
    assert "other machines" in refused(2, seed, "--serve", "0.0.0.0:8080")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        assert "another server listens there" in refused(2, seed, "--serve", str(tmp_path / "s"))
    (tmp_path / "file").touch()
    assert "something else is there" in refused(2, seed, "--serve", str(tmp_path / "file"))


def test_a_killed_server_leaves_a_socket_that_the_next_one_replaces(seed: Path, tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/s"
    with command(seed, "classifier", "--serve", where) as client:
        assert client.process is not None
        client.process.kill()
        client.process.wait()
    assert (tmp_path / "s").exists()
    with command(seed, "classifier", "--serve", where) as client:
        assert client.get("/v2/health/ready").status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_its_code(seed: Path, number: signal.Signals) -> None:
    with command(seed, "classifier", "--serve", ":0") as client:
        assert client.process is not None
        client.process.send_signal(number)
        assert client.process.wait(20) == 128 + number
    assert len(client.said) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_code_while_40_slow_bodies_hang(
    seed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    slow = b"POST /v2/models/classifier/infer HTTP/1.1\r\nContent-Length: 9000\r\n\r\n{"
    where = f"unix:{tmp_path}/s"
    with (
        command(seed, "classifier", "--serve", where, "--max-memory", "120MiB") as client,
        contextlib.ExitStack() as stack,
    ):
        assert client.process is not None
        links = [stack.enter_context(client.socket()) for _ in range(40)]
        for link in links:
            link.sendall(slow)
        start = time.monotonic()
        assert client.get("/v2/health/ready").status == 200
        assert time.monotonic() < start + SOON_S
        x = np.ones((64, FEATURES), np.float32)
        # All places may just have been given to others who are slow: then it is 503, and the next try gets one.
        while (answer := client.infer({"inputs": [tensor("x", x, "FP32")]})).status == 503:
            assert time.monotonic() < start + 10
            time.sleep(int(answer.headers["retry-after"]))
        assert answer.status == 200
        assert client.memory()[1] <= 120 << 20
        start = time.monotonic()
        client.process.send_signal(number)
        assert client.process.wait(20) == 128 + number
        assert time.monotonic() < start + 10
        for link in links:
            assert link.recv(1 << 16)[9:12] in (b"408", b"503")
    assert not (tmp_path / "s").exists()
    assert len(client.said) == 1


def test_a_seed_from_a_pipe_is_served(seed: Path) -> None:
    with seed.open("rb") as pipe:
        process = subprocess.Popen([*COMMAND, "-", "--serve", ":0"], stdin=pipe, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with contextlib.closing(process.stderr) as errors:
        assert b"serving classifier" in errors.readline()
        process.terminate()
        assert process.wait(20) == 143


# Many requests


def good(rng: random.Random, files: list[Path]) -> tuple[bytes, dict[str, str]]:
    """Return a request of one row or two, half of them in JSON."""
    rows = rng.choice((1, 1, 1, 2))
    if MODEL:
        features = importlib.import_module("bench.public.magika").features
        x, name, kind = np.stack([features(rng.choice(files).read_bytes()) for _ in range(rows)]), "bytes", "INT32"
    else:
        x = np.array([[rng.gauss(0, 1) for _ in range(FEATURES)] for _ in range(rows)], np.float32)
        name, kind = "x", "FP32"
    if rng.random() < 0.5:
        return binary([(name, x, kind)], parameters={"binary_data_output": rng.random() < 0.5})
    return json.dumps({"inputs": [tensor(name, x, kind, nested=rng.random() < 0.5)]}).encode(), {}


def bad(rng: random.Random, body: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a malformed request."""
    damaged = bytearray(body[:60_000])
    for _ in range(40):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return rng.choice(
        [
            (b"", {}),
            (b"\xff" + bytes(damaged), {}),
            (body[: len(body) // 2] + b"\x00", {}),
            (b'{"inputs": [' + b"[" * 20_000, {}),
            (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [' + b"[]," * 50_000 + b"0]}]}", {}),
            (b'{"inputs": [{"name": "other", "shape": [1], "datatype": "FP32", "data": [1]}]}', {}),
            (b"{}", {"Content-Type": "text/plain"}),
            (b"{}", {"Inference-Header-Content-Length": "999"}),
            (b"{}", {"Origin": "http://example.org"}),
            (bytes(damaged[:10]), {"Content-Encoding": "gzip"}),
            (gzip.compress(body)[:-4], {"Content-Encoding": "gzip"}),
        ]
    )


def test_memory_does_not_grow_with_the_number_of_requests(seed: Path, tmp_path: Path) -> None:
    if MODEL:
        importlib.import_module("bench.public.magika")  # what it needs may be missing: `make public`
    files = [path for path in sorted(ROOT.rglob("*.py"))[:200] if path.stat().st_size]
    name = seed_runtime.open(MODEL or seed).header.model.model_id
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    sizes: list[tuple[int, int]] = []
    gate = threading.Barrier(CLIENTS + 1)

    def ask(client: Client, number: int, requests: int) -> None:
        rng = random.Random(number)
        connection: http.client.HTTPConnection | None = None
        for index in range(requests):
            if index == requests // 10:
                gate.wait()
                gate.wait()
            body, headers = good(rng, files)
            broken = rng.random() < 0.1
            if broken:
                body, headers = bad(rng, body)
            if connection is None or rng.random() < 0.05:
                if connection is not None:
                    connection.close()
                connection = client.connection()
            if broken and rng.random() < 0.3:
                with client.socket() as link, contextlib.suppress(OSError):
                    link.sendall(body[:2000])  # no HTTP at all, or cut
                    link.shutdown(socket.SHUT_WR)
                    counts["cut"] += 1
                    answer = link.recv(1 << 16)
                    if answer and answer[9:10] != b"4":
                        wrong.append(f"{body[:80]!r}: {answer[:80]!r}")
                continue
            try:
                got = client.infer(body, headers=headers, connection=connection)
            except (OSError, http.client.HTTPException) as error:
                wrong.append(f"{body[:80]!r}: {error!r}")
                connection = None
                continue
            counts[str(got.status)] += 1
            if broken != (400 <= got.status < 500) or (not broken and got.status != 200):
                wrong.append(f"{body[:80]!r}: {got.status} {got.body[:200]!r}")
            if got.headers.get("connection") == "close":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    arguments = ["--serve", f"unix:{tmp_path}/s"]
    with command(Path(MODEL) if MODEL else seed, name, *arguments) as client:
        threads = [threading.Thread(target=ask, args=(client, n, REQUESTS // CLIENTS)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        gate.wait()
        sizes.append(client.memory())
        gate.wait()
        for thread in threads:
            thread.join()
        sizes.append(client.memory())
        assert client.get("/v2/health/ready").status == 200
    assert client.said[1:] == []
    (rss, peak), (rss_after, peak_after) = sizes
    print(
        f"{sum(counts.values()):,} requests of {CLIENTS} clients: {dict(sorted(counts.items()))}; after a tenth "
        f"of them VmRSS {rss / 2**20:.1f} and VmHWM {peak / 2**20:.1f} MiB, at the end {rss_after / 2**20:.1f} and "
        f"{peak_after / 2**20:.1f} MiB"
    )
    assert not wrong, wrong[:5]
    assert counts["400"] > REQUESTS // 100
    assert rss_after - rss < GROWTH_MAX
    assert peak_after - peak < GROWTH_MAX
