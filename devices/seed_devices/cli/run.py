"""`seed-deploy run`: seed-run on the device, with its input and output here.

What it prints goes to stdout unchanged, to the last byte. Its stderr is made plain where this one is a terminal.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from seed_devices.cli import options
from seed_devices.cli.fleet_request import model_name
from seed_devices.fleet.parallel import open_connection
from seed_devices.fleet.target import parse
from seed_devices.remote import seed_run
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection
from seed_devices.terminal_text import plain
from seed_runtime.errors import InputError
from seed_runtime.system.files import atomic_write

_EPILOG = """\b
Examples:
  seed-deploy run pi@porch --input x.npz --output y.npz
  seed-deploy run pi@porch:doorbell --input - --output - < x.npz > y.npz
  seed-deploy run pi@porch:doorbell --verify --json
  seed-deploy run pi@porch:doorbell --bench --max-memory 64MB
\b
Other options are passed on to seed-run on the device; its exit code is this command's.
"""

_LINE_MAX = 1 << 16
"""Largest part of a line of stderr that is printed at once, in characters."""


@click.command(epilog=_EPILOG, context_settings={**options.SETTINGS, "ignore_unknown_options": True})
@click.argument("host", metavar="[USER@]HOST[:NAME]")
@click.option("--input", "source", metavar="FILE", help="The input: x.npz on this machine, or - for stdin.")
@click.option("--output", "sink", metavar="FILE", help="The outputs: y.npz on this machine, or - for stdout.")
@options.reach
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="[SEED-RUN OPTIONS]...")
def run(
    host: str, source: str | None, sink: str | None, config: Path | None, accept_new: bool, rest: tuple[str, ...]
) -> int:
    """Run the model on a device, with the input and the output on this machine."""
    target = parse(host)
    words = [*rest, *(["--input", "-"] if source is not None else []), *(["--output", "-"] if sink is not None else [])]
    with contextlib.ExitStack() as stack:
        given = _open_input(source, stack)
        connection = stack.enter_context(open_connection(target, options.access(config, accept_new)))
        name = target.name
        if name is None:
            with AgentClient(connection) as agent:
                name = model_name(agent, target)
        words = [name, *words]
        if sink is None or sink == "-":
            sys.stdout.flush()
            return _run_remotely(connection, words, given, sys.stdout.buffer)
        try:
            with atomic_write(sink) as file:
                if code := _run_remotely(connection, words, given, file):
                    raise _FailedError(code)
        except _FailedError as failed:
            return failed.code
    return 0


class _FailedError(Exception):
    """The command on the device failed: what it wrote must not replace a file."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _open_input(source: str | None, stack: contextlib.ExitStack) -> IO[bytes] | int:
    if source is None:
        return subprocess.DEVNULL
    if source == "-":
        return sys.stdin.fileno()
    try:
        return stack.enter_context(Path(source).open("rb"))
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}; give another file with --input") from None


@contextlib.contextmanager
def _plain_stderr() -> Iterator[int | None]:
    """Return a pipe whose lines are made plain and printed to stderr; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    source, sink = os.pipe()
    thread = threading.Thread(target=_print_plain, args=(source,), daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        os.close(sink)
        thread.join(processes.STOP_S)


def _print_plain(source: int) -> None:
    with open(source, encoding="utf-8", errors="replace") as lines:
        while line := lines.readline(_LINE_MAX):
            print(plain(line.removesuffix("\n")), file=sys.stderr, flush=True)


def _run_remotely(connection: Connection, words: list[str], given: IO[bytes] | int, out: IO[bytes]) -> int:
    with _plain_stderr() as stderr:
        process = connection.popen(seed_run.SCRIPT, *words, stdin=given, stderr=stderr)
        assert process.stdout is not None
        try:
            while data := process.stdout.read1():  # type: ignore[attr-defined]
                out.write(data)
                out.flush()
            code = process.wait()
        finally:
            processes.stop(process)
    if code == 255 or code < 0:
        raise connection.failure(process)
    return code
