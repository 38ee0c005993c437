"""Plan a model's service: its address, and the memory for a version."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from seed_runtime import serve
from seed_runtime.agent import facts
from seed_runtime.agent.service import systemd
from seed_runtime.agent.service.settings import Service, unit_name
from seed_runtime.errors import UsageError

MARGIN: Final = 32 << 20
"""Bytes of MemoryMax= above --max-memory: the kernel also counts socket buffers, page tables and the page cache."""
PLAN_S: Final = 120.0
"""Time for planning, in seconds."""


def plan_service(seed: Path, name: str, asked: str, memory_asked: int | None, linger: bool) -> Service:
    """Return the service for one version of a model.

    Args:
        seed: the version's seed.
        name: the model.
        asked: "unix", or a loopback address with its port.
        memory_asked: what the kernel lets the service have; None for what the largest measured input needs, of at most
            three quarters of the device's memory [B].
        linger: whether it runs without anybody logged in.

    Raises:
        UsageError: the address can't be used, or the seed isn't there.
        ServiceError: the version can't run within this memory.
    """
    address = parse_address(name, asked)
    memory_max = memory_asked
    most = max(1, memory_max - MARGIN) if memory_max is not None else 3 * facts.read_memory().get("MemTotal", 0) // 4
    planned = planned_bytes(seed, most)
    if planned is not None:
        planned, memory_max = (planned, planned + MARGIN) if memory_max is None else (most, memory_max)
    return Service(unit_name(name), asked, str(address), memory_asked, planned, memory_max, linger)


def with_memory_for_both(one: Service, other: Service) -> Service:
    """Return `other` with the memory that the larger of both needs.

    There is no limit if only one of them can be started with --max-memory.
    """
    if (one.max_memory is None) != (other.max_memory is None):
        return replace(other, max_memory=None, memory_max=None)
    return replace(
        other,
        max_memory=_larger(one.max_memory, other.max_memory),
        memory_max=_larger(one.memory_max, other.memory_max),
    )


def parse_address(name: str, asked: str) -> serve.Address:
    """Return where the service of a model listens.

    Raises:
        UsageError: `asked` is neither "unix" nor a loopback address with a port.
    """
    if asked == "unix":
        return serve.parse_address(f"unix:{systemd.runtime_folder()}/seed-{name}.sock")
    address = serve.parse_address(asked)
    if address.path is not None or address.port == 0:
        raise UsageError(f"a service can't listen on {asked!r}; give 'unix', or a loopback port such as 127.0.0.1:8080")
    return address


def planned_bytes(seed: Path, most: int) -> int | None:
    """Plan a server's memory, see `serve.planned_bytes`.

    It is planned in a process of its own, since the plan includes what its process has allocated already.
    """
    if not seed.is_file():
        raise UsageError(f"{seed} is not there; push a model first")
    done = systemd.run([sys.executable, "-I", "-m", "seed_runtime.cli.plan_server", str(seed), str(most)], PLAN_S)
    try:
        planned = json.loads(done.stdout)["planned_bytes"] if done.returncode == 0 else None
    except (ValueError, KeyError, TypeError):
        raise systemd.ServiceError("the plan of the server can't be read; try again", 1) from None
    if done.returncode:
        raise systemd.ServiceError(systemd.last_line(done.stderr).removeprefix("seed-run: "), done.returncode)
    return planned if isinstance(planned, int) else None


def _larger(one: int | None, other: int | None) -> int | None:
    """Return the larger limit; None, which is no limit, if one of them is."""
    return None if one is None or other is None else max(one, other)
