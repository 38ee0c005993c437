"""Ports of 127.0.0.1 for servers that can't be asked to choose one themselves."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _COUNT = 10_000, 20_000
"""Below the ports that Linux gives to outgoing connections, which could take a port while its server restarts."""
_PART = 500
"""Ports of one worker of pytest-xdist, so that two workers never choose the same one."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Processes that run at once without pytest-xdist begin at different places.
_offsets = itertools.count(os.getpid() % _PART)


def free_port() -> int:
    """Return a port on which nothing listens, each time another one. It isn't reserved."""
    for offset in itertools.islice(_offsets, _COUNT):
        port = _FIRST + (_worker * _PART + offset) % _COUNT
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise OSError(f"no port is free between {_FIRST} and {_FIRST + _COUNT}")
