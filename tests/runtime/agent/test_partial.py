"""How much of a cut or damaged transfer is confirmed."""

from __future__ import annotations

import hashlib
import os
import random
from itertools import accumulate
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.agent.store import partial
from seed_runtime.errors import FormatError, UsageError
from seed_runtime.format.preamble import PREAMBLE_BYTES
from tests.runtime.agent.support.device_agent import digest_of, seed
from tests.support.seed_builder import build_seed

SEED = build_seed()


def ends(data: bytes, tmp_path: Path) -> list[int]:
    """Return the offsets at which the header, each part and each chunk end."""
    (tmp_path / "ends.seed").write_bytes(data)
    opened = seed_runtime.open(tmp_path / "ends.seed")
    sizes = [part.size for part in opened.header.parts]
    sizes += [size for stream in opened.header.streams for size in stream.sizes]
    return [0, *accumulate([PREAMBLE_BYTES + opened.header_size, *sizes])]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / f"{digest_of(SEED)}.part"


def test_a_whole_seed_is_whole(part: Path) -> None:
    part.write_bytes(SEED)
    front = partial.check(part, digest_of(SEED))
    assert front.is_whole
    assert front.have == front.file_size == len(SEED)
    assert front.weights_size == seed_runtime.open(part).header.weights.size
    assert partial.is_whole(part, digest_of(SEED))
    assert partial.looks_whole(part, digest_of(SEED))


def test_of_a_cut_seed_everything_up_to_the_last_whole_chunk_counts(part: Path, tmp_path: Path) -> None:
    for data in (SEED, seed()):
        known = ends(data, tmp_path)
        assert len(known) > 3
        places = {end + beside for end in known for beside in (-1, 0, 1)} | {*range(0, len(data), 199)}
        for size in sorted(place for place in places if 0 <= place < len(data)):
            part.write_bytes(data[:size])
            kept = max(end for end in known if end <= size)
            assert partial.check(part, digest_of(data)).have == kept
            assert part.stat().st_size == size
            assert not partial.looks_whole(part, digest_of(data))
            assert not partial.is_whole(part, digest_of(data))
            partial.trim(part, digest_of(data))
            assert part.read_bytes() == data[:kept]


def test_garbage_that_a_power_cut_left_at_the_end_is_cut_off(part: Path, tmp_path: Path) -> None:
    known, rng = ends(SEED, tmp_path), random.Random(0)
    for _ in range(50):
        place = rng.randrange(len(SEED))
        tail = rng.choice([bytes(len(SEED) - place), rng.randbytes(len(SEED) - place), bytes(2 * len(SEED))])
        if SEED[place] == tail[0]:
            continue
        part.write_bytes(SEED[:place] + tail)
        assert partial.trim(part, digest_of(SEED))[0].have == max(end for end in known if end <= place)
        assert SEED.startswith(part.read_bytes())


def test_bytes_after_the_end_are_cut_off(part: Path) -> None:
    part.write_bytes(SEED + b"more")
    assert not partial.is_whole(part, digest_of(SEED))
    assert not partial.looks_whole(part, digest_of(SEED))
    assert partial.trim(part, digest_of(SEED))[0].is_whole
    assert part.read_bytes() == SEED


def test_another_seed_counts_for_nothing(part: Path) -> None:
    part.write_bytes(seed())
    assert not partial.looks_whole(part, digest_of(SEED))
    assert partial.trim(part, digest_of(SEED))[0] == partial.Front(0)
    assert part.read_bytes() == b""


def test_the_quick_check_finds_a_changed_header_and_not_a_changed_chunk(part: Path) -> None:
    changed = bytearray(SEED)
    changed[PREAMBLE_BYTES + 3] ^= 1
    part.write_bytes(changed)
    assert not partial.looks_whole(part, digest_of(SEED))
    part.write_bytes(SEED[:-1] + bytes([SEED[-1] ^ 1]))
    assert partial.looks_whole(part, digest_of(SEED))
    assert not partial.is_whole(part, digest_of(SEED))


@pytest.mark.parametrize("look", [partial.looks_whole, partial.is_whole])
def test_a_file_that_is_not_there_is_not_whole(look: object, part: Path) -> None:
    assert not look(part, digest_of(SEED))  # type: ignore[operator]


def test_anything_but_a_regular_file_is_refused(part: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(SEED)
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="link"):
        partial.trim(part, digest_of(SEED))
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(FormatError, match="not a file"):
        partial.check(part, digest_of(SEED))
    assert (tmp_path / "elsewhere").read_bytes() == SEED


def test_progress_ends_with_the_whole_size(part: Path) -> None:
    part.write_bytes(SEED)
    reported: list[tuple[int, int]] = []
    partial.check(part, digest_of(SEED), lambda done, total: reported.append((done, total)))
    assert reported == sorted(reported)
    assert reported[-1] == (len(SEED), len(SEED))


def test_digests_of_blocks_are_given_for_bytes_that_no_digest_of_the_seed_confirms(tmp_path: Path) -> None:
    part = tmp_path / f"{'0' * 64}.part"
    data = bytes(range(256)) * 2048
    part.write_bytes(data + b"rest")
    front, tail = partial.trim(part, "0" * 64)
    block = partial.BLOCK
    assert (front, len(tail)) == (partial.Front(0), len(data) // block)
    assert tail == [hashlib.sha256(data[at : at + block]).hexdigest() for at in range(0, len(data), block)]
    assert part.stat().st_size == len(data)
    partial.cut(part, block)
    assert part.read_bytes() == data[:block]
    with pytest.raises(UsageError, match="at most that"):
        partial.cut(part, block + 1)
