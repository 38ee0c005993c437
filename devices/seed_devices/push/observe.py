"""See how a model does on a device: its version, its golden sample, its service. Nothing there is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from seed_devices.errors import RemoteError
from seed_devices.fleet.canary import Golden, Latency, Observation
from seed_devices.remote import device_schema, seed_run
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import PROGRAM_S, Connection
from seed_runtime.errors import SeedError, UsageError

_DAMAGED: Final = 10
"""The exit code of a seed that isn't there as it was sent; others may be about what the device has left for it."""


def observe(connection: Connection, name: str, *, golden: bool, max_memory: int | None = None) -> Observation:
    """Return what there is to see of a model.

    Args:
        connection: to the device.
        name: the model's name there.
        golden: also run its golden sample.
        max_memory: memory for that, in bytes.

    Raises:
        SeedError: of the connection, or of a device that can't be asked.
    """
    with AgentClient(connection) as agent:
        models = agent.call("status", name=name).get("models") or []
        model: Mapping[str, Any] = next(iter(models), {})
        service = model.get("service") or None
        health: Mapping[str, Any] = {}
        if service is not None and not service.get("error"):
            health = _health(agent, name)
        return Observation(
            digest=model.get("current"),
            golden=_verify(connection, name, max_memory) if golden else None,
            service=service,
            ready=health.get("ready"),
            not_ready=health.get("problem") or "",
            latency=_latency(health.get("latency")),
        )


def _health(agent: AgentClient, name: str) -> Mapping[str, Any]:
    try:
        return agent.call("health", name=name)
    except RemoteError as error:
        if error.exit_code == UsageError.exit_code:
            return {"problem": "its runtime is older and can't ask the server; --update-runtime brings a newer one"}
        return {"problem": str(error)}


def _latency(found: Mapping[str, Any] | None) -> Latency | None:
    """Return a histogram that a device sent; None if it can't be one."""
    if found is None:
        return None
    bounds, counts = tuple(found["bounds"]), tuple(found["counts"])
    if len(counts) != len(bounds) + 1 or list(counts) != sorted(counts):
        return None
    return Latency(bounds, counts, float(found["seconds"]))


def _verify(connection: Connection, name: str, max_memory: int | None) -> Golden:
    """Run `seed-run --verify` there, which checks the seed and the assembled model as well."""
    words = ["--verify", "--json", *([] if max_memory is None else ["--max-memory", str(max_memory)])]
    try:
        done = connection.run(seed_run.SCRIPT, name, *words, timeout=PROGRAM_S, check=False)
    except SeedError as error:
        return Golden(None, str(error).removeprefix(f"{connection.target}: "))
    answer = device_schema.parse_object(done.stdout) or {}
    try:
        found = device_schema.check_answer(connection.target, device_schema.VERIFIED, answer)
    except RemoteError as error:
        return Golden(None, str(error))
    if found.get("ok"):
        return Golden(
            found.get("golden"),
            "" if found.get("golden") else "the seed has none with values that this device can compare",
        )
    text = " ".join((found.get("error") or f"seed-run returned {done.code}").split())
    is_wrong = found.get("golden") is False or (found.get("ok") is False and done.code == _DAMAGED)
    return Golden(False if is_wrong else None, text)
