"""Operators of ONNX in torch, one file a family; importing this package registers all of them."""

from seed_exporter.heal.ops import (
    activations,
    arithmetic,
    contrib,
    convolutions,
    indexing,
    matrices,
    movement,
    normalizations,
    pooling,
    quantized,
    reductions,
    resizing,
    sizes,
)

__all__ = [
    "activations",
    "arithmetic",
    "contrib",
    "convolutions",
    "indexing",
    "matrices",
    "movement",
    "normalizations",
    "pooling",
    "quantized",
    "reductions",
    "resizing",
    "sizes",
]
