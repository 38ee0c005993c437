"""The host's end of the connection to the agent on the device (`python -m seed_runtime.agent agent`).

What the device answers is checked like any bytes from outside: lines have a limit, fields have types (`device_schema`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from seed_devices import names
from seed_devices.errors import RemoteError
from seed_devices.remote import device_schema
from seed_devices.ssh.connection import Connection
from seed_runtime.agent.protocol.schema import OPERATIONS
from seed_runtime.agent.protocol.transport import LINE_MAX, PROTOCOL
from seed_runtime.errors import SeedError, UnsupportedError

Progress = Callable[[str, int, int], None]
"""Progress callback: gets the name of a phase, the amount of it that is done, and its total."""
Detail = Callable[[dict[str, Any]], None]
"""Callback that gets what an operation says beside its progress."""

FIND_STORE: Final = (
    "case $SEED_HOME in /*) s=$SEED_HOME;; *) "
    "case $XDG_DATA_HOME in /*) s=$XDG_DATA_HOME/seed;; *) s=$HOME/.local/share/seed;; esac;; esac; "
)
"""Shell commands that set `$s` to the device's store, as seed_runtime.system.paths.store_home() finds it."""

_NO_RUNTIME: Final = "seed-no-runtime"
_HELLO: Final = b'{"agent"'
# Not `exec`: the shell reports when the agent was killed, and ssh by itself would only say that the session ended.
# Runtimes from before the agent was renamed know it as seed_runtime.device only; newer ones know that name as well.
_SCRIPT: Final = (
    f"{FIND_STORE}p=$s/runtime/current/bin/python; "
    'if [ -x "$p" ]; then m=seed_runtime.device; '
    'for f in "$s"/runtime/current/lib/python3*/site-packages/seed_runtime/agent/__main__.py; do '
    '[ -e "$f" ] && m=seed_runtime.agent; done; "$p" -P -m $m agent; exit $?; fi; '
    f"echo {_NO_RUNTIME}; exec cat >/dev/null"
)
_SIGKILL: Final = 137
"""The shell's exit status for a process that was killed."""
_PLACEHOLDER: Final = re.compile(r"(?<![\w-])HOST(?::([\w.-]*\w))?(?![\w-])")
"""What the device writes in place of its name as this host knows it, and of a model's name on it."""


class AgentClient:
    """The agent of one device. Close it before the connection: it releases its locks then. Not thread-safe.

    Args:
        connection: to the device; the agent is started on it.

    Raises:
        UnsupportedError: it speaks another version of the protocol.
        SeedError: of the connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.runtime: str | None = None
        """The version of the runtime, None where none is installed or none starts."""
        self.start_error = ""
        """Error with which the installed runtime fails to start; empty where there is none."""
        self._process: subprocess.Popen[bytes] = connection.popen(_SCRIPT)
        line = connection.first_line(self._process, (_HELLO, _NO_RUNTIME.encode()), LINE_MAX + 1)
        if line is None:
            code = self._process.wait()
            if code == 255 or code < 0:
                raise connection.failure(self._process)
            lines = connection.stderr_of(self._process).strip().splitlines()
            self.start_error = lines[-1].strip() if lines else f"it ends at once with {code}"
        elif line.startswith(_HELLO):
            self._read_hello(line)

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the agent."""
        self._connection.end(self._process)

    def call(
        self, op: str, progress: Progress | None = None, detail: Detail | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Send one request and return the answer, with its fields checked.

        However long an operation takes, the agent reports all along.

        Args:
            op: the operation.
            progress: called with the progress that the agent reports.
            detail: called before that with what the operation says besides, which isn't checked yet.
            fields: of the request.

        Raises:
            RemoteError: the device refuses, with its words and exit code, or its answer can't be used.
            UnreachableError: the agent is silent, see Connection.line.
            UnsupportedError: there is no runtime that starts.
        """
        if self.runtime is None:
            reason = "seed-runtime is not installed there"
            if self.start_error:
                reason = f"its runtime doesn't start ({self.start_error})"
            raise UnsupportedError(
                f"{self._connection.target}: {reason}; a push installs it: "
                f"seed-deploy push model.seed {shlex.quote(self._connection.target)}"
            )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._end_error(op) from None
        while line := self._connection.line(self._process, LINE_MAX + 1):
            answer = self._parse(line)
            report = answer.get("progress")
            if report is None:
                return self._checked(op, answer)
            if not (isinstance(report, list) and list(map(type, report)) == [str, int, int]):
                raise self._invalid(line)
            if detail is not None and isinstance(answer.get("detail"), dict):
                detail(answer["detail"])
            if progress is not None:
                progress(report[0], report[1], report[2])
        raise self._end_error(op)

    def ask_to_stop(self) -> None:
        """Ask for the best so far of a fine-tune that `call` waits for. May be called by a handler of a signal."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            os.write(self._process.stdin.fileno(), b'{"op": "stop"}\n')

    def _read_hello(self, line: bytes) -> None:
        hello = self._parse(line)
        if hello.get("agent") != PROTOCOL or not isinstance(hello.get("runtime"), str):
            raise UnsupportedError(
                f"{self._connection.target}: its runtime speaks version {str(hello.get('agent'))[:20]} of the protocol "
                f"and this host version {PROTOCOL}; update this host: pip install -U 'seed-runtime[deploy]'"
            )
        self.runtime = hello["runtime"]

    def _parse(self, line: bytes) -> dict[str, Any]:
        found = device_schema.parse_object(line) if len(line) <= LINE_MAX and line.endswith(b"\n") else None
        if found is None:
            raise self._invalid(line)
        return found

    def _checked(self, op: str, answer: dict[str, Any]) -> dict[str, Any]:
        code, host = answer.get("exit"), self._connection.target
        if answer.get("ok") is True:
            return {"ok": True, **device_schema.check_answer(host, OPERATIONS[op].answer, answer)}
        text, kind = answer.get("error"), answer.get("kind")
        words = " ".join(text.split()) if isinstance(text, str) else "the device gives no reason"
        raise RemoteError(
            code if isinstance(code, int) and 0 < code < 255 else 1,
            f"{host}: {_PLACEHOLDER.sub(lambda found: _name(host, found[1]), words)}",
            kind if isinstance(kind, str) else "",
        )

    def _invalid(self, line: bytes) -> RemoteError:
        return RemoteError(
            1,
            f"{self._connection.target}: its agent answers {line[:60]!r}, which can't be used; see: "
            f"seed-deploy doctor {shlex.quote(self._connection.target)}",
        )

    def _end_error(self, op: str) -> SeedError:
        code = self._process.wait()
        host = self._connection.target
        if code == 255 or code < 0:
            return self._connection.failure(self._process)
        if code == _SIGKILL:
            return _killed_error(host, op)
        lines = self._connection.stderr_of(self._process).strip().splitlines()
        return RemoteError(
            1,
            f"{host}: its agent ended during {op} ({lines[-1].strip() if lines else f'code {code}'}); what ran there "
            f"still runs; see: seed-deploy doctor {shlex.quote(host)}",
        )


def _name(host: str, model: str | None) -> str:
    return shlex.quote(host if model is None else names.model_name(host, model))


def _killed_error(host: str, op: str) -> RemoteError:
    return RemoteError(
        14,
        f"{host}: the device ended its agent during {op}, as it does when memory runs out; what ran there still runs; "
        f"stop what else takes memory there, or push with --max-memory",
        "MemoryBudgetError",
    )
