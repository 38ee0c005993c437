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
