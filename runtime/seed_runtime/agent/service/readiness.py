"""Wait until the server of a service answers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from typing import Final

from seed_runtime import serve
from seed_runtime.agent.service.settings import Service
from seed_runtime.agent.service.systemd import ServiceError

READY_S: Final = 10.0
"""Time within which a server that says it is ready must answer, in seconds."""
_POLL_S: Final = 0.2
"""Time between two requests, in seconds."""


def await_ready(service: Service) -> None:
    """Wait until the server says that it is ready to infer.

    Raises:
        ServiceError: it doesn't within READY_S.
    """
    deadline = time.monotonic() + READY_S
    problem = "it does not answer"
    while time.monotonic() < deadline:
        try:
            code = _get(serve.parse_address(service.address.removeprefix("http://")), "/v2/health/ready")
            if code == 200:
                return
            problem = f"it answers {code}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(error)
        time.sleep(_POLL_S)
    raise ServiceError(
        f"{service.unit} runs, but {service.address} is not ready ({problem}); see: journalctl --user -u {service.unit}"
    )


def _get(address: serve.Address, path: str) -> int:
    """Return the status of a GET."""
    connection = http.client.HTTPConnection(
        "localhost" if address.path else address.host, address.port, timeout=READY_S
    )
    if address.path is not None:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(READY_S)
        connection.sock.connect(address.path)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
