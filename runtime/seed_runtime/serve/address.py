"""Addresses to listen on: a Unix socket of mode 0600, or a port that only this machine can reach."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import UsageError

BACKLOG: Final = 64
"""Number of connections that the kernel lets wait for a free thread."""
BUFFER_BYTES: Final = 256 << 10
"""Size of a connection's receive buffer in the kernel, and of its send buffer, in bytes."""
_PATH_MAX: Final = 107
"""Longest path of a socket in bytes: sun_path holds 108, the last of them zero."""
_LOOPBACK: Final = "127.0.0.1"
_HOST_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]*)\]|([^\[\]:/]*)):([0-9]{1,5})")
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/]+))(?::[0-9]{0,5})?")
_FORMS: Final = "write unix:/path/of/socket, 127.0.0.1:8080 or :8080"


@dataclass(frozen=True)
class Address:
    """A Unix socket, or a loopback host and port."""

    path: str | None = None
    """The path of the socket; None for a port."""
    host: str = _LOOPBACK
    port: int = 0
    """Number of the port; 0 for any free one."""

    def __str__(self) -> str:
        """Return the address as clients write it."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address that --serve names.

    Raises:
        UsageError: it isn't an address, or other machines could reach it.
    """
    if text.startswith("unix:") or "/" in text:
        return _unix_address(text.removeprefix("unix:"))
    match = _HOST_PORT.fullmatch(f":{text}" if text.isascii() and text.isdigit() else text)
    if match is None or int(match[3]) > 65535:
        raise UsageError(f"--serve {text!r} is not an address; {_FORMS}")
    host = match[1] or match[2] or _LOOPBACK
    if host == "localhost":
        host = _LOOPBACK
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise UsageError(f"--serve {text!r}: {host!r} is not an address of this machine; {_FORMS}") from None
    if not loopback:
        raise UsageError(
            f"--serve {text!r} would let other machines in, and the server doesn't check who they are; serve on "
            f":{match[3]} or a socket, and put a proxy in front that checks it, or use: "
            f"ssh -L {match[3]}:127.0.0.1:{match[3]} HOST"
        )
    return Address(host=host, port=int(match[3]))


def is_local(host: str) -> bool:
    """Return whether a request's Host, with or without a port, is one of this machine's loopback names."""
    match = _HOST.fullmatch(host.strip())
    name = (match[1] or match[2]).rstrip(".").lower() if match is not None else ""
    try:
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def listen(address: Address) -> Iterator[tuple[socket.socket, Address]]:
    """Listen on an address for as long as the block runs. A Unix socket is removed afterwards.

    Yields:
        The listening socket, and its address with the port that it got.

    Raises:
        UsageError: the address can't be used.
    """
    if address.path is not None:
        with _listen_unix(address.path) as server:
            yield server, address
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        # A restart must not wait for the connections of the process before.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit them. The kernel would let them grow to 6 and 4 MiB, which count as the service's memory.
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            server.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
        try:
            server.bind((address.host, address.port))
            server.listen(BACKLOG)
        except OSError as error:
            raise UsageError(f"--serve {address}: {error.strerror}; choose another port") from None
        yield server, Address(host=address.host, port=server.getsockname()[1])


def _unix_address(path: str) -> Address:
    if not path or path.endswith("/"):
        raise UsageError("--serve unix: needs the path of a socket; write unix:/path/of/socket")
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _PATH_MAX:
        raise UsageError(f"--serve unix:{path}: a socket's path has at most {_PATH_MAX} bytes; choose a shorter one")
    return Address(path=path)


@contextlib.contextmanager
def _listen_unix(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        _remove_stale(path)
        try:
            server.bind(path)
            # Nobody can connect before listen(), so the socket is never open to other users.
            os.chmod(path, 0o600)
            own = os.lstat(path)
            server.listen(BACKLOG)
        except OSError as error:
            raise UsageError(f"--serve unix:{path}: {error.strerror}; choose another path") from None
        try:
            yield server
        finally:
            # Another server may have replaced the socket meanwhile.
            with contextlib.suppress(OSError):
                if os.path.samestat(own, os.lstat(path)):
                    os.unlink(path)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. UsageError for anything else at this path."""
    try:
        found = os.lstat(path)
    except OSError:
        return  # bind() says what is wrong, if anything is
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(f"--serve unix:{path}: something else is there already; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a busy server with a full queue must not block this process
        code = probe.connect_ex(path)
    if code != errno.ECONNREFUSED:
        raise UsageError(f"--serve unix:{path}: another server listens there; stop it, or choose another path")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
