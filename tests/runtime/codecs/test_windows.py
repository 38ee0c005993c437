"""Decoding by a process beside: the same symbols and the same errors, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.codecs import grid, split, windows
from seed_runtime.codecs import symbols as symbols_module
from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.codecs.encode import grid as grid_encoder
from seed_runtime.codecs.encode import split as split_encoder
from seed_runtime.codecs.encode import symbols
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.windows import WindowsBeside, WindowsHere
from seed_runtime.errors import DigestError, FormatError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.limits import CHUNK_DECODED_MAX
from tests.support.streams import hole

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

ROWS, COLS = CHUNK_DECODED_MAX // 1001 + 400, 1001


@pytest.fixture(scope="module")
def chunks() -> list[bytes]:
    """A head and two data chunks, with low bits, escapes, dead rows and a dead column."""
    rng = np.random.default_rng(1)
    integers = rng.integers(-2000, 2000, (ROWS, COLS)).astype(np.int32)
    integers[7:500:3], integers[:, 100], integers[900, 3] = 0, 0, 1 << 20
    coded = symbols.encode([grid_encoder.matrix_of(QuantizedMatrix(integers, 0.5))]).chunks
    assert len(coded) == 3
    return coded


PIDS: dict[WindowsBeside, int] = {}
"""Processes by what started them, which forgets them when it has waited for them."""


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[WindowsBeside]:
    """Let streams of any length be decoded beside this process, and list the processes; none may be left."""
    found: list[WindowsBeside] = []

    class Noted(WindowsBeside):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            found.append(self)
            PIDS[self] = self._process

    monkeypatch.setattr(symbols_module, "BESIDE_LEAST", 1)
    monkeypatch.setattr(symbols_module, "WindowsBeside", Noted)
    # Tests before these may have left a thread that only sleeps, such as that of progress bars.
    threads = set(threading.enumerate())
    monkeypatch.setattr(threading, "active_count", lambda: 1 + len(set(threading.enumerate()) - threads))
    return found


def _decoded(chunks: Sequence[bytes], cores: int) -> bytes:
    views = (memoryview(chunk) for chunk in chunks)
    return b"".join(block.tobytes() for block in grid.decode([hole(ROWS, COLS)], views, "stream 0", None, cores))


def _ended(process: WindowsBeside) -> bool:
    """Whether the process was waited for; other children of this test run may live."""
    return process._process == 0 and not Path(f"/proc/{PIDS[process]}").exists()


def test_a_process_beside_decodes_the_same_bits(chunks: list[bytes], started: list[WindowsBeside]) -> None:
    assert _decoded(chunks, 2) == _decoded(chunks, 1)
    assert len(started) == 1
    assert _ended(started[-1])


def test_a_trellis_runs_on_over_what_a_process_beside_decodes(started: list[WindowsBeside]) -> None:
    integers = np.rint(np.random.default_rng(3).laplace(0, 2, (ROWS, COLS))).astype(np.int32)
    integers[7:500:3], integers[:, 100], integers[900, 3] = 0, 0, 1 << 20
    matrix = QuantizedMatrix(integers, 0.5, delay=8 * COLS)
    coded = symbols.encode([grid_encoder.matrix_of(matrix)]).chunks
    assert _decoded(coded, 2) == _decoded(coded, 1) == matrix.values().tobytes()
    assert len(started) == 1


def test_lossless_streams_are_decoded_beside_too(started: list[WindowsBeside]) -> None:
    weights = np.random.default_rng(2).standard_normal((300, WINDOW // 100)).astype(np.float32)
    coded = symbols.encode([split_encoder.matrix_of(weights, BY_NAME["float32"])]).chunks
    blocks = split.decode([hole(*weights.shape)], map(memoryview, coded), "stream 0", None, 2)
    assert b"".join(block.tobytes() for block in blocks) == weights.tobytes()
    assert len(started) == 1


def _changed(chunks: list[bytes], number: int, place: int) -> list[bytes]:
    damaged = bytearray(chunks[number])
    damaged[place] ^= 0x40
    return [*chunks[:number], bytes(damaged), *chunks[number + 1 :]]


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_wrong_with_a_chunk_is_found_as_on_one_core(
    chunks: list[bytes], started: list[WindowsBeside], number: int
) -> None:
    wrong = [
        [*chunks[:number], chunks[number][:200], *chunks[number + 1 :]],
        [*chunks[:number], b"", *chunks[number + 1 :]],
        _changed(chunks, number, 9000),
        chunks[:number],
        [*chunks, b""],
    ]
    for given in wrong:
        problems = []
        for cores in (1, 2):
            with pytest.raises(FormatError) as caught:
                _decoded(given, cores)
            problems.append((caught.value.where, caught.value.problem))
        assert problems[0] == problems[1]
        assert all(map(_ended, started))


def test_a_chunk_that_is_read_ahead_is_refused_in_its_turn(chunks: list[bytes], started: list[WindowsBeside]) -> None:
    # The first chunk's words are wrong, and the digest of the second one.
    def given() -> Iterator[memoryview]:
        yield from map(memoryview, _changed(chunks[:2], 1, 9000))
        raise DigestError("stream 0, chunk 2", b"", b"")

    for cores in (1, 2):
        with pytest.raises(FormatError) as caught:
            list(grid.decode([hole(ROWS, COLS)], given(), "stream 0", None, cores))
        assert not isinstance(caught.value, DigestError)


def test_a_decoder_that_is_closed_early_leaves_no_process(chunks: list[bytes], started: list[WindowsBeside]) -> None:
    decoded = grid.decode([hole(ROWS, COLS)], map(memoryview, chunks), "stream 0", None, 2)
    next(decoded)
    assert not _ended(started[0])
    decoded.close()  # type: ignore[attr-defined]
    assert _ended(started[-1])


def test_a_process_that_is_killed_is_an_error(chunks: list[bytes], started: list[WindowsBeside]) -> None:
    decoded = grid.decode([hole(ROWS, COLS)], map(memoryview, chunks), "stream 0", None, 2)
    next(decoded)
    os.kill(started[0]._process, signal.SIGKILL)
    with pytest.raises(MemoryError, match="was killed"):
        list(decoded)
    assert _ended(started[-1])


def test_a_process_with_other_threads_decodes_by_itself(chunks: list[bytes], started: list[WindowsBeside]) -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    try:
        assert _decoded(chunks, 2) == _decoded(chunks, 1)
    finally:
        leave.set()
        thread.join()
    assert not started


def test_where_no_process_can_be_started_this_one_decodes(
    chunks: list[bytes], started: list[WindowsBeside], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError

    open_files = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(windows.os, "fork", refuse)
    assert _decoded(chunks, 2) == _decoded(chunks, 1)
    assert not started
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_on_one_core_no_process_is_started(chunks: list[bytes], started: list[WindowsBeside]) -> None:
    _decoded(chunks, 1)
    assert not started
    assert WindowsHere.ahead == 1
