"""Tells the service manager that the server is ready, where one asked for it (Type=notify)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send `state`, such as READY=1, to $NOTIFY_SOCKET; nothing without one. Source: sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    # A manager that is gone stops no server.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        link.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)
