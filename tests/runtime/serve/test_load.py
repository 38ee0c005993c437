"""A server that is full: what it still answers, what it refuses and how, whom it drops, and how it ends."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_runtime.backends import Feeds
from seed_runtime.serve import ServedModel, Server, limits, server
from tests.runtime.serve.support.serving import SOON_S, Answer, Client, doubler, in_process, tensor, wait_for

REQUEST = {"inputs": [tensor("x", np.ones((2, 4), np.float32), "FP32"), tensor("n", np.array(3), "INT64")]}
BODY = json.dumps(REQUEST).encode()
HEAD = b"POST /v2/models/doubler/infer HTTP/1.1\r\nHost: localhost\r\n"
SLOW = HEAD + b"Content-Length: 2000\r\n\r\n" + b'{"inputs": ['
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
MANY = 40
LONG_S = 10.0
"""A limit of time that doesn't end what a test waits for, however busy the machine is."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_POLL_S", 0.05)
    monkeypatch.setattr(limits, "ADMIT_S", 0.2)
    monkeypatch.setattr(limits, "PATIENCE_S", 0.1)
    monkeypatch.setattr(limits, "LINGER_S", 0.5)


@pytest.fixture(params=[":0", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ":0" if request.param == ":0" else f"unix:{tmp_path}/s"


class Gate:
    """A model that runs until it is let go."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Event()

    def model(self) -> ServedModel:
        made = doubler()

        def run(feeds: Feeds) -> dict[str, Any]:
            self.begun.set()
            assert self.open.wait(20)
            return {"y": feeds["x"], "m": feeds["n"]}

        return ServedModel(made.name, made.version, made.inputs, made.outputs, run)


@contextlib.contextmanager
def connections(client: Client, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(client.socket()) for _ in range(count)]
        for link in links:
            link.sendall(sent)
        yield links


def received(link: socket.socket) -> bytes:
    """Everything up to the end of the connection. A reset is an error."""
    parts = []
    while part := link.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def fill(found: Server, count: int) -> None:
    """Wait until so many requests have come whole: one whose body is on its way may be dropped for others."""
    wait_for(lambda: found.requests == count and not found.readers)


def ask_at_once(client: Client, count: int) -> tuple[list[threading.Thread], list[Answer]]:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(client.infer(REQUEST))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_health_and_inferences_are_answered_while_40_slow_bodies_hang(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_process(where) as (client, found), connections(client, MANY, SLOW):
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/doubler/ready", "/metrics", "/v2"):
            start = time.monotonic()
            assert client.get(path).status == 200
            assert time.monotonic() < start + SOON_S
        refused = found.metrics.errors
        wait_for(lambda: refused["infer", 503] + refused["infer", 408] >= MANY - limits.REQUESTS_MAX)
        wait_for(lambda: all(each.patience < time.monotonic() for each in list(found.readers)))
        # Those that were admitted have shown that they are slow: one goes for each request that has no place.
        monkeypatch.setattr(limits, "ADMIT_S", LONG_S)
        for _ in range(3):
            assert client.infer(REQUEST).status == 200
        assert client.get("/v2/health/ready").status == 200


def test_silent_bodies_that_hold_all_memory_give_it_to_others(where: str) -> None:
    announced = HEAD + b"Content-Length: %d\r\n\r\n" % (1 << 20)
    with in_process(where) as (client, found), connections(client, 2, announced):
        wait_for(lambda: found.bodies._free == 0)
        start = time.monotonic()
        assert client.infer(REQUEST).status == 200
        assert time.monotonic() < start + SOON_S


def test_slow_bodies_beyond_the_places_get_503_and_no_reset(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE_S", LONG_S)  # no place is given to others
    with in_process(where) as (client, _), connections(client, MANY, SLOW) as links:
        wait_for(lambda: len(select.select(links, [], [], 0)[0]) >= MANY - limits.REQUESTS_MAX)
        answered = [received(link) for link in select.select(links, [], [], 0)[0]]
        assert len(answered) == MANY - limits.REQUESTS_MAX
        for text in answered:
            head, _, body = text.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 1" in head
            assert b"\r\nConnection: close\r\n" in head
            assert json.loads(body) == {"error": "too many requests at once; try again"}


def test_requests_beyond_the_queue_get_503_while_the_model_is_busy_and_the_queue_is_served(where: str) -> None:
    gate = Gate()
    with in_process(where, gate.model()) as (client, found):
        threads, answers = ask_at_once(client, limits.REQUESTS_MAX)
        assert gate.begun.wait(20)
        fill(found, limits.REQUESTS_MAX)
        got = client.infer(REQUEST)
        assert (got.status, got.headers["retry-after"], got.headers["connection"]) == (503, "1", "close")
        assert "try again" in got.error
        assert client.get("/v2/health/live").status == 200
        gate.open.set()
        for thread in threads:
            thread.join()
        assert [each.status for each in answers] == [200] * limits.REQUESTS_MAX
        assert client.infer(REQUEST).status == 200


def test_a_refused_large_body_is_read_on_so_that_the_client_sees_503(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINGER_S", LONG_S)
    gate = Gate()
    with in_process(where, gate.model(), body_max=8 << 20) as (client, found):
        threads, _ = ask_at_once(client, limits.REQUESTS_MAX)
        fill(found, limits.REQUESTS_MAX)
        got = client.infer(bytes(6 << 20))
        assert (got.status, got.headers["retry-after"]) == (503, "1")
        gate.open.set()
        for thread in threads:
            thread.join()


def test_requests_behind_a_503_are_not_answered_and_the_next_connection_is(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUESTS_MAX", 1)
    gate = Gate()
    with in_process(where, gate.model()) as (client, found):
        threads, _ = ask_at_once(client, 1)
        fill(found, limits.REQUESTS_MAX)
        whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        text = client.raw(HEALTH + whole + HEALTH + whole)
        # The rest may be a body that a client sends without having read the refusal.
        assert text.count(b"HTTP/1.1 ") == 2
        assert text.startswith(b"HTTP/1.1 200 OK")
        assert b"HTTP/1.1 503 " in text
        gate.open.set()
        threads[0].join()
        with contextlib.closing(client.connection()) as connection:
            assert client.infer(REQUEST, connection=connection).status == 200
            assert client.infer(REQUEST, connection=connection).status == 200


def test_more_connections_than_can_be_served_get_503_and_no_reset(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(limits, "LINGER_S", LONG_S)
    gate = Gate()
    with in_process(where, gate.model()) as (client, found):
        threads, _ = ask_at_once(client, 4)
        fill(found, 4)
        for sent in (b"", HEALTH, SLOW):
            with connections(client, 8, sent) as links:
                for link in links:
                    text = received(link)
                    assert text.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                    assert b"\r\nRetry-After: 1" in text
                    assert b"too many connections" in text
        gate.open.set()
        for thread in threads:
            thread.join()
        assert client.get("/v2/health/live").status == 200


@pytest.mark.parametrize("sent", [b"", b"GET /v2/health", HEALTH])
def test_connections_that_send_no_whole_head_give_their_place_to_others(
    where: str, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 8)
    monkeypatch.setattr(limits, "ADMIT_S", LONG_S)
    with in_process(where) as (client, _), connections(client, 8, sent):
        for _ in range(12):
            assert client.get("/v2/health/live").status == 200


def test_a_request_that_comes_after_its_place_was_given_away_is_answered(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 1)
    monkeypatch.setattr(limits, "ADMIT_S", LONG_S)
    monkeypatch.setattr(limits, "LINGER_S", LONG_S)
    with in_process(where) as (client, found), connections(client, 1, b"") as (late,):
        wait_for(lambda: len(found.readers) == 1)
        assert client.get("/v2/health/live").status == 200
        late.sendall(HEALTH)
        assert received(late).startswith(b"HTTP/1.1 503 ")


def test_many_clients_at_once_all_get_an_answer(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_S", LONG_S)
    with in_process(where) as (client, _):
        threads, answers = ask_at_once(client, 100)
        for thread in threads:
            thread.join()
        assert {each.status for each in answers} <= {200, 503}
        assert len(answers) == 100
        assert sum(each.status == 200 for each in answers) >= limits.REQUESTS_MAX


def test_clients_that_leave_half_way_leave_nothing_behind(where: str) -> None:
    gate = Gate()
    gate.open.set()
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with in_process(where, gate.model()) as (client, found):
        for sent in (b"", b"GET", HEAD, SLOW, whole[:-1], whole, 3 * whole, HEALTH[:-1], 20 * HEALTH):
            for _ in range(5):
                with client.socket() as link:
                    link.sendall(sent)
                    if sent == whole:
                        # Closed with an answer that nobody reads, it is a reset.
                        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_for(lambda: found.connections == 0)
        assert (found.bodies._free, found.requests) == (2 << 20, 0)
        assert client.infer(REQUEST).status == 200


def test_a_slow_reader_of_a_large_answer_does_not_keep_health_waiting(where: str) -> None:
    x = np.ones((1 << 15, 4), np.float32)
    large = json.dumps({"inputs": [tensor("x", x, "FP32"), tensor("n", np.array(3), "INT64")]}).encode()
    with in_process(where, body_max=4 << 20) as (client, _), client.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large)
        for _ in range(3):
            assert client.get("/v2/health/ready").status == 200


def test_a_client_that_reads_nothing_of_many_answers_is_dropped(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_S", 0.3)
    with in_process(where) as (client, found), client.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(OSError):
            while True:  # until it is dropped, however slowly a busy machine fills what lies between
                link.sendall(200 * HEALTH)
        wait_for(lambda: found.connections == 0)
        assert client.get("/v2/health/live").status == 200


def test_the_end_does_not_wait_for_bodies_that_hang_and_their_clients_get_503(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENDING_S", 0.3)
    gate = Gate()
    with contextlib.ExitStack() as stack:
        with in_process(where, gate.model()) as (client, found):
            threads, answers = ask_at_once(client, 2)
            assert gate.begun.wait(20)
            links = stack.enter_context(connections(client, 5, SLOW))
            heads = stack.enter_context(connections(client, 5, b"GET /v2"))
            fresh = stack.enter_context(connections(client, 5, b""))
            idle = stack.enter_context(connections(client, 5, HEALTH))
            for link in idle:
                assert b"200 OK" in link.recv(1 << 16)
            wait_for(lambda: len(found.readers) == 20)
            gate.open.set()
            start = time.monotonic()
        assert time.monotonic() < start + SOON_S
        for link in [*links, *heads, *fresh]:
            text = received(link)
            assert text.startswith(b"HTTP/1.1 503 ")
            assert b"the server is ending" in text
        assert [received(link) for link in idle] == [b""] * 5
        for thread in threads:
            thread.join()
        assert [each.status for each in answers] == [200, 200]


def test_a_body_that_comes_in_time_is_answered_while_the_server_ends(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENDING_S", LONG_S)
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with contextlib.ExitStack() as stack:
        with in_process(where) as (client, found):
            (link,) = stack.enter_context(connections(client, 1, whole[:-10]))
            wait_for(lambda: len(found.readers) == 1)
            threading.Timer(0.2, link.sendall, (whole[-10:],)).start()
        text = received(link)
        assert text.startswith(b"HTTP/1.1 200 OK")
        assert b"\r\nConnection: close\r\n" in text


def test_a_run_that_hangs_ends_with_the_grace(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE_S", 0.3)
    gate = Gate()
    with contextlib.ExitStack() as stack:
        with in_process(where, gate.model()) as (client, _):
            link = stack.enter_context(connections(client, 1, HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY))
            assert gate.begun.wait(20)
            start = time.monotonic()
        assert time.monotonic() < start + SOON_S
        gate.open.set()
        assert received(link[0]) == b""


def test_connections_that_wait_in_the_kernel_are_answered_when_the_server_ends(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BESIDE_MAX", 0)  # none is accepted
    with contextlib.ExitStack() as stack:
        with in_process(where) as (client, _):
            links = stack.enter_context(connections(client, 5, HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY))
        for link in links:
            assert received(link).startswith(b"HTTP/1.1 200 OK\r\n")
