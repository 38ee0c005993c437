"""Front to back: what the writer puts into a file, the reader hands on, each byte behind its digest."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.errors import DigestError, FormatError, InputError, LimitError, NotASeedError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Header, Hole, ModelInfo, Part, WeightsInfo
from seed_runtime.format.preamble import MAGIC, PREAMBLE_BYTES
from seed_runtime.format.reader import SeedReader
from seed_runtime.format.writer import front, stream_of, write_seed
from tests.support.seed_builder import build_seed
from tests.support.wrong_files import ARCHIVE, PAGES, POINTER

PARTS = [b"skeleton", b"labels"]
CHUNKS = [[b"a" * 10], [b"b" * 300, b"", b"c"]]


def header() -> Header:
    first = Part(1, 0, 8, 8, hashlib.sha256(PARTS[0]).digest())
    second = Part(0x8002, 0, 6, 6, hashlib.sha256(PARTS[1]).digest())
    hole = Hole(BY_NAME["uint8"], (4,), 0)
    return Header(
        model=ModelInfo("m", 1, 1, 8, 32),
        weights=WeightsInfo(68, bytes(32)),
        parts=(first, second),
        holes=(hole, Hole(BY_NAME["uint8"], (4,), 60, 64)),
        streams=(stream_of(1, 0, 1, CHUNKS[0]), stream_of(2, 1, 1, CHUNKS[1])),
    )


def whole() -> bytes:
    return front(header()) + b"".join(PARTS) + b"".join(CHUNKS[0] + CHUNKS[1])


def reader(data: bytes) -> SeedReader:
    return SeedReader(io.BytesIO(data), "m.seed")


def test_the_preamble_is_as_specified() -> None:
    data = whole()
    assert data[:8] == bytes.fromhex("89 53 45 45 44 0d 0a 1a") == MAGIC
    assert data[8:12] == bytes.fromhex("01 00 00 00")
    size = int.from_bytes(data[12:16], "little")
    assert int.from_bytes(data[16:24], "little") == len(data)
    assert data[24:56] == hashlib.sha256(data[:24] + data[56 : 56 + size]).digest()
    assert PREAMBLE_BYTES == 56


def test_all_is_handed_on_in_the_order_of_the_file() -> None:
    source = reader(whole())
    assert bytes(source.part_bytes(source.header.parts[0])) == PARTS[0]
    source.skip_part(source.header.parts[1])
    for index, stream in enumerate(source.header.streams):
        assert [bytes(chunk) for chunk in source.chunks(index, stream)] == CHUNKS[index]
    source.finish()


def test_a_chunk_is_read_when_it_is_asked_for() -> None:
    stream = io.BytesIO(whole())
    source = SeedReader(stream, "m.seed")
    start = stream.tell()
    assert start == PREAMBLE_BYTES + source.header_size
    for part in source.header.parts:
        source.skip_part(part)
    next(source.chunks(0, source.header.streams[0]))
    assert stream.tell() == start + 14 + 10


@pytest.mark.parametrize("place", range(4))
def test_damage_is_named_by_its_place(place: int) -> None:
    data = bytearray(whole())
    body = len(front(header()))
    data[body + [0, 8, 14, 24][place]] ^= 1
    source = reader(bytes(data))
    with pytest.raises(
        DigestError, match=["part 0x0001", "part 0x8002", "stream 0, chunk 0", "stream 1, chunk 0"][place]
    ):
        _read_all(source)


def _read_all(source: SeedReader) -> None:
    source.part_bytes(source.header.parts[0])
    source.skip_part(source.header.parts[1])
    for index, stream in enumerate(source.header.streams):
        for _ in source.chunks(index, stream):
            pass
    source.finish()


def test_the_same_header_gives_the_same_bytes() -> None:
    assert front(header()) == front(header())
    assert front(replace(header(), weights=WeightsInfo(8, b"\1" * 32))) != front(header())


def test_the_digest_of_a_seed_names_all_of_it() -> None:
    changed = [b"b" * 299 + b"x", b"", b"c"]
    streams = (header().streams[0], stream_of(2, 1, 1, changed))
    assert (
        reader(whole()).digest
        != SeedReader(
            io.BytesIO(front(replace(header(), streams=streams)) + b"".join([*PARTS, *CHUNKS[0], *changed])), "m"
        ).digest
    )


def test_a_seed_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.seed"
    path.write_bytes(b"an older one")
    size = write_seed(path, header(), PARTS, (chunk for chunks in CHUNKS for chunk in chunks))
    assert path.read_bytes() == whole()
    assert size == len(whole())
    assert os.listdir(tmp_path) == ["m.seed"]


def test_an_error_while_writing_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "m.seed"
    path.write_bytes(b"an older one")

    def failing() -> object:
        yield b"x"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_seed(path, header(), PARTS, failing())  # type: ignore[arg-type]
    assert path.read_bytes() == b"an older one"
    assert os.listdir(tmp_path) == ["m.seed"]


def test_sizes_are_checked_before_anything_is_read() -> None:
    class Counting(io.BytesIO):
        taken = 0

        def readinto(self, buffer: object) -> int:
            self.taken += (got := super().readinto(buffer))  # type: ignore[arg-type]
            return got

    for replaced in ({"preamble.header_size": b"\xff" * 4}, {"preamble.file_size": b"\xff" * 8}):
        source = Counting(build_seed(replaced))
        with pytest.raises(LimitError):
            SeedReader(source, "m.seed")
        assert source.taken == PREAMBLE_BYTES


def test_a_newer_version_is_not_taken_for_damage() -> None:
    with pytest.raises(UnsupportedError, match=r"version 2 \(flags 0x0\) is newer"):
        reader(build_seed({"preamble.version": b"\2\0"}))
    with pytest.raises(DigestError):
        reader(build_seed().replace(b"SEED\r\n\x1a\1", b"SEED\r\n\x1a\2", 1))


def test_a_file_is_measured_and_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "m.seed").write_bytes(whole()[:-1])
    with (
        (tmp_path / "m.seed").open("rb", buffering=0) as file,
        pytest.raises(FormatError, match="it has 616 bytes of 617"),
    ):
        SeedReader(file, "m.seed")
    with pytest.raises(FormatError, match="stream 1, chunk 2: it ends after 0 of 1 bytes"):
        _read_all(reader(whole()[:-1]))
    with pytest.raises(FormatError, match="bytes follow behind its end"):
        _read_all(reader(whole() + b"\0"))


def test_what_begins_otherwise_is_no_seed() -> None:
    for data in (b"GGUF" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(100), b"\x89SEEE"):
        with pytest.raises(NotASeedError, match="this is not a seed; make a seed with"):
            reader(data)


@pytest.mark.parametrize("data", [POINTER, *PAGES, ARCHIVE])
def test_what_was_saved_in_place_of_a_seed_is_named(data: bytes) -> None:
    with pytest.raises(NotASeedError, match=r"this is (a Git LFS pointer|a web page|an archive)") as caught:
        reader(data)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert "seed-export" not in str(again)


def test_a_seed_that_is_replaced_while_it_is_in_use_is_not_mixed_with_the_other(tmp_path: Path) -> None:
    path = tmp_path / "m.seed"
    path.write_bytes(build_seed())
    seed = seed_runtime.open(path)
    (tmp_path / "new.seed").write_bytes(build_seed(streams=("raw", "grid")))
    os.replace(tmp_path / "new.seed", path)
    with pytest.raises(InputError, match="was replaced by another seed"):
        seed.assemble(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_name_of_a_pipe_is_no_number() -> None:
    inlet, outlet = os.pipe()
    with os.fdopen(outlet, "wb") as sink:
        sink.write(build_seed())
    with os.fdopen(inlet, "rb") as source:
        assert seed_runtime.open(source).name == "seed"
