"""A TCP proxy that counts what passes, and cuts the link on request."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Proxy:
    """Listens on `port` and passes everything on to `target`, a port of this machine.

    `sent` counts bytes towards the target, `received` those back. Once `cut_after` bytes were sent the link is cut,
    and new ones are until it is set again. While `silent`, nothing passes and nothing is closed: a dead link.
    """

    def __init__(self, target: int) -> None:
        self._target, self._lock = target, threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._server.getsockname()[1]
        self.sent = self.received = 0
        self.cut_after: int | None = None
        self.silent = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    @property
    def total(self) -> int:
        return self.sent + self.received

    def cut(self) -> None:
        """Close all links, at both ends."""
        with self._lock:
            closing, self._open = self._open, []
        for end in closing:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        self.sent = self.received = 0
        self.cut_after = None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        # Suppressed: nothing listens there any more.
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            with self._lock:
                self._open += [near, far]
            back = threading.Thread(target=self._pass_on, args=(far, near, False), daemon=True)
            back.start()
            self._pass_on(near, far, True)
            back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if self.silent:
                    continue
                with self._lock:
                    cut = up and self.cut_after is not None and self.sent + len(data) > self.cut_after
                    if cut:
                        data = data[: max(0, (self.cut_after or 0) - self.sent)]
                    if up:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                sink.sendall(data)
                if cut:
                    self.cut()
                    return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
