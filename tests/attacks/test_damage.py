"""A seed that was cut, flipped or extended, or is no seed, is refused with one line, and nothing is written."""

from __future__ import annotations

import io
import os
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.assembly.assemble import check_only
from seed_runtime.errors import FormatError, LimitError, MemoryBudgetError, NotASeedError, SeedError, UnsupportedError
from seed_runtime.format.reader import SeedReader
from tests.support.seed_builder import build_seed
from tests.support.spec_bytes import f32, number, u16, u32, varint

SEED = build_seed()


class Trickle(io.BytesIO):
    """A pipe: it has no length, and returns a few bytes at a time."""

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)[:100]  # type: ignore[arg-type]
        return super().readinto(view)


def pipe_is_refused(data: bytes) -> FormatError:
    with pytest.raises(FormatError) as caught:
        check_only(SeedReader(Trickle(data), "pipe"))
    assert caught.value.exit_code == 10
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_whole_seed_passes_the_same_way() -> None:
    check_only(SeedReader(Trickle(SEED), "pipe"))


def test_a_seed_cut_at_any_byte_is_refused_with_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.seed"
    path.write_bytes(SEED)
    for size in range(len(SEED) - 1, -1, -1):
        os.truncate(path, size)
        with pytest.raises(FormatError) as caught:
            seed_runtime.open(path)
        line = str(caught.value)
        assert caught.value.exit_code == 10
        assert "cut.seed" in line
        assert "copy it to the device again" in line
        assert "\n" not in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["cut.seed"]


def test_a_pipe_cut_at_any_byte_is_refused() -> None:
    for size in range(len(SEED)):
        assert ("ends after" if size else "is empty") in str(pipe_is_refused(SEED[:size]))


@pytest.mark.slow
def test_any_single_flipped_bit_is_refused() -> None:
    for place in range(len(SEED)):
        for bit in range(8):
            damaged = bytearray(SEED)
            damaged[place] ^= 1 << bit
            pipe_is_refused(bytes(damaged))


def test_one_bit_flipped_in_each_byte_is_refused() -> None:
    for place in range(len(SEED)):
        damaged = bytearray(SEED)
        damaged[place] ^= 1 << place % 8
        pipe_is_refused(bytes(damaged))


def test_a_cut_seed_leaves_nothing_of_an_assembly(tmp_path: Path) -> None:
    for size in (len(SEED) - 1, len(SEED) - 40, len(SEED) - 200):
        with pytest.raises(FormatError):
            seed_runtime.open(Trickle(SEED[:size])).assemble(tmp_path / "deep" / "model")
        assert list(tmp_path.iterdir()) == []


