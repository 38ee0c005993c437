"""The host's end of the connection to installer.py, which runs on the device."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import resources
from typing import Any, Final

from seed_devices.errors import RemoteError
from seed_devices.remote import device_schema
from seed_devices.remote.agent_client import Progress
from seed_devices.remote.facts import no_python
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import SeedError

_PROGRAM: Final = ("installer_answers.py", "installer_environment.py", "installer.py")
"""The modules that run on the device, each after those that it imports. The last one is the program."""
LINE_MAX: Final = 1 << 20
"""Largest size of an answer, in bytes."""


class InstallerClient:
    """installer.py on a device, for as long as the `with` block lasts. `python` is the version of its Python."""

    def __init__(self, connection: Connection, progress: Progress) -> None:
        self._connection, self._host, self.report = connection, connection.target, progress
        self.python = ""

    def __enter__(self) -> InstallerClient:
        source = installer()
        self._connection.hold()
        program = f'import sys; exec(compile(sys.stdin.buffer.read({len(source)}), "installer.py", "exec"))'
        self._process: subprocess.Popen[bytes] = self._connection.popen(
            'exec "$1" -c "$2"', self._connection.interpreter, program
        )
        self._write(source)
        hello = self._connection.first_line(self._process, b'{"installer"')
        if hello is None:
            raise self._failure()
        found = re.search(rb'"python": "([0-9.]{1,20})', hello)
        self.python = found[1].decode() if found else ""
        return self

    def __exit__(self, *error: object) -> None:
        processes.stop(self._process)

    def call(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Send one request and return the answer, with its fields checked.

        Raises:
            RemoteError: the device refuses, with its words and exit code, or its answer can't be used.
            UnreachableError: it hangs.
        """
        self._write(json.dumps({"op": operation, **fields}).encode() + b"\n")
        while line := self._connection.line(self._process, LINE_MAX):
            answer = device_schema.parse_object(line) or {}
            try:
                if "progress" in answer:
                    phase, done, total = answer["progress"]
                    self.report(str(phase), int(done), int(total))
                    continue
                if answer["ok"] is True:
                    return device_schema.check_answer(self._host, device_schema.INSTALLER[operation], answer)
                raise RemoteError(int(answer["exit"]), f"{self._host}: {answer['error']}", answer["kind"])
            except (ValueError, KeyError, TypeError):
                raise RemoteError(
                    1, f"{self._host}: its installer answers {line[:80]!r}, which can't be used; run the same command "
                    "again"
                ) from None  # fmt: skip
        raise self._failure()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _failure(self) -> SeedError:
        code = self._process.wait()
        if code == 127:
            return no_python(self._host)
        if code not in (255, -1) and code > 0:
            lines = self._connection.stderr_of(self._process).strip().splitlines()
            reason = lines[-1] if lines else f"exit status {code}"
            return RemoteError(1, f"{self._host}: its installer ended ({reason}); run the same command again")
        return self._connection.failure(self._process)


def installer() -> bytes:
    """Return the program that a device runs to install a runtime: one text that holds those of all its modules."""
    lines = [
        "import sys, types",
        "def load(name, file, source):",
        "    module = sys.modules.setdefault(name, types.ModuleType(name))",
        "    exec(compile(source, file, 'exec'), module.__dict__)",
    ]
    for file in _PROGRAM:
        name = "__main__" if file == _PROGRAM[-1] else f"seed_devices.remote.{file.removesuffix('.py')}"
        source = (resources.files("seed_devices") / "remote" / file).read_text("utf-8")
        lines.append(f"load({name!r}, {file!r}, {source!r})")
    return "\n".join(lines).encode()
