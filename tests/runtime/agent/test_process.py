"""The agent as a process: its connection, its locks, how it ends, and operations by hand."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seed_runtime.agent import operations as agents
from seed_runtime.agent.protocol import schema, transport
from seed_runtime.agent.store.store import Store
from tests.runtime.agent.support.device_agent import (
    NAME,
    LocalAgent,
    agent,
    digest_of,
    push,
    refused,
    running,
    seed,
)
from tests.support.project import run_checked
from tests.support.unbounded_loop import unbounded_loop_seed

ONE, TWO = (digest_of(seed(version)) for version in (1, 2))


def test_it_answers_without_numpy_until_a_seed_is_read() -> None:
    script = (
        "import sys, io, json\n"
        "from seed_runtime.agent.operations import Agent\n"
        "from seed_runtime.agent.protocol.transport import Transport\n"
        "from seed_runtime.agent import __main__\n"
        "agent = Agent(Transport(0, io.BytesIO()))\n"
        "for request in json.loads(sys.argv[1]): assert agent.answer(request)['ok'], request\n"
        "print(*sorted(name for name in sys.modules if '.' not in name))"
    )
    requests = [
        {"op": "facts"},
        {"op": "begin", "name": "a", "digest": ONE, "file_size": 10},
        {"op": "status"},
        {"op": "release"},
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(requests)], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "onnxruntime", "asyncio", "http", "typing_extensions"} & set(done.stdout.split())


def test_two_pushes_to_one_model_take_turns() -> None:
    with agent() as first, agent() as second:
        first.begin(seed(1))
        line = refused(lambda: second.begin(seed(2), wait_s=0.2), 2)
        assert line == (
            f"another push to {NAME} is under way on {socket.gethostname()}; wait for it, or run this again"
        )
        second.begin(seed(2), "other")
        assert first.end() == 0
        second.begin(seed(2), wait_s=5)
        second.call("release")
        assert first.process.returncode == 0


@pytest.mark.parametrize("end", ["eof", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_the_lock_is_free_however_the_agent_ends(local: LocalAgent, end: str) -> None:
    with agent() as client:
        client.begin(seed())
        if end == "eof":
            assert client.end() == 0
        else:
            client.process.send_signal(signal.Signals[end])
            assert client.process.wait(10) in (-9, 143, 129)
    assert local.begin(seed())["state"] == "partial"


def test_a_client_that_stops_reading_ends_the_agent(local: LocalAgent) -> None:
    with agent() as client:
        client.begin(seed())
        assert client.process.stdout is not None
        client.process.stdout.close()
        client.write(b'{"op": "status"}\n')
        assert client.process.wait(10) == 0
    assert local.begin(seed())["state"] == "partial"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["the client leaves", "SIGTERM"])
def test_a_model_that_never_ends_does_not_block_the_device(local: LocalAgent, end: str) -> None:
    data = unbounded_loop_seed()
    with agent() as client:
        client.send(data)
        client.write(json.dumps({"op": "install", "name": NAME, "digest": digest_of(data)}).encode() + b"\n")
        assert client.process.stdout is not None
        # Said once before the model runs, then about once a second while it does.
        for _ in range(3):
            while b'["golden", 0, 1]' not in client.process.stdout.readline():
                pass
        if end == "SIGTERM":
            client.process.terminate()
        else:
            client.process.stdout.close()
        assert client.process.wait(30) == (143 if end == "SIGTERM" else 0)
    assert local.begin(data)["state"] == "partial"


def test_a_stalled_push_ends_for_one_that_waits(local: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = local.begin(seed())
    model = Store().model(NAME)
    local.agent._leave_if_stalled()
    moment = time.monotonic()
    monkeypatch.setattr(agents.time, "monotonic", lambda: moment + agents.STALL_S + 1)
    local.agent._leave_if_stalled()  # nobody waits
    model._mark_waiting()
    with pytest.raises(transport.ClientGone):
        local.agent._leave_if_stalled()
    Path(begun["path"]).write_bytes(b"more")
    local.agent._leave_if_stalled()  # it moves


def test_lines_that_are_not_requests_are_answered_and_a_long_one_ends_the_agent() -> None:
    with agent() as client:
        for line in (b"\n", b"[]\n", b"nonsense\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"):
            client.write(line)
            assert "one JSON object on a line" in refused(client.answer, 2)
        client.write(b'{"op": "status"}\n{"op": "status"}\n')
        assert client.answer()["models"] == client.answer()["models"] == []
        client.write(b" " * (transport.LINE_MAX + 2))
        assert "longer than" in refused(client.answer, 2)
        assert client.process.wait(10) == 0


def test_a_cut_request_is_not_carried_out(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    with agent() as client:
        client.write(json.dumps({"op": "rollback", "name": NAME}).encode())
        assert client.end() == 0
    assert running() == TWO


# By hand


def by_hand(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "seed_runtime.agent", *arguments], capture_output=True, text=True)


def test_an_operation_by_hand_prints_its_answer(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    done = by_hand("status", f"name={NAME}")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["models"][0]["current"] == TWO
    assert json.loads(by_hand("rollback", f"name={NAME}", f"to={ONE[:8]}").stdout)["current"] == ONE
    assert running() == ONE


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["rollback", "name=tiny"], 2, "there is no model tiny"),
        (["begin"], 2, "can't be done by hand; choose from: facts, status"),
        (["status", "nam=x"], 2, "is not FIELD=VALUE of status; see: "),
        (["status", "name"], 2, "is not FIELD=VALUE of status; see: "),
        (["log", "name=x", "lines=many"], 2, 'lines is "many"; give 1 to 1000'),
    ],
)
def test_a_mistake_by_hand_gives_one_line(arguments: list[str], code: int, line: str) -> None:
    done = by_hand(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert line in done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_operations_with_an_example(flag: str) -> None:
    done = by_hand(flag)
    assert done.returncode == 0
    assert "example: python -m seed_runtime.agent status" in done.stdout
    within_a_connection = ("begin", "install", "release", "begin_tuning", "tune", "stop")
    assert all(op in done.stdout for op in schema.OPERATIONS if op not in within_a_connection)
    assert by_hand().returncode == 2


def test_a_stored_seed_is_recognized_without_numpy() -> None:
    script = "import sys; from seed_runtime.agent.store import partial; print('numpy' in sys.modules)"
    assert run_checked([sys.executable, "-I", "-c", script]).strip() == "False"
