"""The published rules that seeds are compared with do what their papers say."""

from __future__ import annotations

import numpy as np
import pytest

from bench.equal_damage import Point
from bench.rules import beside, entquant, watersic

BITS_ABOVE_LIMIT = 0.5 * np.log2(2 * np.pi * np.e / 12)


def entropy(integers: np.ndarray) -> float:
    shares = np.unique(integers, return_counts=True)[1] / integers.size
    return float(-(shares * np.log2(shares)).sum())


def test_watersic_is_a_quarter_of_a_bit_above_the_limit_of_information_for_uneven_inputs(
    rng: np.random.Generator,
) -> None:
    inputs = rng.standard_normal((32, 128)) * np.exp(0.5 * rng.standard_normal((32, 1)))
    moments = inputs @ inputs.T
    weights = rng.standard_normal((4000, 32)).astype(np.float32)
    made = watersic(weights, moments, rate=4.0, damping=1e-4)
    error = made.values - weights
    damage = np.einsum("oi,ij,oj->", error, moments, error) / len(weights)
    bits = float(np.mean([entropy(column) for column in made.integers.T]))
    least = 32 * np.exp(np.linalg.slogdet(moments)[1] / 32) * 2 ** (-2 * bits)
    assert 0.5 * np.log2(damage / least) == pytest.approx(BITS_ABOVE_LIMIT, abs=0.03)
    assert entropy(made.integers) + 16 / 32 + 16 / 4000 == pytest.approx(4.0, abs=0.05)


def test_watersic_leaves_dead_inputs_out(rng: np.random.Generator) -> None:
    made = watersic(rng.standard_normal((64, 8)).astype(np.float32), np.diag([1.0] * 7 + [0]), rate=3, damping=1e-4)
    assert not made.values[:, 7].any()
    assert made.values[:, :7].any(axis=0).all()


def test_entquant_s_weights_of_magnitudes_give_their_bits(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((200, 300)).astype(np.float32)
    found = [entropy(entquant(weights, None, weight_of_magnitude=each).integers) for each in (3.9, 14.5, 58.0)]
    assert found == pytest.approx([4, 3, 2], abs=0.15)


def test_entquant_s_values_are_those_of_float8_and_are_numbered_in_order(rng: np.random.Generator) -> None:
    # One weight far above the others asks for values beyond the linear ones.
    weights = np.append(rng.standard_normal(500), 40).astype(np.float32)[None]
    made = entquant(weights, None, weight_of_magnitude=1.0)
    scale = np.abs(made.values)[made.integers != 0].min() / np.abs(made.integers)[made.integers != 0].min()
    values, codes = np.rint(made.values / scale).astype(int), made.integers
    assert np.abs(values).max() > 16
    for value, code in zip(values[0], codes[0], strict=True):
        octave = max(0, int(abs(value)).bit_length() - 4)
        assert abs(value) % 2**octave == 0
        assert code == np.sign(value) * (abs(value) // 2**octave + 8 * octave)


def test_seeds_are_judged_at_a_rule_s_bytes_between_the_next_smaller_and_larger() -> None:
    seeds = [Point(400, 1e-4), Point(100, 0.1), Point(200, 0.01)]
    assert beside(Point(150, 1.0), seeds)["own_damage"] == pytest.approx(0.1 * 0.1**0.5, rel=1e-3)
    assert beside(Point(500, 1.0), seeds)["own_damage"] == 1e-4
    assert beside(Point(90, 1.0), seeds)["own_damage"] is None
