"""Ask a device what it is and what it has."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from seed_devices import names
from seed_devices.errors import RemoteError
from seed_devices.remote import device_schema, pythons
from seed_devices.remote.agent_client import FIND_STORE, AgentClient
from seed_devices.remote.pythons import Pythons
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.shell import START_S
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.preamble import DIGEST

OUTPUT_MAX: Final = 1 << 16
"""Largest size of what is read of a device's output, in bytes."""
_LIST_VERSIONS: Final = (
    f'{FIND_STORE}m=$s/models/$1; [ -d "$m/versions" ] || exit 0; '
    'readlink "$m/current"; cd "$m/versions" && for f in */model.seed; do [ -f "$f" ] && echo "${f%%/*}"; done; exit 0'
)
"""Shell commands that print where `current` of the model `$1` leads, and the names of its versions."""


def read_facts(connection: Connection, agent: AgentClient) -> dict[str, Any]:
    """Return what the device is and has, as its agent reports it, or the connection's Python where no agent runs.

    Raises:
        UnsupportedError: it has neither.
        RemoteError: its Python fails, or reports nothing.
    """
    host = connection.target
    if agent.runtime is not None:
        found = agent.call("facts")["facts"]
    else:
        source = (resources.files("seed_runtime.agent") / "facts.py").read_text()
        done = connection.python(source)
        lines = [line for line in done.stdout[:OUTPUT_MAX].splitlines() if line.startswith(b"{")]
        if done.code and not lines:
            if done.code in (126, 127):
                raise no_python(host)
            errors = done.stderr.strip().splitlines()
            reason = errors[-1] if errors else f"exit status {done.code}"
            raise RemoteError(12, f"{host}: python3 on the device fails: {reason}; repair its Python installation")
        found = device_schema.usable_facts((device_schema.parse_object(lines[-1]) if lines else None) or {})
    if not found.get("python"):
        raise RemoteError(
            1,
            f"{host}: the device reports nothing about itself; see what this prints: ssh {names.ssh_words(host)} "
            f"python3",
        )
    return found


def stored_versions(connection: Connection, name: str) -> dict[str, Any]:
    """Return what a device whose agent doesn't start seems to have of a model, as `status` would: digests alone.

    Args:
        connection: to the device.
        name: the model's name there.
    """
    done = connection.run(_LIST_VERSIONS, name, timeout=START_S, check=False)
    lines = done.stdout[:OUTPUT_MAX].decode("ascii", "replace").split()
    digests = [line for line in lines if DIGEST.fullmatch(line)]
    current = next((line.rpartition("/")[2] for line in lines if line.startswith("versions/")), None)
    return {"versions": [{"digest": each} for each in digests], "current": current if current in digests else None}


def find_pythons(connection: Connection, named: str | None = None) -> Pythons:
    """Find the Pythons of a device, and let the best one run programs on this connection; see `pythons.find`."""
    found = pythons.find(connection, named)
    if found.best is not None:
        connection.interpreter = found.best.path
    return found


def no_python(host: str) -> UnsupportedError:
    """Return the refusal of a device on which python3 doesn't start."""
    return UnsupportedError(
        f"{host}: there is no python3; install Python 3.11 or newer there: sudo apt install python3 python3-venv"
    )