def test_a_damaged_seed_leaves_the_model_that_was_there(tmp_path: Path) -> None:
    seed_runtime.open(io.BytesIO(SEED)).assemble(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(FormatError):
        seed_runtime.open(Trickle(SEED[:-1])).assemble(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("tail", [b"\0", b"\n", SEED], ids=["a zero", "a line end", "another seed"])
def test_bytes_behind_the_end_are_refused(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "long.seed"
    path.write_bytes(SEED + tail)
    with pytest.raises(FormatError, match="bytes of"):
        seed_runtime.open(path)
    assert "bytes follow behind its end" in str(pipe_is_refused(SEED + tail))


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.seed", SEED)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89", b"import numpy\n" * 20, zipped(), b"\x08\x08\x12\x07pytorch" + bytes(200), SEED[:3], SEED[1:]],
    ids=["empty", "one byte", "text", "zip", "onnx", "the start of one", "without its first byte"],
)
def test_another_file_is_no_seed(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        with pytest.raises(FormatError) as caught:
            seed_runtime.open(source)
        assert caught.value.exit_code == 10
        whole_magic = SEED.startswith(data[:8]) or not data
        assert isinstance(caught.value, NotASeedError) != whole_magic


def test_a_folder_or_a_device_is_no_seed(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        seed_runtime.open(tmp_path)
    with pytest.raises(NotASeedError):
        seed_runtime.open("/dev/zero")


def test_a_seed_whose_line_ends_were_changed_is_no_seed() -> None:
    with pytest.raises(NotASeedError):
        seed_runtime.open(io.BytesIO(SEED.replace(b"\r\n", b"\n")))


def test_a_named_pipe_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(SEED))
    writer.start()
    with path.open("rb", buffering=0) as pipe:
        seed_runtime.open(pipe).assemble(tmp_path / "model")
    writer.join()
    assert (tmp_path / "model" / "model.weights").exists()


def test_a_pipe_is_read_once() -> None:
    seed = seed_runtime.open(io.BytesIO(SEED))
    seed.check()
    with pytest.raises(SeedError, match="save it to a file"):
        seed.check()


# What later versions may add


def test_unknown_optional_sections_and_parts_are_ignored(tmp_path: Path) -> None:
    def more_parts(original: bytes) -> bytes:
        import hashlib

        return original + u16(0x8123) + b"\x09" + varint(1000) + varint(0) + hashlib.sha256(b"").digest()

    data = build_seed(
        {"parts.count": varint(2), "parts.digest": more_parts, "header.end": u16(0x9ABC) + u32(3) + b"abc"}
    )
    seed = seed_runtime.open(io.BytesIO(data))
    assert seed.header.ignored == {0x9ABC: 3}
    seed.assemble(tmp_path / "model")
    assert (tmp_path / "model" / "model.weights").exists()


@pytest.mark.parametrize(
    "replaced",
    [
        {"section.id#4": u16(9)},
        {"parts.kind": u16(3)},
        {"streams.codec": b"\x0a"},
        {"hole.dtype": b"\x17"},
        {"parts.packing": b"\x03"},
        {"preamble.version": u16(2)},
        {"model.feature_level": varint(60000)},
        # Limits that a later release has raised.
        {"hole.rank": varint(9), "model.feature_level": varint(2)},
        {"golden.end": bytes(2000), "model.feature_level": varint(2)},
    ],
    ids=lambda replaced: next(iter(replaced)),
)
def test_what_is_newer_than_the_runtime_says_so(replaced: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="update it: pip install") as caught:
        seed_runtime.open(io.BytesIO(build_seed(replaced))).assemble(tmp_path / "model")
    assert caught.value.exit_code == 12
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_version_is_damage_and_no_newer_version() -> None:
    damaged = bytearray(SEED)
    damaged[8] ^= 2
    assert not isinstance(pipe_is_refused(bytes(damaged)), UnsupportedError)


# Sizes that add up to too much


def test_memory_that_the_header_asks_for_counts_under_a_limit(tmp_path: Path) -> None:
    seed = seed_runtime.open(io.BytesIO(build_seed({"weights.working_bytes": varint(1 << 39)})))
    with pytest.raises(MemoryBudgetError) as caught:
        seed.assemble(tmp_path / "model", max_memory=1 << 30)
    assert caught.value.exit_code == 14
    assert list(tmp_path.iterdir()) == []


def large(rows: int, cols: int) -> dict[str, bytes]:
    """Return a seed with one tensor of that many elements, in the header and in the skeleton."""
    size = 4 * rows * cols
    return {
        "weights.size": varint(size),
        "hole.dimension": varint(rows),
        "hole.dimension#1": varint(cols),
        "skeleton.dims": number(1, rows) + number(1, cols),
        "skeleton.length": str(size).encode(),
    }


# Without arrays of the sides.
PLAIN = dict.fromkeys(("head.row_steps", "head.row_classes", "head.col_classes"), b"") | {"matrix.flags": b"\0"}
WIDE = large(8, 1 << 18)


@pytest.mark.parametrize(
    ("name", "replaced", "text"),
    [
        ("grid", large(1 << 20, 4), "rows and columns: 1,048,580"),
        ("grid", large(1 << 14, 4) | PLAIN, "steps of a chunk: 32,768"),
        ("grid", large(16385, 1) | PLAIN | {"matrix.columns": b"\1"}, "steps of a chunk: 8,193"),
        ("lowrank", WIDE | {"lowrank.columns": varint(1 << 18), "lowrank.rank": varint(5)}, "right factor"),
        ("moments", WIDE | {"moments.columns": varint(1 << 18), "moments.components": varint(5)}, "components"),
    ],
)
def test_large_factors_and_sides_are_refused_before_they_are_allocated(
    name: str, replaced: dict[str, bytes], text: str
) -> None:
    seed = seed_runtime.open(io.BytesIO(build_seed(replaced, streams=[name])))
    tracemalloc.start()
    with pytest.raises(LimitError, match=text):
        seed.check()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_a_lane_must_end_where_it_began_even_if_nothing_is_coded_in_it() -> None:
    # Four symbols of 1,024 slots each in eight lanes: 65536 // 1024 << 12, and the start of each.
    states = [(64 << 12) + start for start in (2048, 1024, 0, 3072)] + [65536] * 4
    replaced = {"split/head.lanes": b"\3", "split/data_chunk.states": b"".join(map(u32, states))}
    seed_runtime.open(io.BytesIO(build_seed(replaced))).check()
    replaced["split/data_chunk.states"] = b"".join(map(u32, [*states[:7], 65537]))
    with pytest.raises(FormatError, match="its lanes do not end where they began"):
        seed_runtime.open(io.BytesIO(build_seed(replaced))).check()


def test_golden_inputs_share_one_limit() -> None:
    from seed_runtime.golden import Golden

    record = b"\x00\x01\x01" + varint(1 << 22) + f32(0, 0)
    with pytest.raises(LimitError, match="all inputs"):
        Golden.unpack(varint(0) + varint(2) + record * 2 + varint(0))


def test_a_golden_sample_that_is_not_met_is_no_error_but_a_verdict(tmp_path: Path) -> None:
    from seed_runtime.assembly.cache import ModelCache

    changes: list[dict[str, bytes | Callable[[bytes], bytes]]] = [
        {"golden_output.norm": f32(902.5)},
        {"golden_output.values": f32(2, 2, 2, 7)},
        {"golden_output.size": varint(13)},
        {"golden_output.outliers": varint(1)},
    ]
    for place, replaced in enumerate(changes):
        seed = seed_runtime.open(io.BytesIO(build_seed(replaced)))
        with seed.session(cache=ModelCache(tmp_path / str(place), 1 << 30)) as session:
            verdict = session.verify()
        assert (verdict.present, verdict.ok) == (True, False)
