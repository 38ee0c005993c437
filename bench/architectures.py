"""Tables of published architectures that several benchmarks build."""

from __future__ import annotations

MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Stages of MobileNetV2: expansion, channels, repetitions, stride of the first.

Source: Sandler et al. 2018, table 2.
"""
