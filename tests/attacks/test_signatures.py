"""Signed seeds that an attacker changed: a device with allowed signers accepts none of them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.errors import SeedError, TrustError
from tests.attacks.test_random import random_change
from tests.support.seed_builder import build_fields
from tests.support.signing import (
    STREAMS,
    accepted_file,
    add_signature,
    join_header,
    needs_ssh_keygen,
    sign_seed,
    split_header,
    trusted_key,
    unsigned_seed,
)
from tests.support.spec_bytes import u16, u32, varint

pytestmark = needs_ssh_keygen


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return trusted_key(tmp_path)


def code_of(data: bytes) -> int:
    """Return the exit code of opening and checking a seed: 0 if it is accepted."""
    try:
        seed_runtime.open(io.BytesIO(data)).check()
    except SeedError as error:
        return error.exit_code
    return 0


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def test_the_valid_signed_seed_is_accepted(key: Path) -> None:
    assert code_of(sign_seed(unsigned_seed("bell", 1), key)) == 0


# Each step apart costs two processes of ssh-keygen: all of them take 30 s.
STEPS = [pytest.param(1, marks=pytest.mark.slow), 19]


@pytest.mark.parametrize("step", STEPS)
def test_a_bit_flipped_in_any_byte_of_a_signed_seed_is_refused(key: Path, step: int) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    assert {code_of(flipped(data, place, place % 8)) for place in range(0, len(data), step)} <= {10, 11}
    assert not accepted_file().exists()


@pytest.mark.parametrize("step", STEPS)
def test_a_bit_flipped_in_any_byte_is_refused_if_the_attacker_makes_the_digest_right_again(
    key: Path, step: int
) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    header, body = split_header(data)
    codes = {code_of(join_header(flipped(header, place, place % 8), body)) for place in range(0, len(header), step)}
    # 12: the flip makes the seed look newer than this runtime; it isn't accepted either.
    assert codes <= {10, 11, 12}
    assert {10, 11} <= codes
    assert not accepted_file().exists()


@pytest.mark.parametrize("step", STEPS)
def test_a_bit_flipped_in_any_byte_of_the_signature_is_refused_by_signature_alone(key: Path, step: int) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    header, body = split_header(data)
    first = len(header) - len(seed_runtime.open(io.BytesIO(data)).header.signature or b"")
    for place in range(first, len(header), step):
        assert code_of(join_header(flipped(header, place, place % 8), body)) == 11


@pytest.mark.parametrize(
    "replaced",
    [
        {"model.id": b"\x04bel2"},
        {"model.version": varint(2)},
        {"weights.digest": bytes(32)},
        {"weights.working_bytes": varint(5)},
        {"parts.digest": bytes(32)},
        {"streams.chunk_digest": bytes(16)},
        {"golden_output.tolerance": b"\0\0\0\x7e"},
        {"footprint.peak": varint(1)},
        {"raw_chunk.data": bytes(16)},
        {"skeleton.name": b"wrong"},
        {"header.end": u16(0x8999) + u32(0)},
    ],
    ids=lambda replaced: next(iter(replaced)),
)
def test_the_signature_of_a_valid_seed_fits_no_changed_one(key: Path, replaced: dict[str, bytes]) -> None:
    signature = seed_runtime.open(io.BytesIO(sign_seed(unsigned_seed("bell", 1), key))).header.signature
    assert signature is not None
    with pytest.raises(TrustError, match="signature is wrong"):
        seed_runtime.open(io.BytesIO(add_signature(unsigned_seed("bell", 1, replaced=replaced), signature)))


def test_a_signature_taken_off_or_put_elsewhere_helps_nobody(key: Path) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    header, body = split_header(data)
    start = len(split_header(unsigned_seed("bell", 1))[0])
    assert code_of(join_header(header[:start], body)) == 11
    for number in (0x8999, 0xFFFE):
        assert code_of(join_header(header[:start] + u16(number) + header[start + 2 :], body)) == 11
    assert code_of(join_header(header + header[start:], body)) == 10  # twice
    assert code_of(join_header(header[start:] + header[:start], body)) == 10  # first
    assert code_of(join_header(header + u16(0xFFFF) + u32(0), body)) == 10


def test_wrong_fields_under_a_valid_signature_are_damage_all_the_same(key: Path) -> None:
    assert code_of(sign_seed(unsigned_seed("bell", 1, replaced={"weights.digest": bytes(32)}), key)) == 10
    assert code_of(sign_seed(unsigned_seed("bell", 1, replaced={"hole.rank": varint(9)}), key)) == 10
    assert not accepted_file().exists()


def test_random_changes_under_the_signature_of_a_valid_seed_are_refused(key: Path) -> None:
    signature = seed_runtime.open(io.BytesIO(sign_seed(unsigned_seed("bell", 1), key))).header.signature
    assert signature is not None
    draw, originals = random.Random(7), dict(build_fields(streams=STREAMS))
    # Sizes and digest in the preamble are not signed: they follow from the rest.
    names = sorted(name for name in originals if not name.startswith("preamble."))
    valid = unsigned_seed("bell", 1)
    for _ in range(40):
        name = draw.choice(names)
        data = unsigned_seed("bell", 1, replaced={name: random_change(originals[name], draw)})
        assert data == valid or code_of(add_signature(data, signature)) in (10, 11, 12), name
    assert not accepted_file().exists()
