"""Weights into their holes: order, zeros between, digests, disk, memory."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sys
import threading
import tracemalloc
import zlib
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.assembly import assemble
from seed_runtime.assembly.assemble import WeightsWriter, beside_bytes, decode_streams, working_bytes
from seed_runtime.codecs import symbols
from seed_runtime.codecs.encode import grid as grid_encoder
from seed_runtime.codecs.encode import symbols as symbol_encoder
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.errors import DiskSpaceError, FormatError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Header, Hole, ModelInfo, Part, WeightsInfo
from seed_runtime.format.writer import stream_of
from seed_runtime.limits import CHUNK_CODED_MAX, CHUNK_DECODED_MAX, DELAY_MAX, PART_CODED_MAX, PART_RAW_MAX, SIDE_MAX
from tests.support.seed_builder import ALL, build_seed, decoded_weights

U8 = BY_NAME["uint8"]
HOLES = (Hole(U8, (3,), 0, 0), Hole(U8, (5,), 61, 64), Hole(BY_NAME["float32"], (2,), 59, 128))
WHOLE = b"abc" + bytes(61) + b"defgh" + bytes(59) + np.array([1, 2], "<f4").tobytes()


def portions(data: bytes, size: int) -> list[np.ndarray]:
    return [np.frombuffer(data[start : start + size], np.uint8) for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16, 100])
def test_values_in_portions_of_any_size_go_into_their_holes(size: int) -> None:
    out = bytearray()
    writer = WeightsWriter(HOLES, out.extend)
    for portion in portions(b"abcdefgh" + WHOLE[128:], size):
        writer.append(portion)
    assert bytes(out) == WHOLE
    assert writer.written == len(WHOLE)
    assert writer.digest() == hashlib.sha256(WHOLE).digest()


def test_values_of_any_type_and_order_are_written_in_c_order() -> None:
    out = bytearray()
    WeightsWriter((Hole(U8, (24,), 0),), out.extend).append(np.arange(6, dtype="<f4").reshape(2, 3).T)
    assert bytes(out) == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()


def test_more_values_than_holes_are_refused() -> None:
    writer = WeightsWriter(HOLES[:1], lambda data: None)
    with pytest.raises(FormatError, match="more bytes than the weights file has"):
        writer.append(np.zeros(4, np.uint8))


def test_assembling_writes_the_model_and_its_weights_and_nothing_else(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    folder = seed_runtime.open(io.BytesIO(build_seed())).assemble(
        tmp_path / "model", progress=lambda done, size: steps.append((done, size))
    )
    assert {entry.name for entry in folder.iterdir()} == {"model.onnx", "model.weights"}
    assert (folder / "model.weights").read_bytes() == decoded_weights()
    assert steps[-1] == (len(decoded_weights()), len(decoded_weights()))
    assert sorted(steps) == steps
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} <= {0o644, 0o664, 0o600}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="decodes in one process")
def test_a_seed_is_decoded_in_two_processes_where_memory_allows_it_and_else_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def fork() -> int:
        started.append(os.getpid())
        return real()

    real = os.fork
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    # Tests before this may have left a thread that only sleeps, such as that of progress bars.
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    for module in (assemble, symbols):
        monkeypatch.setattr(module, "BESIDE_LEAST", 1)
    # The streams of grid (two), split and lowrank have symbols.
    for name, tight, processes in (("free", False, 5), ("tight", True, 0)):
        seed = seed_runtime.open(io.BytesIO(build_seed()))
        least = seed.plan_assembly(cores=1).needed_bytes or 0
        assert (seed.plan_assembly().needed_bytes or 0) >= least + beside_bytes(seed.header) > least + (8 << 20)
        folder = seed.assemble(tmp_path / name, max_memory=least + (8 << 20) if tight else None)
        assert (folder / "model.weights").read_bytes() == decoded_weights()
        assert len(started) == processes
        started.clear()


def test_small_seeds_take_no_second_process() -> None:
    seed = seed_runtime.open(io.BytesIO(build_seed()))
    assert beside_bytes(seed.header) == 0
    assert seed.plan_assembly().cores == 1


def test_the_assembled_model_is_opened_by_plain_onnx_runtime(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = seed_runtime.open(io.BytesIO(build_seed(streams=("raw", "grid")))).assemble(tmp_path / "model")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.zeros((1, 3, 4), np.float32)})
    assert y[0, 2].tolist() == [2.0, -7.0, 902.0, 3.0]


def test_a_disk_without_room_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(assemble.shutil, "disk_usage", lambda path: usage(1000, 900, 100))
    with pytest.raises(DiskSpaceError) as caught:
        seed_runtime.open(io.BytesIO(build_seed())).assemble(tmp_path / "model")
    assert caught.value.exit_code == 13
    assert caught.value.free == 100
    assert caught.value.needed > len(decoded_weights())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(assemble, "decode_streams", full)
    with pytest.raises(DiskSpaceError):
        seed_runtime.open(io.BytesIO(build_seed())).assemble(tmp_path / "deep" / "model")
    assert list(tmp_path.iterdir()) == []


def many_chunks(size: int) -> tuple[Header, list[bytes]]:
    """One tensor of `size` zero bytes in deflated chunks of 1 MiB."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = b"\1\1" + encoder.compress(bytes(CHUNK_DECODED_MAX)) + encoder.flush()
    chunks = [chunk] * (size // CHUNK_DECODED_MAX)
    model = ModelInfo("m", 1, 1, size, size)
    part = Part(1, 0, 0, 0, bytes(32))
    weights, stream = WeightsInfo(size, bytes(32)), stream_of(1, 0, 1, chunks)
    return Header(model, weights, (part,), (Hole(U8, (size,), 0),), (stream,)), chunks


def test_memory_does_not_grow_with_the_model() -> None:
    peaks = []
    for size in (4 << 20, 32 << 20):
        header, chunks = many_chunks(size)
        written: list[int] = []
        tracemalloc.start()
        digest = decode_streams(
            header,
            lambda index, stream, chunks=chunks: map(memoryview, chunks),  # type: ignore[misc]
            lambda data, written=written: written.append(len(data)),  # type: ignore[misc]
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(written) == size
        assert digest == hashlib.sha256(bytes(size)).digest()
    assert abs(peaks[1] - peaks[0]) < 1 << 16
    assert max(peaks) < working_bytes(header)


def grid_of(side: int, delay: int | None) -> tuple[Header, list[bytes]]:
    """One matrix of `side` rows of four elements, the last ones of its columns dead, with every side array."""
    rng = np.random.default_rng(1)
    integers = rng.integers(-(1 << 21), 1 << 21, (side, 4)).astype(np.int32)
    integers[::7], integers[:, 2] = 0, 0
    codes = rng.integers(0, 30, side).astype(np.uint8)
    matrix = grid_encoder.matrix_of(QuantizedMatrix(integers, 0.5, codes, codes[:4], delay=delay))
    chunks = symbol_encoder.encode([matrix]).chunks
    size = 2 * integers.size
    weights, stream = WeightsInfo(size, bytes(32)), stream_of(2, 0, 1, chunks)
    part = Part(1, 0, 0, 0, bytes(32))
    hole = Hole(BY_NAME["bfloat16"], integers.shape, 0)
    return Header(ModelInfo("m", 1, 1, size, size), weights, (part,), (hole,), (stream,)), chunks


def test_the_plan_counts_a_trellis_that_is_as_long_as_its_matrix() -> None:
    (short, _), (long, _) = grid_of(100, None), grid_of(1000, None)
    chunks = [3 * max(header.streams[0].sizes) for header in (short, long)]
    assert working_bytes(long) - working_bytes(short) == 7 * (4000 - 400) + chunks[1] - chunks[0]


@pytest.mark.slow
def test_the_longest_trellis_stays_within_the_plan() -> None:
    # In a stream with as many rows and columns as there may be.
    header, coded = grid_of(SIDE_MAX - 4, DELAY_MAX)
    tracemalloc.start()
    decode_streams(header, lambda index, stream: map(memoryview, coded), lambda data: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All but the chunk as read, which was there before.
    assert 7 * DELAY_MAX + (4 << 20) < peak < working_bytes(header) - max(header.streams[0].sizes)


def test_a_stream_that_decodes_to_too_much_or_too_little_is_refused() -> None:
    header, chunks = many_chunks(2 << 20)
    for given in (chunks[:1], chunks * 2):
        with pytest.raises(FormatError, match="stream 0"):
            decode_streams(header, lambda index, stream, given=given: map(memoryview, given), lambda data: None)


def test_the_memory_that_a_header_can_ask_for_is_bounded() -> None:
    header, _ = many_chunks(1 << 20)
    worst = Header(
        header.model,
        WeightsInfo(header.weights.size, bytes(32)),
        (Part(1, 2, PART_RAW_MAX, PART_CODED_MAX, bytes(32)),),
        header.holes,
        (stream_of(1, 0, 1, [bytes(CHUNK_CODED_MAX)]),),
    )
    assert working_bytes(worst) <= 73 << 20


@pytest.mark.parametrize("name", ALL)
def test_each_codec_alone_makes_a_seed(name: str, tmp_path: Path) -> None:
    folder = seed_runtime.open(io.BytesIO(build_seed(streams=[name]))).assemble(tmp_path / "model")
    assert (folder / "model.weights").read_bytes() == decoded_weights([name])
