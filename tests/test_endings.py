"""The three commands end alike: at a full disk, a closed pipe, a signal, an error."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import click
import pytest

from seed_runtime.cli import entrypoint
from seed_runtime.errors import InputError, UsageError
from tests.devices.support.seeds import EXAMPLE

COMMANDS = {
    "seed-run": ["seed_runtime.cli", str(EXAMPLE), "--inspect"],
    "seed-export": ["seed_exporter.cli", "--help"],
    "seed-deploy": ["seed_devices.cli", "--help"],
}
every_command = pytest.mark.parametrize("name", COMMANDS)


NAMES = {"seed_runtime.cli": "seed-run", "seed_exporter.cli": "seed-export", "seed_devices.cli": "seed-deploy"}
PRINTING = [
    *(["seed_runtime.cli", str(EXAMPLE), *words] for words in (["--inspect"], ["--inspect", "--json"])),
    *(["seed_runtime.cli", str(EXAMPLE), *words] for words in (["--verify", "--json"], ["--bench", "--runs", "1"])),
    *([f"{name}.cli", "--help"] for name in ("seed_runtime", "seed_exporter", "seed_devices")),
    *([f"{name}.cli", "--version"] for name in ("seed_runtime", "seed_exporter", "seed_devices")),
    ["seed_devices.cli", "push", "--help"],
]
"""Commands that print a page, a line or an object."""
buffered_or_not = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


def environment(unbuffered: str) -> dict[str, str]:
    """Environment of a command whose stdout fails at its end, or at each print where it is unbuffered."""
    return os.environ | {"PYTHONUNBUFFERED": unbuffered}


@buffered_or_not
@pytest.mark.parametrize(
    "command", PRINTING, ids=lambda command: "-".join([command[0], *command[-2:]]).replace("/", "")
)
def test_a_disk_of_this_machine_that_is_full_is_13_and_one_line(command: list[str], unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=environment(unbuffered),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 13, done.stderr
    *notes, line = done.stderr.splitlines()
    assert line.startswith(f"{NAMES[command[0]]}: ")
    assert "this machine: No space left on device; free some" in line
    assert not notes


@buffered_or_not
@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["no.seed", "--inspect"], 2), ([str(EXAMPLE), "--runs", "2"], 2)]
)
def test_messages_that_nobody_can_read_leave_the_code_as_it_is(words: list[str], code: int, unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "seed_runtime.cli", *words]
        done = subprocess.run(command, env=environment(unbuffered), stdout=subprocess.DEVNULL, stderr=full)
    assert done.returncode == code


@every_command
def test_a_closed_pipe_ends_it_quietly_by_sigpipe(name: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", *COMMANDS[name]], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("x is missing;\n give it"), 3, "x is missing; give it"),
        (OSError(errno.ENOSPC, "full", "/x"), 13, "/x: full; free some space, or write elsewhere"),
        (OSError(errno.EDQUOT, "full", "/x"), 13, "/x: full; free some space, or write elsewhere"),
        (PermissionError(errno.EACCES, "denied", "/x"), 2, "/x: denied; give another path, or change its permissions"),
        (OSError(errno.EIO, "broken", "/x"), 1, "/x: broken"),
        (MemoryError(), 14, "no memory left"),
        (KeyError("k"), 1, "internal error: KeyError: 'k'; run it again with SEED_DEBUG=1 and report the traceback"),
    ],
)
def test_an_error_has_one_code_and_one_line_in_every_command(error: Exception, code: int, text: str) -> None:
    found, line = entrypoint.explain(error)
    assert (found, line.count("\n")) == (code, 0)
    assert text in line


def stopped_by(number: int) -> int:
    os.kill(os.getpid(), number)
    time.sleep(30)
    return 0


@pytest.mark.parametrize(
    ("number", "code", "printed"),
    [(signal.SIGINT, 130, "c: stopped\n"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")],
)
def test_a_signal_has_its_code_even_if_the_work_raises_something_else(
    number: int, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def hides_the_signal() -> int:
        try:
            return stopped_by(number)
        except BaseException:
            raise ImportError("half of a module") from None

    before = signal.getsignal(number)
    for work in (lambda: stopped_by(number), hides_the_signal):
        assert entrypoint.run("c", work, interrupted="stopped") == code
        assert capsys.readouterr().err == printed
        assert signal.getsignal(number) is before


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[], int]:
    def call() -> int:
        raise error from cause

    return call


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["seed_exporter.cli", "--zzyzx"], "seed-export: No such option '--zzyzx'; see: seed-export --help\n"),
        (["seed_exporter.cli"], "seed-export: Missing argument 'MODEL'; see: seed-export --help\n"),
        (["seed_devices.cli", "push"], "seed-deploy: Missing argument 'MODEL.seed'; see: seed-deploy push --help\n"),
        (["seed_devices.cli", "nope"], "seed-deploy: No such command 'nope'; see: seed-deploy --help\n"),
    ],
)
def test_a_mistake_on_the_command_line_gets_one_line(words: list[str], printed: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.replace("No such option: --zzyzx", "No such option '--zzyzx'") == printed  # before click 8.3


def test_a_group_alone_shows_its_help() -> None:
    done = subprocess.run([sys.executable, "-m", "seed_devices.cli"], capture_output=True, text=True)
    assert "Commands:" in done.stdout + done.stderr


def test_what_click_raises_is_made_into_what_ends_the_others() -> None:
    with pytest.raises(UsageError, match="no such thing"):
        entrypoint.run_click(click, raising(click.UsageError("no such thing.")))
    with pytest.raises(KeyboardInterrupt):
        entrypoint.run_click(click, raising(click.Abort(), KeyboardInterrupt()))
    with pytest.raises(EOFError):
        entrypoint.run_click(click, raising(click.Abort(), EOFError()))
    with pytest.raises(BrokenPipeError):
        entrypoint.run_click(click, raising(SystemExit(1)))
    with pytest.raises(SystemExit):
        entrypoint.run_click(click, raising(SystemExit(0)))
    assert [entrypoint.run_click(click, lambda code=code: code) for code in (None, 0, 30)] == [0, 0, 30]


def test_a_library_that_is_interrupted_ends_as_by_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    assert entrypoint.run("c", raising(KeyboardInterrupt()), interrupted="stopped") == 130
    assert capsys.readouterr().err == "c: stopped\n"
