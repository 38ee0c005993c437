"""Where to listen: a Unix socket of mode 0600, or a port that only this machine reaches."""

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
"""Connections that the kernel keeps waiting for a free thread."""
RECEIVE_BYTES: Final = 256 << 10
_PATH_MAX: Final = 107
"""Bytes of a socket's path: sun_path holds 108, the last of them zero."""
_LOOPBACK: Final = "127.0.0.1"
_HOST_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]*)\]|([^\[\]:/]*)):([0-9]{1,5})")
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/]+))(?::[0-9]{0,5})?")
_FORMS: Final = "write unix:/path/of/socket, 127.0.0.1:8080 or :8080"


@dataclass(frozen=True)
class Address:
    """`path` of a Unix socket, or `host` and `port` (0: any that is free)."""

    path: str | None = None
    host: str = _LOOPBACK
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parse(text: str) -> Address:
    """The address that --serve names. UsageError for one that is none, or that other machines would reach."""
    if text.startswith("unix:") or "/" in text:
        return _unix(text.removeprefix("unix:"))
    match = _HOST_PORT.fullmatch(f":{text}" if text.isascii() and text.isdigit() else text)
    if match is None or int(match[3]) > 65535:
        raise UsageError(f"--serve {text!r} is no address; {_FORMS}")
    host = match[1] or match[2] or _LOOPBACK
    if host == "localhost":
        host = _LOOPBACK
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise UsageError(f"--serve {text!r}: {host!r} is no address of this machine; {_FORMS}") from None
    if not loopback:
        raise UsageError(
            f"--serve {text!r} would let other machines in, and nothing here asks who they are; serve on :{match[3]} "
            f"or a socket, and put a proxy that does in front, or use: ssh -L {match[3]}:127.0.0.1:{match[3]} HOST"
        )
    return Address(host=host, port=int(match[3]))


def is_local(host: str) -> bool:
    """Whether a request's Host, with or without a port, is this machine's by any of its loopback names."""
    match = _HOST.fullmatch(host.strip())
    name = (match[1] or match[2]).rstrip(".").lower() if match is not None else ""
    try:
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def listening(address: Address) -> Iterator[tuple[socket.socket, Address]]:
    """A socket that listens there, and its address with the port that it got. A Unix socket is removed afterwards."""
    if address.path is not None:
        with _listening_unix(address.path) as server:
            yield server, address
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        # A restart must not wait for the connections of the one before.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # For each connection; the kernel would let it grow to 6 MiB, of memory that is the service's.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        try:
            server.bind((address.host, address.port))
            server.listen(BACKLOG)
        except OSError as error:
            raise UsageError(f"--serve {address}: {error.strerror}; choose another port") from None
        yield server, Address(host=address.host, port=server.getsockname()[1])


def _unix(path: str) -> Address:
    if not path or path.endswith("/"):
        raise UsageError("--serve unix: needs the path of a socket; write unix:/path/of/socket")
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _PATH_MAX:
        raise UsageError(f"--serve unix:{path}: a socket's path has at most {_PATH_MAX} bytes; choose a shorter one")
    return Address(path=path)


@contextlib.contextmanager
def _listening_unix(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        _remove_stale(path)
        try:
            server.bind(path)
            # Nobody can connect before listen(): there is no moment at which the socket is open to others.
            os.chmod(path, 0o600)
            own = os.lstat(path)
            server.listen(BACKLOG)
        except OSError as error:
            raise UsageError(f"--serve unix:{path}: {error.strerror}; choose another path") from None
        try:
            yield server
        finally:
            # Another server may have taken the name meanwhile.
            with contextlib.suppress(OSError):
                if os.path.samestat(own, os.lstat(path)):
                    os.unlink(path)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. UsageError for anything else that stands there."""
    try:
        found = os.lstat(path)
    except OSError:
        return  # bind() says what is wrong, if anything is
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(f"--serve unix:{path}: something else stands there already; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue of a server that is busy must not stop us
        code = probe.connect_ex(path)
    if code != errno.ECONNREFUSED:
        raise UsageError(f"--serve unix:{path}: another server listens there; stop it, or choose another path")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
