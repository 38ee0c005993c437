"""Windows of symbols, decoded where they are needed or by a process beside, some windows ahead.

A process and not a thread: a step of the lanes is 19 short calls of NumPy, each of which lets go of the interpreter and
has to get it back. Two threads with a stream each took 2.5 times as long as one after the other, and a thread of lanes
beside one that dequantizes, hashes and writes gained a factor of 1.2 to 1.5 (6 M weights, two cores).
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import struct
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

import numpy as np

from seed_runtime.codecs.arrays import U8, U32, WINDOW
from seed_runtime.codecs.lanes import LaneDecoder
from seed_runtime.errors import FormatError
from seed_runtime.limits import CHUNK_CODED_MAX

BESIDE_BYTES: Final = 12 << 20
"""Most memory that a process beside takes for itself and shares with this one, without coded chunks [B]: 5.4 MiB of its
pages were its own, and 2.5 MiB are windows."""
BESIDE_LEAST: Final = 1 << 21
"""Number of symbols from which a process beside saves more than it costs to start, some milliseconds."""
_AHEAD = 4
"""Windows that may be decoded before they are taken."""
_LOAD, _DECODE, _END_CHUNK, _END_STREAM = range(4)
_COMMAND = struct.Struct("<BxxxI")
"""Command and size: bytes of words, symbols of a window."""

ClassesInto = Callable[[int, int, U32], None]
"""Writes the classes, shifted left by 12 bits, of the symbols from one place of the stream to another."""


class Windows(Protocol):
    """The symbols of a stream, chunk by chunk and, within a chunk, window by window."""

    ahead: int
    """Number of chunks that are to be loaded before the windows of one are taken."""

    def load(self, words: memoryview, start: int, stop: int) -> None:
        """Take the words of the chunk of symbols `start` to `stop`."""

    def take(self, start: int, stop: int) -> U8:
        """Return the next symbols; the next call overwrites them. FormatError where the words end early."""

    def end_chunk(self) -> None:
        """Raise FormatError if words of the present chunk are left over, or its lanes end wrongly in the last one."""

    def close(self) -> None:
        """Release what isn't needed any more, at any time and more than once."""


class WindowsHere:
    """Decodes each window when it is taken. Memory: a window of symbols and of classes, and what lanes take."""

    ahead = 1

    def __init__(self, lanes: LaneDecoder, classes_into: ClassesInto, total: int) -> None:
        """Begin with the first chunk, whose states `lanes` has, of `total` symbols."""
        self._lanes, self._classes_into, self._total, self._stop = lanes, classes_into, total, 0
        self._classes, self._symbols = np.empty(WINDOW, np.uint32), np.empty(WINDOW, np.uint8)

    def load(self, words: memoryview, start: int, stop: int) -> None:
        """Begin with a chunk when the one before has ended."""
        self._lanes.load(words)
        self._stop = stop

    def take(self, start: int, stop: int) -> U8:
        """Decode the next symbols."""
        classes, symbols = self._classes[: stop - start], self._symbols[: stop - start]
        self._classes_into(start, stop, classes)
        self._lanes.decode_into(classes, symbols)
        return symbols

    def end_chunk(self) -> None:
        """Check the end of the chunk."""
        self._lanes.end_chunk()
        if self._stop == self._total:
            self._lanes.end_stream()

    def close(self) -> None:
        """Do nothing."""


def can_decode_beside() -> bool:
    """Return whether this process may have a copy of itself decode: on Linux, while it has no other threads.

    A lock that another thread holds at that moment would stay locked in the copy for ever.
    """
    return sys.platform.startswith("linux") and threading.active_count() == 1


