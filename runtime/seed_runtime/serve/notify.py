"""Notify the service manager of the server's state, if it asks for that (Type=notify)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify_manager(state: str) -> None:
    """Send `state`, such as READY=1, to $NOTIFY_SOCKET, if it is set. Source: sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    # The server goes on without its manager.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        link.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)
