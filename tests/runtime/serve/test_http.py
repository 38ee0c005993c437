"""HTTP: calls, faults of clients, limits of size and time."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_runtime.backends import Feeds, TensorSpec
from seed_runtime.errors import MemoryBudgetError
from seed_runtime.serve import Address, ServedModel, Server, limits, listen, server
from tests.runtime.serve.support.serving import SOON_S, Client, binary, doubler, in_process, tensor

REQUEST = {
    "id": "a",
    "inputs": [tensor("x", np.ones((2, 4), np.float32), "FP32"), tensor("n", np.array(3), "INT64")],
}
HEAD = b"POST /v2/models/doubler/infer HTTP/1.1\r\nHost: localhost\r\n"
INFER = "/v2/models/doubler/infer"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_POLL_S", 0.05)
    monkeypatch.setattr(limits, "LINGER_S", 0.5)


@pytest.fixture(params=[":0", "unix"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    where = request.param if request.param != "unix" else f"unix:{tmp_path}/s"
    with in_process(where) as (found, _):
        yield found


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "[::2]:80", ""]
)
def test_a_web_page_whose_name_resolves_to_this_machine_gets_nothing_from_a_port(host: str, tmp_path: Path) -> None:
    with in_process(":0") as (client, _):
        answer = client.ask("GET", "/v2/models/doubler", headers={"Host": host})
        assert (answer.status, "localhost" in answer.error) == (421, True)
        two = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: " + host.encode() + b"\r\n\r\n"
        assert client.raw(two).startswith(b"HTTP/1.1 421 ")
    with in_process(f"unix:{tmp_path}/s") as (client, _):
        assert client.ask("GET", "/v2", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.3.2.1", "[::1]:8080", "model.localhost", "localhost."]
)
def test_any_loopback_name_is_answered(host: str) -> None:
    with in_process(":0") as (client, _):
        assert client.ask("GET", "/v2", headers={"Host": host}).status == 200
        # A client of HTTP/1.0 names no host.
        assert client.raw(b"GET /v2 HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_health_and_metadata_are_as_the_protocol_says(client: Client) -> None:
    assert client.get("/v2").json["extensions"] == ["binary_tensor_data", "statistics"]
    assert client.get("/v2/").status == 200
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True, "live": True}
    for path in ("/v2/models/doubler", "/v2/models/doubler/versions/7", "/v2/models/doubl%65r?x=y"):
        assert client.get(path).json == {
            "name": "doubler",
            "versions": ["7"],
            "platform": "seed_onnxruntime",
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
                {"name": "n", "datatype": "INT64", "shape": []},
            ],
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [-1, 4]},
                {"name": "m", "datatype": "INT64", "shape": []},
            ],
        }
        ready = client.get(f"{path.partition('?')[0]}/ready")
        assert (ready.status, ready.json) == (200, {"name": "doubler", "ready": True})


def test_a_model_answers_in_json_and_in_bytes(client: Client) -> None:
    got = client.infer(REQUEST)
    assert got.status == 200
    assert got.json == {
        "model_name": "doubler",
        "model_version": "7",
        "id": "a",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [2.0] * 8},
            {"name": "m", "datatype": "INT64", "shape": [], "data": [4]},
        ],
    }
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    body, headers = binary([("x", x, "FP32"), ("n", np.array(3), "INT64")], parameters={"binary_data_output": True})
    got = client.infer(body, headers=headers)
    size = int(got.headers["inference-header-content-length"])
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.body[size:] == (2 * x).tobytes() + np.array(4).tobytes()
    assert client.ask("POST", "/v2/models/doubler/versions/7/infer", body, headers).body == got.body


def test_large_answers_come_whole_in_every_form(client: Client) -> None:
    x = np.arange(40_000, dtype=np.float32).reshape(-1, 4)
    inputs = [("x", x, "FP32"), ("n", np.array(3), "INT64")]
    for flag in (True, False):
        body, headers = binary(inputs, parameters={"binary_data_output": flag})
        got = client.infer(body, headers=headers)
        if flag:
            values = np.frombuffer(got.body[int(got.headers["inference-header-content-length"]) :][:-8], np.float32)
        else:
            assert got.headers["transfer-encoding"] == "chunked"
            values = np.array(got.json["outputs"][0]["data"])
        assert np.array_equal(values, 2 * x.reshape(-1))
    # A client of HTTP/1.0 knows no chunks.
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {INFER} HTTP/1.0\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode()
    got_head, _, got_body = client.raw(head + body).partition(b"\r\n\r\n")
    assert b"chunked" not in got_head
    assert json.loads(got_body)["outputs"][0]["data"][:2] == [0, 2]


def test_a_connection_serves_many_requests_faults_among_them(client: Client) -> None:
    with contextlib.closing(client.connection()) as connection:
        link = connection.sock
        for _ in range(3):
            assert client.infer(REQUEST, connection=connection).status == 200
            assert client.infer(b"nonsense", connection=connection).status == 400
            assert client.infer({"inputs": []}, connection=connection).status == 400
            assert client.ask("GET", "/v2/nothing", connection=connection).status == 404
            assert client.ask("GET", INFER, connection=connection).status == 405
        assert connection.sock is link


def test_requests_that_come_in_one_packet_are_answered_in_turn(client: Client) -> None:
    text = client.raw(2 * b"GET /v2/health/live HTTP/1.1\r\n\r\n" + b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert text.count(b"HTTP/1.1 200 OK") == 3


def test_an_unexpected_body_ends_the_connection_after_the_answer(client: Client) -> None:
    text = client.raw(b"GET /v2/health/live HTTP/1.1\r\nContent-Length: 30\r\n\r\nGET /v2 HTTP/1.1\r\n\r\n", end=True)
    assert text.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in text
    assert text.endswith(b'{"live": true}')


def test_a_client_that_expects_100_continue_gets_it(client: Client) -> None:
    body = json.dumps(REQUEST).encode()
    with client.socket() as link:
        link.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
        assert link.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.sendall(body)
        assert link.recv(100).startswith(b"HTTP/1.1 200 OK")
    text = client.raw(HEAD + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n")
    assert text.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status", "reported"),
    [
        ("GET", "/", 404, "see GET /v2"),
        ("GET", "/v1/models/doubler", 404, "see GET /v2"),
        ("GET", "/v2/models", 404, "see GET /v2"),
        ("GET", "/v2/models/other", 404, "'other' is not served here; 'doubler', version 7, is"),
        ("GET", "/v2/models/doubler/versions/8", 404, "version 8"),
        ("GET", "/v2/models/doubler/versions", 404, "there is no"),
        ("GET", "/v2/models/doubler/other", 404, "there is no"),
        ("GET", "/v2/models/..%2f..%2fetc/ready", 404, "not served here"),
        ("GET", INFER, 405, "use POST"),
        ("PUT", INFER, 405, "use POST"),
        ("POST", "/v2", 405, "use GET"),
        ("DELETE", "/v2/models/doubler", 405, "use GET"),
        ("BREW", "/v2/health/live", 405, "use GET"),
    ],
)
def test_an_unknown_path_or_method_is_refused(
    client: Client, method: str, path: str, status: int, reported: str
) -> None:
    got = client.ask(method, path)
    assert (got.status, reported in got.error) == (status, True), got.body
    assert ("allow" in got.headers) == (status == 405)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"GET /v2 HTTP/9.9\r\n\r\n", 400),
        (b"GET /v2 HTTP/x\r\n\r\n", 400),
        (b"GET /v2\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"b" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (HEAD + b"\r\n", 411),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 411),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: -2\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 0x2\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: \xb2\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 1048577\r\n\r\n{}", 413),
        (HEAD + b"Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nContent-Encoding: br\r\n\r\n{}", 415),
        (HEAD + b"Content-Length: 2\r\nContent-Type: text/plain\r\n\r\n{}", 415),
        (HEAD + b"Content-Length: 2\r\nOrigin: http://example.org\r\n\r\n{}", 403),
        (HEAD + b"Content-Length: 2\r\nInference-Header-Content-Length: 3\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nInference-Header-Content-Length: x\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\n\r\n{", 400),
        (HEAD + b"Content-Length: 0\r\n\r\n", 400),
    ],
)
def test_a_malformed_head_is_refused_and_serving_goes_on(client: Client, head: bytes, status: int) -> None:
    text = client.raw(head, end=True)
    assert text.startswith(b"HTTP/1.1 %d " % status), text
    assert list(json.loads(text.partition(b"\r\n\r\n")[2])) == ["error"]
    assert client.infer(REQUEST).status == 200


def test_no_bytes_at_all_are_a_server_fault(client: Client, rng: np.random.Generator) -> None:
    valid = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(json.dumps(REQUEST)), json.dumps(REQUEST).encode())
    for _ in range(60):
        data = bytearray(valid)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        text = client.raw(bytes(data), end=True)
        assert text == b"" or text[9:10] in (b"2", b"4"), (bytes(data), text)
    assert client.infer(REQUEST).status == 200


def test_a_client_that_sends_too_much_still_reads_why(client: Client) -> None:
    for _ in range(3):
        got = client.ask("POST", INFER, bytes(3 << 20))
        assert (got.status, "at most 1,048,576 are read" in got.error) == (413, True)


@pytest.mark.parametrize("sent", [b"GET /v2", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"])
def test_a_slow_client_is_dropped(client: Client, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 0.3)
    monkeypatch.setattr(limits, "BODY_S", 0.3)
    with client.socket() as link:
        link.sendall(sent)
        start = time.monotonic()
        with contextlib.suppress(OSError):
            # A byte at a time: the limit is for the whole.
            while time.monotonic() < start + SOON_S and not _readable(link, 0.05):
                link.sendall(b"x" if sent.endswith(b"{") else b"A")
        assert time.monotonic() < start + SOON_S
        assert link.recv(100).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_without_an_answer(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDLE_S", 0.2)
    assert client.raw(b"") == b""


def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "ANSWER_S", 0.3)
    x = np.ones((1 << 18, 4), np.float32)
    body, headers = binary([("x", x, "FP32"), ("n", np.array(3), "INT64")])
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    with in_process(f"unix:{tmp_path}/s", body_max=8 << 20) as (client, _), client.socket() as link:
        link.sendall(HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert client.infer(REQUEST).status == 200


def test_bodies_wait_for_memory_and_then_get_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAIT_S", 0.2)
    with in_process(f"unix:{tmp_path}/s") as (client, found):
        found.bodies.release(-(2 << 20))
        got = client.infer(REQUEST)
        found.bodies.release(2 << 20)
        assert (got.status, got.headers["retry-after"]) == (503, "1")
        assert client.infer(REQUEST).status == 200


def test_the_model_runs_for_one_request_at_a_time(tmp_path: Path) -> None:
    running, most = 0, 0

    def run(feeds: Feeds) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1
        return {"y": feeds["x"], "m": feeds["n"]}

    model = doubler()
    model = ServedModel(model.name, model.version, model.inputs, model.outputs, run)
    with in_process(f"unix:{tmp_path}/s", model) as (client, _):
        threads = [threading.Thread(target=client.infer, args=(REQUEST,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 1


def test_an_input_beyond_the_plan_is_413_and_a_fault_of_ours_500(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    problem: Exception = MemoryBudgetError("this input", 9 << 20, 8 << 20)

    def run(feeds: Feeds) -> dict[str, Any]:
        raise problem

    model = ServedModel("doubler", "7", (TensorSpec("x", "float32", ()),), (), run)
    request = {"inputs": [tensor("x", np.array(1.0), "FP32")]}
    with in_process(f"unix:{tmp_path}/s", model) as (client, _):
        got = client.infer(request)
        assert (got.status, "needs 9 MiB" in got.error) == (413, True)
        problem = RuntimeError("secret\nplace")
        got = client.infer(request)
        assert (got.status, got.error) == (500, "internal error: RuntimeError")
    assert capfd.readouterr().err == "seed-run: RuntimeError: secret place\n"


def test_a_server_that_ends_lets_running_requests_finish(tmp_path: Path) -> None:
    begun = threading.Event()

    def run(feeds: Feeds) -> dict[str, Any]:
        begun.set()
        time.sleep(0.3)
        return {"y": feeds["x"], "m": feeds["n"]}

    model = doubler()
    model = ServedModel(model.name, model.version, model.inputs, model.outputs, run)
    answers = []
    with in_process(f"unix:{tmp_path}/s", model) as (client, _):
        idle = client.connection()
        client.ask("GET", "/v2/health/live", connection=idle)
        thread = threading.Thread(target=lambda: answers.append(client.infer(REQUEST)))
        thread.start()
        assert begun.wait(20)
        start = time.monotonic()
    assert time.monotonic() < start + SOON_S
    thread.join(20)
    idle.close()
    (got,) = answers
    assert (got.status, got.headers["connection"]) == (200, "close")
    assert not (tmp_path / "s").exists()


def test_nothing_waits_for_a_server_that_was_never_entered(tmp_path: Path) -> None:
    with (
        listen(Address(path=str(tmp_path / "s"))) as (listener, _),
        Server(doubler(), listener, body_max=1, bodies_max=1),
    ):
        pass


def _readable(link: socket.socket, seconds: float) -> bool:
    link.settimeout(seconds)
    try:
        link.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    finally:
        link.settimeout(20)
    return True
