"""What a hostile client may send: floods, ambiguous requests, sizes that lie, paths that lead away."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.serve import Server, limits, server
from tests.runtime.serve.support.serving import SOON_S, Client, in_process, tensor, wait_for

REQUEST = {"inputs": [tensor("x", np.ones((1, 4), np.float32), "FP32"), tensor("n", np.array(3), "INT64")]}
BODY = json.dumps(REQUEST).encode()
HEAD = b"POST /v2/models/doubler/infer HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_POLL_S", 0.05)
    monkeypatch.setattr(limits, "LINGER_S", 0.5)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Client, Server]]:
    with in_process(f"unix:{tmp_path}/s") as found:
        yield found
        # No attack is a fault of the server, takes its memory for good, or ends it.
        client, at = found
        assert client.infer(REQUEST).status == 200
        assert not [code for _, code in at.metrics.errors if code == 500]
        wait_for(lambda: at.bodies._free == 2 << 20)


@pytest.fixture
def client(served: tuple[Client, Server]) -> Client:
    return served[0]


def entry(shape: str = "[1, 4]", data: str = "[1, 2, 3, 4]", more: str = "") -> str:
    return f'{{"name": "x", "shape": {shape}, "datatype": "FP32", "data": {data}{more}}}'


def body(first: str, more: str = "") -> bytes:
    rest = '{"name": "n", "shape": [], "datatype": "INT64", "data": [3]}'
    return f'{{"inputs": [{first}, {rest}]{more}}}'.encode()


@contextlib.contextmanager
def flood(client: Client, begin: bytes, piece: bytes) -> Iterator[threading.Thread]:
    """Send a piece again and again, as fast as the server takes it, and read whatever it answers.

    Yields the thread that sends, which ends with the connection.
    """
    with client.socket() as link:
        link.sendall(begin)

        def send() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link.sendall(piece)

        def receive() -> None:
            with contextlib.suppress(OSError):
                while link.recv(1 << 16):
                    pass

        threads = [threading.Thread(target=each, daemon=True) for each in (send, receive)]
        for thread in threads:
            thread.start()
        yield threads[0]
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(20)


# Time


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"", b"\r\n" * 5000),  # empty lines before a request
        (b"", HEALTH * 500),
        (HEAD + b"Content-Length: 99999999999\r\n\r\n", b"x" * 65536),  # the rest of a refused request
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"x" * 65536),
        (b"GET /v2 HTTP/1.1\r\nOrigin: http://evil.example\r\n\r\n", HEALTH * 500),
        (b"", (HEAD + LENGTH + b"\r\n" + BODY) * 100),
    ],
)
def test_a_client_that_sends_without_end_keeps_nobody_waiting(client: Client, begin: bytes, piece: bytes) -> None:
    with flood(client, begin, piece):
        for _ in range(3):
            start = time.monotonic()
            assert client.get("/v2/health/live").status == 200
            assert client.infer(REQUEST).status == 200
            assert time.monotonic() < start + SOON_S


@pytest.mark.parametrize(
    ("begin", "piece"), [(b"", b"\r\n" * 5000), (HEAD + b"Content-Length: 99999999999\r\n\r\n", b"x" * 65536)]
)
def test_deadlines_hold_for_a_client_that_sends_without_end(
    served: tuple[Client, Server], begin: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDLE_S", 0.3)
    client, found = served
    with flood(client, begin, piece) as sender:
        wait_for(lambda: not sender.is_alive())
        wait_for(lambda: found.connections + found._beside == 0)


def test_a_bomb_keeps_nobody_waiting(client: Client) -> None:
    packed = gzip.compress(bytes(1 << 20))
    with flood(client, b"", (HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)) + packed):
        start = time.monotonic()
        assert client.get("/v2/health/live").status == 200
        assert time.monotonic() < start + SOON_S


def test_a_large_size_that_is_announced_buys_no_time(
    served: tuple[Client, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.3)
    client, _ = served
    start = time.monotonic()
    text = client.raw(HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
    assert text.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() < start + SOON_S


def test_a_body_at_the_lowest_rate_is_read_to_its_end(
    served: tuple[Client, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.7)
    monkeypatch.setattr(limits, "BODY_RATE", 1)  # each byte gives a second
    client, found = served
    with client.socket() as link:
        link.sendall(HEAD + LENGTH + b"\r\n")
        wait_for(lambda: True in found.readers.values())
        link.sendall(BODY[:20])
        time.sleep(0.8)
        link.sendall(BODY[20:])
        assert link.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


# Requests that a proxy in front may read in another way


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n", 411),
        (HEAD + LENGTH + b"Transfer-Encoding: identity\r\n", 411),
        (HEAD + LENGTH + b"transfer-encoding: \tchunked\r\n", 411),
        (HEAD + b"Content-Length : %d\r\n" % len(BODY), 400),
        (HEAD + LENGTH + LENGTH, 400),
        (HEAD + b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)), 400),
        (HEAD + b"Content-Length: +%d\r\n" % len(BODY), 400),
        (HEAD + b"Content-Length: 1_0\r\n", 400),
        (HEAD + "Content-Length: ١\r\n".encode(), 400),
        (HEAD + LENGTH + b"X: a\r\n folded\r\n", 400),
        (HEAD + LENGTH + b"X: a\rb\r\n", 400),
        (HEAD + LENGTH + b"X: a\0b\r\n", 400),
        (HEAD + LENGTH + b"X: a\nContent-Length: 0\r\n", 400),
        (HEAD + LENGTH + b": a\r\n", 400),
        (HEAD + LENGTH + b"no colon\r\n", 400),
        (HEAD + LENGTH + b"Content-Encoding: gzip\r\nContent-Encoding: identity\r\n", 400),
        (HEAD + LENGTH + b"Content-Type: application/json\r\nContent-Type: text/plain\r\n", 400),
        (HEAD + LENGTH + 2 * (b"Inference-Header-Content-Length: %d\r\n" % len(BODY)), 400),
        (b"POST  /v2/models/doubler/infer HTTP/1.1\r\n" + LENGTH, 400),
        (b"POST /v2/models/doubler/infer HTTP/1.1 \r\n" + LENGTH, 400),
        (b"POST\t/v2/models/doubler/infer\tHTTP/1.1\r\n" + LENGTH, 400),
        (b"POST http://localhost/v2/models/doubler/infer HTTP/1.1\r\n" + LENGTH, 404),
        (b"POST /v2/models/doubler/infer HTTP/2.0\r\n" + LENGTH, 400),
        (b"PRI * HTTP/2.0\r\n", 400),
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_answered(
    client: Client, head: bytes, status: int
) -> None:
    text = client.raw(head + b"\r\n" + BODY + HEALTH, end=True)
    assert text.startswith(b"HTTP/1.1 %d " % status), text
    assert text.count(b"HTTP/1.1 %d " % status) == 1
    assert b"HTTP/1.1 200" not in text
    assert b"Connection: close\r\n" in text


def test_an_upgrade_is_not_followed(client: Client) -> None:
    text = client.raw(b"GET /v2 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", end=True)
    assert text.startswith(b"HTTP/1.1 200 OK\r\n")


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/../models/doubler",
        "/v2/models/%2e%2e/%2e%2e/etc/passwd",
        "/v2/models/..%2f..%2fetc%2fpasswd/ready",
        "/v2/models/doubler/../../../etc/passwd",
        "/v2/models/doubler%00/ready",
        "/v2/models/%00",
        "/v2/models/%ff%fe/ready",
        "/v2/models/doubler%2fready",
        "/v2/models/%2564oubler",
        "/v2/models/doubler%",
        "/v2/models/doubler%zz",
        "/v2/models/doubler%0d%0aSet-Cookie:%20a",
        "/v2/models/doubler/versions/..",
        "/v2/models/doubler/versions/7%20",
        "/v2/models/" + "a" * 15_000,
        "/v2/models//stats",
        "/v2//health/live",
        "/metrics/../v2",
        "/metrics/etc/passwd",
    ],
)
def test_a_path_that_leads_elsewhere_is_404_and_writes_no_header(client: Client, path: str) -> None:
    text = client.raw(b"GET " + path.encode() + b" HTTP/1.1\r\nConnection: close\r\n\r\n")
    head, _, rest = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"Set-Cookie" not in head
    assert len(json.loads(rest)["error"]) < 300


# Values


@pytest.mark.parametrize(
    ("sent", "reported"),
    [
        (b"[" * 1_000_000, "too long"),
        (b'{"a":' * 100_000, "too long"),
        (b"[" * 60_000, "nested too deeply"),
        (body(entry(more=', "parameters": ' + "[" * 20_000 + "]" * 20_000)), "nested too deeply"),
        (body(entry(data="[" * 30_000 + "]" * 30_000)), "neither a flat list"),
        (body(entry(shape="[1e308, 4]")), "at most 8 integers"),
        (body(entry(shape="[2147483648, 4]")), "at most 8 integers"),
        (body(entry(shape=f"[{'9' * 4000}, 4]")), "at most 8 integers"),
        (body(entry(shape=f"[{'9' * 5000}, 4]")), "thousands of digits"),
        (body(entry(shape="[2147483647, 4]")), "neither a flat list"),
        (body(entry(shape="[-1, 4]")), "at most 8 integers"),
        (body(entry(shape="[-1, -4]")), "at most 8 integers"),
        (body(entry(shape="[1.0, 4]")), "at most 8 integers"),
        (body(entry(shape="[true, 4]")), "at most 8 integers"),
        (body(entry(shape="[" + "1," * 20_000 + "4]")), "at most 8 integers"),
        (body(entry(data="[NaN, 2, 3, 4]")), "NaN is not a number in JSON"),
        (body(entry(data="[-Infinity, 2, 3, 4]")), "Infinity is not a number in JSON"),
        (body(entry(data="[1e999, 2, 3, 4]")), "too large for float32"),
        (body(entry(data=f"[{'9' * 5000}, 2, 3, 4]")), "thousands of digits"),
        (body(entry(data=f"[{'9' * 70_000}, 2, 3, 4]")), "65,536 characters"),
        (body(entry(data="[0x1, 2, 3, 4]")), "not JSON"),
        (body(entry(data="[1_0, 2, 3, 4]")), "not JSON"),
        (body(entry(), ', "id": NaN'), "NaN is not a number in JSON"),
        (body(entry(), f', "id": "{"a" * 257}"'), "at most 256 characters"),
        (body(entry(), ', "id": -1'), "at most 256 characters"),
        (body(entry(), ', "outputs": -1'), "a list of objects"),
        (body(entry(), ', "inputs": []'), "a key is given twice"),
        (body(entry(more=', "data": [9, 9, 9, 9]')), "a key is given twice"),
        (body(entry(more=', "shape": [2, 4]')), "a key is given twice"),
        (body(entry(more=', "parameters": {"a": 1, "a": 2}')), "a key is given twice"),
        (body(entry(more=', "n\\u0061me": "n"')), "a key is given twice"),
        (BODY.decode().encode("utf-16"), "not JSON"),
        (b"\xef\xbb\xbf" + BODY, "not JSON"),
        (BODY.replace(b'"n"', b'"\xff"'), "not JSON"),
        (b'"' * 1_000_000, "too long"),
        (b'{"' + b"\\" * 1_000_000, "too long"),
    ],
)
def test_a_hostile_value_is_400_at_once(client: Client, sent: bytes, reported: str) -> None:
    start = time.monotonic()
    got = client.infer(sent)
    assert time.monotonic() < start + SOON_S
    assert (got.status, reported in got.error) == (400, True), got.body
    assert len(got.body) < 500


@pytest.mark.parametrize(
    "size", ["-16", "15", "17", "0", "16.0", "1e400", "true", "null", '"16"', "[16]", "9" * 30, "9" * 5000]
)
def test_a_size_of_binary_data_that_lies_is_400(client: Client, size: str) -> None:
    head = body(f'{{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {{"binary_data_size": {size}}}}}')
    got = client.infer(head + bytes(16), headers={"Inference-Header-Content-Length": str(len(head))})
    assert got.status == 400
    assert len(got.body) < 500


@pytest.mark.parametrize("size", ["-1", "0", "1", "+5", "1e2", "0x10", "10", "9" * 15, "9" * 30])
def test_a_size_of_json_that_lies_is_400(client: Client, size: str) -> None:
    got = client.infer(BODY, headers={"Inference-Header-Content-Length": size})
    assert got.status == 400
    assert client.infer(BODY, headers={"Inference-Header-Content-Length": str(len(BODY))}).status == 200


def test_an_id_cannot_break_the_answer(client: Client) -> None:
    for name in ("\r\nSet-Cookie: a", "\0", '"}', "\ud800", "\U0001f4a9"):
        got = client.infer(body(entry(), f', "id": {json.dumps(name)}'))
        assert got.json["id"] == name
        assert "set-cookie" not in got.headers
