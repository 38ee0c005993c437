"""Types that products are computed in while a network is healed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def mixed(device: torch.device, is_used: bool) -> torch.autocast:
    """Compute products in bf16 on a GPU, all but those that outputs are made of (`interpreter.last_products`)."""
    return torch.autocast(device.type, torch.bfloat16, is_used and device.type == "cuda", cache_enabled=False)


@contextmanager
def fast_floats(device: torch.device, is_used: bool) -> Iterator[None]:
    """Let products of floats round their factors to TF32 on a GPU, gradients among them: what they give isn't rounded.

    A language model's last product is a third of its work, and takes ten times as long in full floats.
    """
    before = torch.get_float32_matmul_precision()
    if is_used and device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
