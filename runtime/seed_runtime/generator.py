"""Numbers drawn from a counter: the same bits on every machine (SPEC.md, "Generator").

Value i depends on `rng_seed` and on i alone, so any part of a sequence can be drawn on its own.
The noise of `moments` and the inputs of golden samples come from here.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), SplitMix64.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

GAMMA: Final = 0x9E3779B97F4A7C15
"""Increment of SplitMix64's state for each output: 2**64 over the golden ratio, odd."""

ZEROS: Final = 0
UNIFORM: Final = 1
NORMAL: Final = 2
INTEGERS: Final = 3
KINDS: Final = {ZEROS: "zeros", UNIFORM: "uniform", NORMAL: "normal", INTEGERS: "integers"}
"""The kinds of `fill`, by the number that stands in a seed."""

NORMAL_SCALE: Final = np.float32(float.fromhex("0x1.bb67aep-16"))
"""One over the standard deviation of the sum of four 16-bit lanes: sqrt(3) * 2**-16, rounded to float32."""
_NORMAL_CENTRE = np.int32(2 * 0xFFFF)

_REACH = 2.0**62
"""Magnitude that limits of a kind must stay below, so that neither a float32 nor an int64 overflows."""

WINDOW: Final = 1 << 14
"""Values that are made at a time; the counters take 8 bytes each."""

_MASK = (1 << 64) - 1
_LANES = np.uint64(0x0000FFFF0000FFFF)
_HALF = np.uint64(0xFFFFFFFF)


def raw(rng_seed: int, start: int, count: int) -> U64:
    """Return outputs `start` to `start + count` of SplitMix64, `(count,)`.

    Args:
        rng_seed: the state before the first output, 0 to 2**64 - 1.
        start: number of the first output that is wanted, from 0.
        count: how many are wanted.
    """
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64)
        z *= np.uint64(GAMMA)
        z += np.uint64((rng_seed + start * GAMMA) & _MASK)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def uniform(rng_seed: int, start: int, count: int, low: float, high: float) -> F32:
    """Return floats of `[low, high)`, `(count,)`: `low + (high - low) * u`, each operation rounded to float32.

    u is the upper 24 bits of an output over 2**24. Where rounding reaches `high`, the float32 below is taken.
    """
    first, last = np.float32(low), np.float32(high)
    if not first < last or not np.isfinite(last - first):
        raise ValueError(f"no floats between {low} and {high}")
    values = (raw(rng_seed, start, count) >> np.uint64(40)).astype(np.float32)
    values *= np.float32(2.0**-24)
    values *= last - first
    values += first
    return np.minimum(values, np.nextafter(last, first), out=values)


def normal(rng_seed: int, start: int, count: int, mean: float, std: float) -> F32:
    """Return floats of about a normal distribution, `(count,)`: `mean + std * z`, each operation rounded to float32.

    z is the sum of an output's four 16-bit lanes, less 131,070, times NORMAL_SCALE. It stays within 3.47, its
    variance is 1 and its excess kurtosis -0.3 (Irwin-Hall of four): near enough for noise and for inputs, and
    made of integers, where Box-Muller would need a logarithm that differs from machine to machine.
    """
    bits = raw(rng_seed, start, count)
    pairs = bits & _LANES
    bits >>= np.uint64(16)
    bits &= _LANES
    pairs += bits
    total = ((pairs & _HALF) + (pairs >> np.uint64(32))).astype(np.int32)
    total -= _NORMAL_CENTRE
    values = total.astype(np.float32)
    values *= NORMAL_SCALE
    values *= np.float32(std)
    values += np.float32(mean)
    return values


def integers(rng_seed: int, start: int, count: int, low: int, high: int) -> I64:
    """Return integers of `[low, high)`, `(count,)`: low + ((output >> 32) * (high - low) >> 32).

    Args:
        rng_seed: see `raw`.
        start: see `raw`.
        count: see `raw`.
        low: the smallest integer.
        high: above `low`, by 2**32 at most.
    """
    if not 0 < high - low <= 1 << 32 or not -(1 << 63) <= low < high <= 1 << 63:
        raise ValueError(f"no range of integers: {low} to {high}")
    values = raw(rng_seed, start, count)
    values >>= np.uint64(32)
    values *= np.uint64(high - low)
    values >>= np.uint64(32)
    return values.astype(np.int64) + np.int64(low)


def valid(kind: int, a: float, b: float) -> bool:
    """Return whether `fill` can make something of these: what a reader asks before it trusts a seed."""
    if not np.isfinite(a) or not np.isfinite(b):
        return False
    if kind == UNIFORM:
        return bool(np.float32(a) < np.float32(b) and abs(a) < _REACH > abs(b))
    if kind == INTEGERS:
        return 0 < int(b) - int(a) <= 1 << 32 and abs(a) < _REACH
    return kind in KINDS and abs(a) < _REACH > abs(b)


def fill(kind: int, rng_seed: int, count: int, a: float, b: float) -> npt.NDArray[Any]:
    """Return the first values of one of KINDS, `(count,)`.

    Zeros (float32), uniform in [a, b), normal of mean a and deviation b, or integers in [a, b), int64.

    Raises:
        ValueError: kind, a and b are not `valid`.
    """
    if not valid(kind, a, b):
        raise ValueError(f"the generator has no kind {kind} from {a} to {b}")
    out = np.zeros(count, np.int64 if kind == INTEGERS else np.float32)
    return fill_into(out, kind, rng_seed, a, b)


def fill_into(out: npt.NDArray[Any], kind: int, rng_seed: int, a: float, b: float) -> npt.NDArray[Any]:
    """Write the same values into `out`, `(count,)`, as its dtype. No more than a window is allocated."""
    for start in range(0, out.size, WINDOW):
        count = min(WINDOW, out.size - start)
        window = out[start : start + count]
        if kind == UNIFORM:
            window[:] = uniform(rng_seed, start, count, a, b)
        elif kind == NORMAL:
            window[:] = normal(rng_seed, start, count, a, b)
        elif kind == INTEGERS:
            window[:] = integers(rng_seed, start, count, int(a), int(b))
        else:
            window[:] = 0
    return out
