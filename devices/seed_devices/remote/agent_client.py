"""The host's end of the line to the agent on the device (`python -m seed_runtime.agent agent`).

What the device answers is checked like any bytes from outside: lines have a limit, fields have types (`device_schema`).
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from seed_devices.errors import RemoteError
from seed_devices.remote import device_schema
from seed_devices.ssh.connection import Connection
from seed_runtime.agent.protocol.schema import OPERATIONS
from seed_runtime.agent.protocol.transport import LINE_MAX, PROTOCOL
from seed_runtime.errors import SeedError, UnsupportedError

Progress = Callable[[str, int, int], None]
"""Called with a step's name, what is done of it, and all of it."""

STORE: Final = (
    "case $SEED_HOME in /*) s=$SEED_HOME;; *) "
    "case $XDG_DATA_HOME in /*) s=$XDG_DATA_HOME/seed;; *) s=$HOME/.local/share/seed;; esac;; esac; "
)
"""Shell: `$s` is the device's store, as seed_runtime.system.paths.store_home() has it."""

_NONE: Final = "seed-no-runtime"
_HELLO: Final = b'{"agent"'
# No quote and no backslash within: the login shell may be fish, which reads them otherwise. Not `exec`: the shell
# tells when the agent was killed, and ssh by itself would only say that the session ended. Runtimes of before the
# agent was renamed know it as seed_runtime.device only; newer ones know that name as well.
_COMMAND: Final = (
    f"exec sh -c '{STORE}p=$s/runtime/current/bin/python; "
    'if [ -x "$p" ]; then m=seed_runtime.device; '
    'for f in "$s"/runtime/current/lib/python3*/site-packages/seed_runtime/agent/__main__.py; do '
    '[ -e "$f" ] && m=seed_runtime.agent; done; "$p" -P -m $m agent; exit $?; fi; '
    f"echo {_NONE}; exec cat >/dev/null'"
)
_KILLED: Final = 137
_PLACEHOLDER: Final = re.compile(r"(?<![\w-])HOST(?![\w-])")
"""What the device writes for its own name as this host knows it."""


class AgentClient:
    """The agent of one device. `runtime` is its version, None where none is installed or none starts.

    Close it before the connection; it lets go of its locks then. Not thread-safe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.runtime: str | None = None
        self.python: str | None = None
        self.broken = ""
        """Why the runtime that is there doesn't start."""
        self._process: subprocess.Popen[bytes] = connection.popen(_COMMAND)
        line = connection.first_line(self._process, (_HELLO, _NONE.encode()), LINE_MAX + 1)
        if line is None:
            code = self._process.wait()
            if code == 255 or code < 0:
                raise connection.failure(self._process)
            said = connection.stderr_of(self._process).strip().splitlines()
            self.broken = said[-1].strip() if said else f"it ends at once with {code}"
        elif line.startswith(_HELLO):
            self._greet(line)

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.end(self._process)

    def call(self, op: str, progress: Progress | None = None, **fields: Any) -> dict[str, Any]:
        """The answer to one request. RemoteError with the device's words and exit code if it refuses.

        However long it takes, the agent is heard of all along; UnreachableError where it isn't, see Connection.line.
        """
        if self.runtime is None:
            what = (
                f"its runtime doesn't start ({self.broken})" if self.broken else "seed-runtime is not installed there"
            )
            raise UnsupportedError(
                f"{self._connection.target}: {what}; a push installs it: "
                f"seed-deploy push model.seed {shlex.quote(self._connection.target)}"
            )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone(op) from None
        while line := self._connection.line(self._process, LINE_MAX + 1):
            answer = self._object(line)
            told = answer.get("progress")
            if told is None:
                return self._checked(op, answer)
            if not (isinstance(told, list) and list(map(type, told)) == [str, int, int]):
                raise self._nonsense(line)
            if progress is not None:
                progress(told[0], told[1], told[2])
        raise self._gone(op)

    def _greet(self, line: bytes) -> None:
        hello = self._object(line)
        if hello.get("agent") != PROTOCOL or not isinstance(hello.get("runtime"), str):
            raise UnsupportedError(
                f"{self._connection.target}: its runtime speaks version {str(hello.get('agent'))[:20]} of the protocol "
                f"and this host version {PROTOCOL}; update this host: pip install -U 'seed-runtime[deploy]'"
            )
        self.runtime, self.python = hello["runtime"], str(hello.get("python"))[:20]

    def _object(self, line: bytes) -> dict[str, Any]:
        found = device_schema.parse_object(line) if len(line) <= LINE_MAX and line.endswith(b"\n") else None
        if found is None:
            raise self._nonsense(line)
        return found

    def _checked(self, op: str, answer: dict[str, Any]) -> dict[str, Any]:
        code, host = answer.get("exit"), self._connection.target
        if answer.get("ok") is True:
            return {"ok": True, **device_schema.check_answer(host, OPERATIONS[op].answer, answer)}
        text, kind = answer.get("error"), answer.get("kind")
        words = " ".join(text.split()) if isinstance(text, str) else "it gives no reason"
        raise RemoteError(
            code if isinstance(code, int) and 0 < code < 255 else 1,
            f"{host}: {_PLACEHOLDER.sub(lambda _: shlex.quote(host), words)}",
            kind if isinstance(kind, str) else "",
        )

    def _nonsense(self, line: bytes) -> RemoteError:
        return RemoteError(
            1,
            f"{self._connection.target}: its agent says {line[:60]!r}, which is no answer; see: "
            f"seed-deploy doctor {shlex.quote(self._connection.target)}",
        )

    def _gone(self, op: str) -> SeedError:
        code = self._process.wait()
        host = self._connection.target
        if code == 255 or code < 0:
            return self._connection.failure(self._process)
        if code == _KILLED:
            return _killed(host, op)
        said = self._connection.stderr_of(self._process).strip().splitlines()
        return RemoteError(
            1,
            f"{host}: its agent ended during {op} ({said[-1].strip() if said else f'code {code}'}); what ran there "
            f"still runs; see: seed-deploy doctor {shlex.quote(host)}",
        )


def _killed(host: str, op: str) -> RemoteError:
    return RemoteError(
        14,
        f"{host}: the device ended its agent during {op}, as it does when memory runs out; what ran there still runs; "
        f"stop what else takes memory there, or push with --max-memory",
        "MemoryBudgetError",
    )
