"""Encode side of `moments`: what is kept of a matrix, and that the runtime decodes it as promised."""

from __future__ import annotations

import numpy as np
import pytest

from seed_exporter.codecs import moments as encoder
from tests.support.streams import decode, hole


@pytest.mark.parametrize("components", [0, 1, 8, 40])
def test_the_decoder_makes_what_the_encoder_promised(components: int, rng: np.random.Generator) -> None:
    weights = rng.standard_normal((40, 60)).astype(np.float32)
    tensors = [encoder.reduce(weights, components, rng_seed=index) for index in range(2)]
    decoded = np.frombuffer(decode("moments", [hole(40, 60)] * 2, encoder.CODEC.encode(tensors).chunks), "<f4")
    assert np.array_equal(decoded, np.concatenate([tensor.values().ravel() for tensor in tensors]))


def test_more_components_leave_less_error(rng: np.random.Generator) -> None:
    weights = (rng.standard_normal((60, 20)) @ rng.standard_normal((20, 50)) + 3).astype(np.float32)
    tensors = [encoder.reduce(weights, n, noise=False) for n in (0, 5, 10, 20)]
    errors = [float(np.square(tensor.values() - weights).mean()) for tensor in tensors]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5 * errors[0]


def test_noise_keeps_the_moments_and_doubles_the_error(rng: np.random.Generator) -> None:
    weights = rng.normal(0.5, 2, (200, 100)).astype(np.float32)
    redrawn = encoder.reduce(weights, 4).values()
    plain = encoder.reduce(weights, 4, noise=False).values()
    assert redrawn.mean() == pytest.approx(weights.mean(), abs=0.03)
    assert redrawn.std() == pytest.approx(weights.std(), rel=0.03)
    ratio = np.square(redrawn - weights).mean() / np.square(plain - weights).mean()
    assert ratio == pytest.approx(2, rel=0.05)


def test_sparsity_is_kept(rng: np.random.Generator) -> None:
    weights = np.where(rng.random((100, 80)) < 0.7, 0, rng.standard_normal((100, 80))).astype(np.float32)
    zeros = 1 - np.count_nonzero(encoder.reduce(weights, 3).values()) / weights.size
    assert zeros == pytest.approx(0.7, abs=0.02)
    assert not encoder.reduce(np.zeros((5, 4), np.float32), 2).values().any()


def test_components_are_counted_for_a_size(rng: np.random.Generator) -> None:
    n = encoder.components_for(300, 200, 20_000)
    assert 2 * (200 + n * 500) <= 20_000 < 2 * (200 + (n + 1) * 500)
    assert encoder.components_for(300, 200, 10) == 0
    assert encoder.components_for(4, 5, 1 << 30) == encoder.components_max(4, 5) == 4
    with pytest.raises(ValueError, match="components"):
        encoder.reduce(rng.standard_normal((4, 5)).astype(np.float32), 5)
