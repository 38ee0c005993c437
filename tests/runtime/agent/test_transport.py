"""While an operation is carried out, the client gets a line at least every few seconds."""

from __future__ import annotations

import io
import json
import os
import threading
from typing import Any

import pytest

from seed_runtime.agent import operations as agents
from seed_runtime.agent.protocol import transport
from seed_runtime.errors import UsageError


class Listener(io.BytesIO):
    """Collects an agent's lines. The third line with progress sets `heard`."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()

    def write(self, data: Any) -> int:
        size = super().write(data)
        if self.getvalue().count(b'"progress"') == 3:
            self.heard.set()
        return size

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()][1:]


def serve(listener: Listener) -> None:
    """Let an agent in this process answer one request."""
    source, sink = os.pipe()
    os.write(sink, b'{"op": "status"}\n')
    os.close(sink)
    agents.Agent(transport.Transport(source, listener)).serve()
    os.close(source)


def test_a_line_is_repeated_until_the_answer_while_an_operation_has_no_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = Listener()
    monkeypatch.setattr(transport, "BEAT_S", 0.01)
    monkeypatch.setattr(agents.Agent, "status", lambda self, name: {"heard": listener.heard.wait(30)})
    serve(listener)
    *beats, answer = listener.lines()
    assert answer == {"ok": True, "heard": True}
    assert len(beats) >= 3
    assert all(beat == {"progress": ["status", 0, 0]} for beat in beats)


def test_nothing_is_repeated_for_an_operation_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    monkeypatch.setattr(transport, "BEAT_S", 0.01)
    monkeypatch.setattr(transport, "STUCK_S", 0.0)
    monkeypatch.setattr(agents.Agent, "status", lambda self, name: {"heard": listener.heard.wait(0.2)})
    serve(listener)
    assert listener.lines() == [{"ok": True, "heard": False}]


def test_a_request_that_comes_meanwhile_is_read_without_waiting() -> None:
    source, sink = os.pipe()
    polled = transport.Transport(source, io.BytesIO())
    assert polled.poll() is None
    os.write(sink, b'{"op": ')
    assert polled.poll() is None
    os.write(sink, b'"stop"}\n{"op": "next"}\n')
    assert polled.poll() == {"op": "stop"}
    assert polled.receive(lambda: None) == {"op": "next"}
    os.write(sink, b"?\n")
    with pytest.raises(UsageError):
        polled.poll()
    os.write(sink, b"half")
    os.close(sink)
    for _ in range(2):
        with pytest.raises(transport.ClientGone):
            polled.poll()
    os.close(source)


def test_a_line_that_comes_meanwhile_and_is_too_long_ends_the_connection() -> None:
    source, sink = os.pipe()
    polled = transport.Transport(source, io.BytesIO())
    sender = threading.Thread(target=os.write, args=(sink, bytes(transport.LINE_MAX + (1 << 17))), daemon=True)
    sender.start()

    def poll_on() -> None:
        while True:
            polled.poll()

    with pytest.raises(transport.ClientGone):
        poll_on()
    os.close(source)
    sender.join(10)
    os.close(sink)
