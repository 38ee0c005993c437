from __future__ import annotations

import lzma
import tracemalloc
import zlib
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from seed_runtime.codecs import raw
from seed_runtime.codecs.encode import raw as encoder
from seed_runtime.errors import FormatError, LimitError, UnsupportedError
from seed_runtime.limits import CHUNK_DECODED_MAX
from tests.support.streams import decode, hole

PLANES = b"\x00\x02" + b"\x02\x04" + b"\x01\x03"  # stored; width 2; low bytes, high bytes of 0x0102 and 0x0304
STORED_BLOCK = b"\x01\x04\x00\xfb\xff"  # deflate: final, stored, length 4, its complement


def test_planes_written_by_hand_are_interleaved_again() -> None:
    assert decode("raw", [hole(2, dtype="uint16")], [PLANES]) == b"\x02\x01\x04\x03"
    assert decode("raw", [hole(1)], [b"\x00\x04\x01\x02\x03\x04"]) == b"\x01\x02\x03\x04"


def test_deflate_written_by_hand_is_unpacked() -> None:
    assert decode("raw", [hole(4, dtype="int8")], [b"\x01\x01" + STORED_BLOCK + b"seed"]) == b"seed"


def test_tensors_of_all_types_share_a_chunk() -> None:
    holes = [hole(3, dtype="int8"), hole(1, dtype="float16"), hole(3, dtype="int4")]
    assert decode("raw", holes, [b"\x00\x01" + b"abcdefg"]) == b"abcdefg"


def test_a_chunk_cut_at_any_byte_is_refused() -> None:
    for size in range(len(PLANES)):
        with pytest.raises(FormatError):
            decode("raw", [hole(2, dtype="uint16")], [PLANES[:size]])


@pytest.mark.parametrize(
    "chunk",
    [
        PLANES + b"\x00",
        b"\x00\x00" + PLANES[2:],
        b"\x00\x03" + PLANES[2:],
        b"\x00\x08" + PLANES[2:],
        b"\x00\x10" + PLANES[2:],
        b"\x01\x01" + STORED_BLOCK + b"see",
        b"\x01\x01" + STORED_BLOCK + b"seeds",
        b"\x01\x01" + b"\x00" + STORED_BLOCK[1:] + b"seed",
        b"\x01\x01" + b"\x07" * 9,
        b"\x02\x01",
        b"\x02\x01\xff\x10" + b"\x00" * 9,
        b"\x02\x01\x5d\x0b" + b"\x00" * 9,
        b"\x02\x01\x5d\x15" + b"\x00" * 9,
        b"\x02\x01\x5d\xff" + b"\x00" * 9,
        b"\x02\x01\x5d\x10" + b"\xff" * 9,
    ],
    ids=[
        "trailing byte", "width 0", "width 3", "width beyond the data", "width 16", "short block",
        "bytes behind deflate", "deflate without its end", "no deflate", "no LZMA", "LZMA properties",
        "small dictionary", "large dictionary", "gigantic dictionary", "no LZMA data",
    ],
)  # fmt: skip
def test_a_chunk_that_lies_is_refused(chunk: bytes) -> None:
    with pytest.raises(FormatError):
        decode("raw", [hole(2, dtype="uint16")], [chunk])


def test_a_packing_that_came_later_asks_for_a_newer_runtime() -> None:
    with pytest.raises(UnsupportedError, match="packing 3"):
        decode("raw", [hole(2, dtype="uint16")], [b"\x03\x02" + PLANES[2:]])


def test_a_dictionary_over_the_limit_is_named_so() -> None:
    with pytest.raises(LimitError, match="dictionary"):
        decode("raw", [hole(4, dtype="int8")], [b"\x02\x01\x5d\x15" + b"\x00" * 9])


