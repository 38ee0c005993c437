"""Random values in random fields, digests valid: the seed is refused or accepted, and nothing else happens."""

from __future__ import annotations

import io
import random
import tracemalloc

import pytest

import seed_runtime
from seed_runtime.errors import SeedError
from seed_runtime.golden import Golden
from tests.attacks.test_fields import PEAK_MAX
from tests.support.seed_builder import build_fields, build_seed


def random_change(original: bytes, draw: random.Random) -> bytes:
    """Return the bytes flipped, cut, longer, of another size, or something else altogether."""
    kind = draw.randrange(6)
    data = bytearray(original)
    if kind == 0 and data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 1 and data:
        del data[draw.randrange(len(data)) :]
    elif kind == 2:
        data += draw.randbytes(draw.randrange(1, 9))
    elif kind == 3 and data:
        data[draw.randrange(len(data))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
    elif kind == 4:
        data = bytearray(b"\xff" * draw.randrange(1, 8) + b"\x01")
    else:
        data = bytearray(draw.randbytes(len(data)))
    return bytes(data)


def error_of(data: bytes) -> SeedError | None:
    try:
        seed = seed_runtime.open(io.BytesIO(data))
        seed.footprint()
        if seed.header.golden is not None:
            Golden.unpack(seed.header.golden)
        seed.check()
    except SeedError as error:
        return error
    return None


def try_random_changes(rng_seed: int, count: int) -> tuple[int, int]:
    """Return how many changed seeds were refused and how many accepted."""
    draw, names = random.Random(rng_seed), sorted({name for name, _ in build_fields()})
    originals = dict(build_fields())
    refused = 0
    for _ in range(count):
        chosen = draw.sample(names, draw.choice([1, 1, 1, 2, 3]))
        replaced = {name: random_change(originals[name], draw) for name in chosen}
        data = build_seed(replaced)
        error = error_of(data)
        if error is not None:
            assert error.exit_code in (10, 12), replaced
            assert "\n" not in str(error), replaced
            refused += 1
    return refused, count - refused


@pytest.mark.parametrize("rng_seed", range(3))
def test_random_changes_are_refused_or_accepted_and_nothing_else(rng_seed: int) -> None:
    tracemalloc.start()
    try:
        refused, accepted = try_random_changes(rng_seed, 60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused > 40
    assert accepted > 0  # such as another version of the model
    assert peak < PEAK_MAX


@pytest.mark.slow
def test_many_random_changes_are_refused_or_accepted_and_nothing_else() -> None:
    assert sum(try_random_changes(1000, 2000)) == 2000
