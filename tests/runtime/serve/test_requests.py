"""Forms in which a request may come: gzip, HTTP/1.0, HEAD; and the sizes of bodies."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.serve import Server, limits, server
from tests.runtime.serve.support.serving import Client, binary, in_process, tensor, wait_for

REQUEST = {"inputs": [tensor("x", np.ones((2, 4), np.float32), "FP32"), tensor("n", np.array(3), "INT64")]}
BODY = json.dumps(REQUEST).encode()
HEAD = b"POST /v2/models/doubler/infer HTTP/1.1\r\nHost: localhost\r\n"
BODY_MAX = 1 << 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_POLL_S", 0.05)
    monkeypatch.setattr(limits, "LINGER_S", 0.5)


@pytest.fixture(params=[":0", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ":0" if request.param == ":0" else f"unix:{tmp_path}/s"


@pytest.fixture
def served(where: str) -> Iterator[tuple[Client, Server]]:
    with in_process(where, body_max=BODY_MAX) as found:
        yield found


@pytest.fixture
def client(served: tuple[Client, Server]) -> Client:
    return served[0]


def bomb(size: int) -> bytes:
    """gzip of so many zeros, made without holding them."""
    held = io.BytesIO()
    with gzip.GzipFile(fileobj=held, mode="wb", mtime=0) as stream:
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
    return held.getvalue()


# Compressed bodies


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)],
)
def test_a_compressed_request_is_answered_like_a_plain_one(
    client: Client, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    with contextlib.closing(client.connection()) as connection:
        for _ in range(3):
            packed = client.infer(compress(BODY), headers={"Content-Encoding": coding}, connection=connection)
            plain = client.infer(BODY, connection=connection)
            assert (packed.status, packed.body) == (200, plain.body)


def test_binary_tensors_may_be_compressed(client: Client, rng: np.random.Generator) -> None:
    x = rng.normal(size=(5000, 4)).astype(np.float32)
    body, headers = binary([("x", x, "FP32"), ("n", np.array(3), "INT64")], parameters={"binary_data_output": True})
    got = client.infer(gzip.compress(body), headers={**headers, "Content-Encoding": "gzip"})
    assert got.status == 200
    assert got.body == client.infer(body, headers=headers).body


def test_the_largest_body_may_be_compressed_and_one_byte_more_is_413(client: Client) -> None:
    for extra, status in ((0, 400), (1, 413)):
        got = client.infer(gzip.compress(bytes(BODY_MAX + extra)), headers={"Content-Encoding": "gzip"})
        assert got.status == status, got.body
    assert "content has more than 1,048,576 bytes" in got.error


def test_a_bomb_is_413_and_takes_no_memory(where: str) -> None:
    packed = bomb(64 << 20)
    assert len(packed) < BODY_MAX
    with in_process(where, body_max=BODY_MAX) as (client, found):
        client.infer(BODY)
        tracemalloc.start()
        try:
            got = client.infer(packed, headers={"Content-Encoding": "gzip"})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (got.status, "more than 1,048,576" in got.error) == (413, True)
        # The client's copy of the request, the largest body, buffers.
        assert peak < 2 * len(packed) + BODY_MAX + (1 << 20)
        wait_for(lambda: found.bodies._free == 2 * BODY_MAX)
        assert client.infer(REQUEST).status == 200


def test_memory_is_reserved_for_what_a_compressed_body_may_become_and_given_back_for_the_rest(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WAIT_S", 0.1)
    packed = gzip.compress(BODY)
    with in_process(where, body_max=BODY_MAX) as (client, found):
        could_be = min(BODY_MAX, 1032 * len(packed))
        found.bodies.release(-(2 * BODY_MAX - could_be + 1))
        assert client.infer(packed, headers={"Content-Encoding": "gzip"}).status == 503
        found.bodies.release(1)
        assert client.infer(packed, headers={"Content-Encoding": "gzip"}).status == 200
        wait_for(lambda: found.bodies._free == could_be)


@pytest.mark.parametrize(
    ("packed", "reported"),
    [
        (gzip.compress(BODY)[:-1], "is cut"),
        (gzip.compress(BODY)[:20], "is cut"),
        (b"", "is cut"),
        (gzip.compress(BODY) + b"x", "bytes stand behind"),
        (gzip.compress(BODY) + gzip.compress(BODY), "bytes stand behind"),
        (BODY, "can't be decompressed"),
        (gzip.compress(BODY)[:-8] + bytes(8), "can't be decompressed"),
        (gzip.compress(b"nonsense"), "not JSON"),
    ],
    ids=["last byte", "most of it", "empty", "a byte more", "two members", "not packed", "wrong sum", "not JSON"],
)
def test_damaged_compressed_bodies_are_400(client: Client, packed: bytes, reported: str) -> None:
    got = client.infer(packed, headers={"Content-Encoding": "gzip"})
    assert (got.status, reported in got.error) == (400, True), got.body
    assert client.infer(REQUEST).status == 200


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_codings_are_415(client: Client, coding: str) -> None:
    got = client.infer(BODY, headers={"Content-Encoding": coding})
    assert (got.status, "gzip" in got.error) == (415, True)


# Sizes


def test_the_largest_body_is_read_and_a_larger_one_is_413(client: Client) -> None:
    padded = BODY[:-1] + b" " * (BODY_MAX - len(BODY)) + b"}"
    assert client.infer(padded).status == 400  # it is too long beside its numbers
    got = client.infer(padded + b" ")
    assert (got.status, "has 1,048,577 bytes, and at most 1,048,576 are read" in got.error) == (
        413,
        True,
    )
    assert client.infer(REQUEST).status == 200


def test_a_size_that_is_only_announced_costs_no_memory(tmp_path: Path) -> None:
    resident = [0, 0]
    with in_process(f"unix:{tmp_path}/s", body_max=256 << 20) as (client, found), contextlib.ExitStack() as stack:
        for index in range(2):
            text = client.get("/metrics").body.decode()
            (line,) = (line for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
            resident[index] = int(line.split()[1])
            link = stack.enter_context(client.socket())
            link.sendall(HEAD + b"Content-Length: %d\r\n\r\n{" % (200 << 20))
            wait_for(lambda: any(found.readers.values()))
    assert resident[1] - resident[0] < 8 << 20


def test_chunked_requests_are_411_and_end_the_connection(client: Client) -> None:
    text = client.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + HEAD + b"\r\n")
    assert text.startswith(b"HTTP/1.1 411 ")
    assert text.count(b"HTTP/1.1 ") == 1
    assert b"send Content-Length, not Transfer-Encoding" in text


# Versions and methods of HTTP


def test_http_1_0_clients_are_answered_and_keep_the_connection_if_they_ask(where: str) -> None:
    post = b"POST /v2/models/doubler/infer HTTP/1.0\r\nContent-Length: %d\r\n" % len(BODY)
    with in_process(where) as (client, _):
        text = client.raw(post + b"\r\n" + BODY)
        assert text.startswith(b"HTTP/1.1 200 OK")
        assert b"\r\nConnection: close\r\n" in text
        both = client.raw(post + b"Connection: keep-alive\r\n\r\n" + BODY + post + b"\r\n" + BODY)
        assert both.count(b"HTTP/1.1 200 OK") == 2
        assert both.count(b"\r\nConnection: keep-alive\r\n") == 1
        assert client.raw(b"GET /v2/health/live HTTP/1.0\r\n\r\n").endswith(b'{"live": true}')


def test_head_is_get_without_a_body(where: str) -> None:
    with in_process(where) as (client, _):
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/doubler/ready", "/v2", "/v2/models/other"):
            head, get = client.ask("HEAD", path), client.get(path)
            assert (head.status, head.body) == (get.status, b"")
            assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))
        with contextlib.closing(http.client.HTTPConnection("localhost")) as connection:
            connection.sock = client.socket()
            for _ in range(3):
                assert client.ask("HEAD", "/v2/health/ready", connection=connection).status == 200
                assert client.get("/v2/health/ready").json["ready"]
        assert client.ask("HEAD", "/v2/models/doubler/infer").status == 405
