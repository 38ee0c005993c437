"""An estimate of how few bits a bfloat16 checkpoint could take on an earlier one; for bench/checkpoints.py.

Each new weight is a draw from a mixture of logistic distributions around the old one, whose means, widths and shares a
small network computes of what a decoder knows: the old weight, how far the weights of its row and of its column move
(as side information of 4 bits each), and, if it is given, by how much the weight moved before. The network itself is
counted as free and learns on the very weights that it predicts, so that a real coder takes more. It is a bound for
coders of this kind, not for all.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bench.checkpoint_runs import Checkpoint

STEPS: Final = 400
BATCH: Final = 8192
PARTS: Final = 3
"""Number of logistic distributions of a mixture."""
_SIDE_BITS: Final = 4
_LEAST: Final = 1e-5
"""Probability that any value has at least, so that what is far away costs 17 bits and not thousands."""


def bound(base: Checkpoint, new: Checkpoint, before: Checkpoint | None) -> int:
    """Return the bytes of a checkpoint on a base, as estimated.

    Args:
        base: bits of bfloat16 tensors, by name.
        new: the same of the checkpoint.
        before: the same of the one as far before the base; None where a decoder has none.
    """
    import torch

    torch.manual_seed(0)
    known, low, high, side = _features(base, new, before)
    inputs = torch.from_numpy(((known - known.mean(0)) / (known.std(0) + 1e-6)).astype(np.float32))
    ends = torch.from_numpy(np.stack((low, high)))
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh(),
        torch.nn.Linear(32, 3 * PARTS),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)

    def bits(rows: Any) -> Any:
        out = network(inputs[rows]).double()
        shares, means = torch.softmax(out[:, :PARTS], 1), out[:, PARTS : 2 * PARTS]
        inverse = torch.exp(-out[:, 2 * PARTS :] - torch.linspace(0, 1, PARTS))
        first, last = ((ends[side, rows, None] - means) * inverse for side in (0, 1))
        # Of both tails the one where nothing cancels.
        above = torch.sigmoid(-first) - torch.sigmoid(-last)
        inside = torch.where(first > 0, above, torch.sigmoid(last) - torch.sigmoid(first))
        return -torch.log2((shares * inside).sum(1) * (1 - _LEAST) + _LEAST)

    for _ in range(STEPS):
        loss = bits(torch.randint(0, len(inputs), (BATCH,))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        parts = torch.arange(len(inputs)).split(1 << 15)
        return round((sum(float(bits(rows).sum()) for rows in parts) + side) / 8)


def _features(
    base: Checkpoint, new: Checkpoint, before: Checkpoint | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return what is known of each weight, both ends of what rounds to the new one, and bits of side information.

    Ends count from the old weight, in units of how far its row and its column move.
    """
    features, lows, highs, side = [], [], [], 0
    for name, bits in new.items():
        view = (bits.shape[0], -1) if bits.ndim > 1 else (1, -1)
        after, old = (_floats(each[name]).reshape(view) for each in (new, base))
        moved = np.abs(after - old)
        mean = moved.mean() + 1e-9
        rows, cols = (np.log(moved.mean(axis, keepdims=True) + 0.05 * mean) for axis in (1, 0))
        if len(after) == 1:
            cols = np.log(np.full_like(rows, mean))
        side += _SIDE_BITS * (rows.size + cols.size)
        scale = np.broadcast_to(np.clip(rows + cols - np.log(mean), -25, 5), after.shape)
        unit = np.exp(scale)
        known = [scale - scale.mean(), np.log(np.abs(old) + 1e-6) - scale, np.full_like(unit, scale.mean())]
        known.append(np.arcsinh(old / unit))
        if before is not None:
            last = (old - _floats(before[name]).reshape(view)) / unit
            known += [np.arcsinh(2 * last), np.log(np.abs(last) + 0.05)]
        features.append(np.stack([each.reshape(-1) for each in known], 1))
        for ends, places in ((lows, -1), (highs, 1)):
            ends.append((((after + _neighbour(bits, places).reshape(view)) / 2 - old) / unit).reshape(-1))
    return np.concatenate(features), np.concatenate(lows), np.concatenate(highs), side


def _floats(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _neighbour(bits: np.ndarray, places: int) -> np.ndarray:
    """Return the floats so many places above others."""
    order = np.where(bits & 0x8000, ~bits, bits | 0x8000).astype(np.uint16) + np.uint16(places & 0xFFFF)
    return _floats(np.where(order & 0x8000, order ^ 0x8000, ~order).astype(np.uint16))
