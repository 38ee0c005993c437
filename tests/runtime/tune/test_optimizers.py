"""Optimizers against their formulas."""

from __future__ import annotations

import numpy as np

from seed_runtime.tune.optimizers import Adam, Sgd

RNG = np.random.default_rng(2)
GRADIENTS = [RNG.standard_normal((3, 4)).astype(np.float32) for _ in range(5)]


def test_adam_follows_its_formula_in_place() -> None:
    value = np.ones((3, 4), np.float32)
    optimizer, expected = Adam([value]), np.ones((3, 4))
    first, second = np.zeros((3, 4)), np.zeros((3, 4))
    for step, gradient in enumerate(GRADIENTS, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.astype(np.float64) ** 2
        expected -= 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        optimizer.step([gradient.copy()], 0.01)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_gradient_descent_has_momentum() -> None:
    value = np.ones((3, 4), np.float32)
    optimizer, expected, moved = Sgd([value]), np.ones((3, 4)), np.zeros((3, 4))
    for gradient in GRADIENTS:
        moved = 0.9 * moved + gradient
        expected -= 0.1 * moved
        optimizer.step([gradient.copy()], 0.1)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
