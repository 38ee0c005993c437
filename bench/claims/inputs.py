"""Turn kept samples into a model's inputs, with NumPy alone: the same numbers in training and in every check."""

from __future__ import annotations

import numpy as np

STORED, SIDE = 48, 64  # of glyphs in the data, and of a network's input [pixel]
MEAN, DEVIATION = 0.3, 0.4  # of ink in [0, 1], about
LENGTH = 192  # longest description [token]
WINDOW = 1024  # of English [token]
BLANK, BEGIN, STOP, MASK = 0, 2, 3, 4  # of WordPieces


def enlarge() -> np.ndarray:
    """Return `(64, 48)` float32: bilinear interpolation along one axis, pixels as areas."""
    centres = (np.arange(SIDE) + 0.5) * STORED / SIDE - 0.5
    distance = np.abs(centres[:, None] - np.arange(STORED)[None])
    weights = np.clip(1 - distance, 0, None)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def unpacked(x: np.ndarray) -> np.ndarray:
    """Return `(n, 48, 48)` uint8 of 0 to 15 of stored `(n, 48, 24)`, the left pixel in the upper half of a byte."""
    return np.stack([x >> 4, x & 15], axis=-1).reshape(*x.shape[:-1], 2 * x.shape[-1])


def glyph_inputs(x: np.ndarray) -> np.ndarray:
    """Return `(n, 3, 64, 64)` float32 of stored `(n, 48, 24)` uint8."""
    scale = enlarge()
    ink = unpacked(x).astype(np.float32) / 15
    grown = np.matmul(np.matmul(scale, ink), scale.T)
    normal = np.asarray((grown - MEAN) / DEVIATION, np.float32)
    return np.ascontiguousarray(np.broadcast_to(normal[:, None], (len(x), 3, SIDE, SIDE)))


def text_inputs(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return `input_ids` and `attention_mask`, int64, of `(n, length)` ids; what is blank in all rows is cut off."""
    used = max(1, int((ids != BLANK).sum(1).max(initial=1)))
    cut = ids[:, :used].astype(np.int64)
    return {"input_ids": cut, "attention_mask": (cut != BLANK).astype(np.int64)}