class WindowsBeside:
    """Has a copy of this process decode, up to _AHEAD windows before they are taken.

    The copy has the lanes and their tables. It gets commands by one pipe and says by another what is done; words,
    classes and symbols are in memory that both share. It ends when this process closes its pipes or dies.
    """

    ahead = 2

    def __init__(self, lanes: LaneDecoder, classes_into: ClassesInto, total: int) -> None:
        """Start the process; for the arguments see `WindowsHere`.

        Raises:
            OSError: there can be no other process.
        """
        self._classes_into, self._total = classes_into, total
        self._words = memoryview(mmap.mmap(-1, 2 * CHUNK_CODED_MAX))
        self._classes = np.frombuffer(mmap.mmap(-1, 4 * _AHEAD * WINDOW), np.uint32).reshape(_AHEAD, WINDOW)
        self._symbols = np.frombuffer(mmap.mmap(-1, _AHEAD * WINDOW), np.uint8).reshape(_AHEAD, WINDOW)
        self._coming: deque[tuple[int, int, int]] = deque()
        self._loaded = self._begun = self._taken = 0
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            commands, self._commands = _pipe(theirs, ours)
            self._done, done = _pipe(ours, theirs)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of OpenBLAS's threads, which it stops for a fork
                self._process = os.fork()
            if not self._process:
                self._run(lanes, ours, commands, done)
            self._ends = ours.pop_all()

    def load(self, words: memoryview, start: int, stop: int) -> None:
        """Copy words to where the process finds them; it loads them when the chunk before has ended."""
        place = self._loaded % 2 * CHUNK_CODED_MAX
        self._words[place : place + len(words)] = words
        self._loaded += 1
        self._coming.append((_LOAD, len(words), 0))
        for begin in range(start, stop, WINDOW):
            self._coming.append((_DECODE, min(WINDOW, stop - begin), begin))
        self._coming.append((_END_STREAM if stop == self._total else _END_CHUNK, 0, 0))

    def take(self, start: int, stop: int) -> U8:
        """Begin with windows to come, and wait for the next one."""
        while self._coming and (self._begun < self._taken + _AHEAD or self._coming[0][0] != _DECODE):
            command, size, begin = self._coming.popleft()
            if command == _DECODE:
                self._classes_into(begin, begin + size, self._classes[self._begun % _AHEAD, :size])
                self._begun += 1
            with contextlib.suppress(BrokenPipeError):  # what the process died of is found where it is waited for
                os.write(self._commands, _COMMAND.pack(command, size))
        self._await()
        self._taken += 1
        return self._symbols[(self._taken - 1) % _AHEAD, : stop - start]

    def end_chunk(self) -> None:
        """Wait for the chunk's end."""
        self._await()

    def close(self) -> None:
        """End the process."""
        self._ends.close()
        process, self._process = self._process, 0
        if process:
            with contextlib.suppress(ChildProcessError):  # a program that reaps all children has done it
                os.waitpid(process, 0)

    def _await(self) -> None:
        """Wait until the process has done one thing more, and raise what it raised."""
        if (answer := os.read(self._done, 1)) == b"\0":
            return
        while part := os.read(self._done, 1 << 12):
            answer += part
        if not answer:
            raise MemoryError("the process that decodes beside this one was killed")
        where, _, problem = answer[1:].decode().partition("\0")
        raise FormatError(where, problem)

    def _run(self, lanes: LaneDecoder, others: contextlib.ExitStack, commands: int, done: int) -> NoReturn:
        """Do as commands say, and end nothing of this process but itself."""
        try:
            gc.disable()  # a collection would write to all pages, and make copies of them
            others.close()
            chunks = windows = 0
            while len(packed := os.read(commands, _COMMAND.size)) == _COMMAND.size:
                command, size = _COMMAND.unpack(packed)
                if command == _LOAD:
                    place = chunks % 2 * CHUNK_CODED_MAX
                    lanes.load(self._words[place : place + size])
                    chunks += 1
                    continue
                if command == _DECODE:
                    place = windows % _AHEAD
                    lanes.decode_into(self._classes[place, :size], self._symbols[place, :size])
                    windows += 1
                else:
                    lanes.end_chunk()
                    if command == _END_STREAM:
                        lanes.end_stream()
                os.write(done, b"\0")
        except FormatError as error:
            os.write(done, f"\1{error.where}\0{error.problem}".encode())
        finally:
            os._exit(0)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Make a pipe, and let each side close its end."""
    ends = os.pipe()
    for stack, end in zip((reader, writer), ends, strict=True):
        stack.callback(os.close, end)
    return ends
