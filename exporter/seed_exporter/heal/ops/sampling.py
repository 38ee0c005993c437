"""Sampling of images at places that the graph computes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from seed_exporter.heal.registry import Call, operator


@operator("GridSample")
def _grid_sample(call: Call) -> Tensor:
    mode = call.attribute("mode", "linear")
    names = {"linear": "bilinear", "cubic": "bicubic"}
    padding, aligned = call.attribute("padding_mode", "zeros"), bool(call.attribute("align_corners", 0))
    return functional.grid_sample(call.x, call.required(1), names.get(mode, mode), padding, aligned)
