"""The agent's end of the connection: requests in, progress and answers out, one JSON object per line.

While a request is carried out the client gets a line at least every BEAT_S: without new progress the last line is
repeated. A client may take a longer silence for a device that hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final

from seed_runtime.agent.protocol.failures import failure_answer
from seed_runtime.errors import UsageError
from seed_runtime.version import __version__

PROTOCOL: Final = 1
"""The version of the protocol, in the agent's first line."""
LINE_MAX: Final = 1 << 20
"""Longest line in either direction, in bytes."""
BEAT_S: Final = 10.0
"""Longest silence while a request is carried out, in seconds."""
STUCK_S: Final = 3600.0
"""Time without progress after which an operation counts as hanging, such as on a dead disk: repeating ends."""
_PAUSE_S: Final = 0.1
"""Shortest time between two progress lines of a phase, in seconds; its first and its last are always sent."""

Report = Callable[[str, int, int], None]
"""Reports progress: called with the name of a phase, how much of it is done, and all of it."""


class ClientGone(BaseException):
    """The client has left or doesn't speak the protocol: nobody is there to answer."""


class Transport:
    """A connection to one client: requests come from a file descriptor, lines go to a stream."""

    def __init__(self, source: int, sink: BinaryIO) -> None:
        """Take over a connection.

        Args:
            source: the descriptor that requests are read from.
            sink: the unbuffered stream that lines are written to.
        """
        self._source, self._sink = source, sink
        self._received = bytearray()
        """Bytes of requests that haven't been asked for yet."""
        self._sent: tuple[str, float] = ("", 0.0)
        """Phase of the progress line that was sent last, and the time of that."""
        self._writing = threading.Lock()
        self._latest: tuple[tuple[str, int, int], float] = (("", 0, 0), 0.0)
        """Latest progress, sent or not, and the time of its report."""

    def send_hello(self) -> None:
        """Send the agent's first line.

        Raises:
            ClientGone: nobody reads it.
        """
        self.send({"agent": PROTOCOL, "runtime": __version__, "python": ".".join(map(str, sys.version_info[:3]))})

    def receive(self, on_idle: Callable[[], None]) -> dict[str, Any] | None:
        """Wait for the next request.

        Args:
            on_idle: called about once a second while nothing comes.

        Returns:
            The request; None once the client has closed its end. A request that is cut then is not carried out.

        Raises:
            UsageError: the line is not a JSON object.
            ClientGone: the line is longer than LINE_MAX.
        """
        line = self._receive_line(on_idle)
        return None if line is None else _parse_request(line)

    def poll(self) -> dict[str, Any] | None:
        """Return a request that came while another one is carried out, without waiting; None for none.

        Raises:
            UsageError: the line is not a JSON object.
            ClientGone: the client has closed its end, or the line is longer than LINE_MAX.
        """
        while b"\n" not in self._received:
            if not select.select([self._source], [], [], 0)[0]:
                return None
            data = os.read(self._source, 1 << 16)
            self._received += data
            if not data or len(self._received) > LINE_MAX:
                raise ClientGone
        return _parse_request(self._take_line())

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one line.

        Raises:
            ClientGone: nobody reads it.
        """
        try:
            with self._writing:
                self._write(message)
        except (BrokenPipeError, ConnectionResetError):
            raise ClientGone from None

    def report(self, phase: str, done: int, total: int, detail: Mapping[str, Any] | None = None) -> None:
        """Send how far a phase is, unless the last line about it was sent a moment ago.

        Args:
            phase: its name.
            done: how much of it is done.
            total: all of it.
            detail: what the operation has to say besides.

        Raises:
            ClientGone: nobody reads it.
        """
        now = time.monotonic()
        self._latest = ((phase, done, total), now)
        sent_phase, sent_at = self._sent
        if phase == sent_phase and 0 < done < total and now - sent_at < _PAUSE_S:
            return
        self._sent = (phase, now)
        self.send({"progress": [phase, done, total], **({} if detail is None else {"detail": detail})})

    @contextlib.contextmanager
    def heartbeat(self, op: str) -> Iterator[None]:
        """Send a line at least every BEAT_S for as long as the block, which carries out `op`, runs."""
        self._latest = ((op, 0, 0), time.monotonic())
        finished = threading.Event()
        # A daemon: the process can end although nobody reads the line that the thread is writing.
        threading.Thread(target=self._beat, args=(finished,), daemon=True).start()
        try:
            yield
        finally:
            finished.set()

    def _beat(self, finished: threading.Event) -> None:
        while not finished.wait(BEAT_S):
            with self._writing:
                progress, when = self._latest
                # No progress may follow the answer, which is sent once `finished` is set.
                if finished.is_set() or time.monotonic() - when > STUCK_S:
                    return
                try:
                    self._write({"progress": progress})
                except OSError:
                    return  # the operation's own next line raises ClientGone

    def _receive_line(self, on_idle: Callable[[], None]) -> bytes | None:
        while b"\n" not in self._received:
            if len(self._received) > LINE_MAX:
                error = UsageError(f"a request is longer than {LINE_MAX:,} bytes; send one object per line")
                self.send(failure_answer(error))
                raise ClientGone
            while not select.select([self._source], [], [], 1.0)[0]:
                on_idle()
            data = os.read(self._source, 1 << 16)
            if not data:
                return None
            self._received += data
        return self._take_line()

    def _take_line(self) -> bytes:
        end = self._received.index(b"\n")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _write(self, message: Mapping[str, Any]) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        while line:
            line = line[self._sink.write(line) :]
        self._sink.flush()


def _parse_request(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("a request is one JSON object on a line")
    return found
