"""Encode side of `lowrank`: the cheapest factors within an error, which the runtime decodes to what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from seed_exporter.codecs import lowrank as encoder
from seed_exporter.codecs import spectrum
from seed_exporter.quantize.factorize import factorize
from seed_runtime.codecs.encode import grid as grid_encoder
from tests.support.streams import decode, hole


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_the_decoder_makes_what_the_encoder_promised(dtype: str, rng: np.random.Generator) -> None:
    weights = (rng.standard_normal((90, 6)) @ rng.standard_normal((6, 120))).astype(np.float32)
    weights[10:20], weights[:, 7] = 0, 0
    mse = 1e-3 * float(np.square(weights).mean())
    factors = factorize(weights, mse)
    assert factors is not None
    assert len(factors.v) <= 8
    assert factors.mse <= mse
    assert np.square(factors.values() - weights).mean() == pytest.approx(factors.mse, rel=1e-3)
    stream = encoder.CODEC.encode([factors])
    decoded = decode("lowrank", [hole(90, 120, dtype=dtype)], stream.chunks)
    if dtype == "float32":
        assert decoded == factors.values().tobytes()
    assert len(decoded) == hole(90, 120, dtype=dtype).size


def test_a_product_takes_fewer_bits_than_a_grid_and_noise_takes_more(rng: np.random.Generator) -> None:
    product = (rng.standard_normal((96, 4)) @ rng.standard_normal((4, 96))).astype(np.float32)
    noise = rng.standard_normal((96, 96)).astype(np.float32)
    for weights, wins in ((product, True), (noise, False)):
        step = 0.3 * float(weights.std())
        quantized = grid_encoder.round_to_nearest(weights, step)
        mse = float(np.square(quantized.values() - weights).mean())
        bits = encoder.rate_bits([grid_encoder.matrix_of(quantized)])
        factors = factorize(weights, mse)
        assert factors is None or factors.mse <= mse
        assert (factors is not None and factors.bits < bits) == wins
        assert (factorize(weights, mse, bits) is not None) == wins


def test_a_wide_spectrum_gets_shifts(rng: np.random.Generator) -> None:
    left, right = (np.linalg.qr(rng.standard_normal((48, 48)))[0] for _ in range(2))
    weights = (left * 2.0 ** -np.arange(48) @ right).astype(np.float32)
    factors = factorize(weights, 1e-4 * float(np.square(weights).mean()))
    assert factors is not None
    assert factors.shifts[:4] == (0, 1, 2, 3)


@pytest.mark.parametrize(("weights", "mse"), [(np.zeros((4, 4)), 1.0), (np.ones((4, 4)), 2.0), (np.ones((4, 4)), 0.0)])
def test_what_has_no_factors_is_left_to_other_codecs(weights: np.ndarray, mse: float) -> None:
    assert factorize(weights.astype(np.float32), mse) is None


def test_large_matrices_are_decomposed_on_a_subspace(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = (rng.standard_normal((80, 5)) @ rng.standard_normal((5, 70))).astype(np.float32)
    whole, vectors = spectrum.spectrum(weights, 5)
    monkeypatch.setattr(spectrum, "_WHOLE_SIDE", 16)
    part, basis = spectrum.spectrum(weights, 5)
    assert part == pytest.approx(whole, rel=1e-4)
    assert np.abs(basis @ vectors.T) == pytest.approx(np.eye(5), abs=1e-3)
