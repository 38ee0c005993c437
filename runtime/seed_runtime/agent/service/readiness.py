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
READY_PATH: Final = "/v2/health/ready"
"""Where a server says that it is ready to infer."""
_BODY_MAX: Final = 64 << 10
"""Bytes read of an answer."""
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
            code, _ = get(service, READY_PATH)
            if code == 200:
                return
            problem = f"it answers {code}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(error)
        time.sleep(_POLL_S)
    raise ServiceError(
        f"{service.unit} runs, but {service.address} is not ready ({problem}); see: journalctl --user -u {service.unit}"
    )


def get(service: Service, path: str) -> tuple[int, bytes]:
    """Return the status of a GET, and the beginning of what is answered.

    Raises:
        OSError: the server can't be reached.
        http.client.HTTPException: it answers something else.
    """
    address = serve.parse_address(service.address.removeprefix("http://"))
    connection = http.client.HTTPConnection(
        "localhost" if address.path else address.host, address.port, timeout=READY_S
    )
    with contextlib.closing(connection):
        if address.path is not None:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(READY_S)
            connection.sock.connect(address.path)
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_BODY_MAX)