@pytest.mark.parametrize("packing", [1, 2])
def test_a_bomb_is_not_unpacked_beyond_its_size(packing: int) -> None:
    bomb = bytes(8 << 20)
    if packing == 1:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        coded = deflate.compress(bomb) + deflate.flush()
    else:
        one = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}
        coded = b"\x00\x10" + lzma.compress(bomb, lzma.FORMAT_RAW, filters=[one])
    del bomb
    tracemalloc.start()
    with pytest.raises(FormatError):
        decode("raw", [hole(1000)], [bytes([packing, 1]) + coded])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_chunks_missing_and_chunks_too_many_are_refused() -> None:
    with pytest.raises(FormatError, match="4 bytes early"):
        decode("raw", [hole(2, dtype="uint16")], [])
    with pytest.raises(FormatError, match="more chunks"):
        decode("raw", [hole(2, dtype="uint16")], [PLANES, PLANES])


@pytest.mark.parametrize(
    ("width", "size"),
    [*product([1, 2, 4, 8], [8, 1000]), (1, CHUNK_DECODED_MAX), (4, CHUNK_DECODED_MAX + 8)],
)
def test_bytes_round_trip(width: int, size: int, rng: np.random.Generator) -> None:
    data = np.repeat(rng.integers(0, 256, size // 4, np.uint8), 4).tobytes()
    chunks = encoder.encode(data, width)
    assert len(chunks) == -(-size // CHUNK_DECODED_MAX)
    assert sum(map(len, chunks)) < size or size == 8
    assert decode("raw", [hole(size, dtype="uint8")], chunks) == data


def test_memory_does_not_grow_with_the_stream() -> None:
    def peak(chunks: int) -> int:
        def coded() -> Iterator[memoryview]:
            for _ in range(chunks):
                yield memoryview(b"\x00\x04" + bytes(CHUNK_DECODED_MAX))

        tracemalloc.start()
        total = sum(block.nbytes for block in raw.decode([hole(chunks, CHUNK_DECODED_MAX // 4)], coded(), "stream 0"))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == chunks * CHUNK_DECODED_MAX
        return top

    assert peak(8) < peak(2) + (64 << 10)


def windowed_waves(bins: int) -> np.ndarray:
    """The filter bank of a spectrogram: each row a wave under the same window, `(2 * bins, 2 * (bins - 1))`."""
    size = 2 * (bins - 1)
    phases = 2 * np.pi / size * (np.arange(bins)[:, None] * np.arange(size) % size)
    window = np.hanning(size + 1)[:-1]
    return np.concatenate([np.cos(phases) * window, -np.sin(phases) * window]).astype(np.float32)


@pytest.mark.parametrize("bins", [125, 129, 193])
def test_repetitions_are_found_on_either_side_of_every_size(bins: int) -> None:
    # 250,000 bytes, 264,192 as in a model of the field, and 592,896.
    bank = windowed_waves(bins)
    (chunk,) = encoder.encode(bank.tobytes(), 4)
    assert len(chunk) < 0.25 * bank.nbytes
    assert decode("raw", [hole(*bank.shape)], [chunk]) == bank.tobytes()


def test_lzma_is_given_no_more_bytes_than_a_stream_may(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    compressor = lzma.LZMACompressor

    class Counting:
        def __init__(self, *args: object, **options: object) -> None:
            self.inner = compressor(*args, **options)  # type: ignore[call-overload]

        def compress(self, data: bytes) -> bytes:
            given.append(len(data))
            return self.inner.compress(data)

        def flush(self) -> bytes:
            return self.inner.flush()

    monkeypatch.setattr(lzma, "LZMACompressor", Counting)
    # A chunk that is too large for it, and a small one behind.
    data = np.arange(CHUNK_DECODED_MAX // 4 + 30_000, dtype=np.uint32).tobytes()
    chunks = encoder.encode(data, 4, work=encoder.Work(700_000))
    assert 0 < sum(given) <= 700_000
    assert [chunk[0] for chunk in chunks] == [1, 2]
    assert encoder.encode(data, 4, work=encoder.Work(700_000)) == chunks
