"""Operators of ONNX in torch, one file a family; importing this package registers all of them."""

from seed_exporter.heal.ops import (
    activations,
    arithmetic,
    contrib,
    control,
    convolutions,
    indexing,
    matrices,
    movement,
    normalizations,
    pooling,
    quantized,
    recurrent,
    reductions,
    resizing,
    sampling,
    sizes,
)

__all__ = [
    "activations",
    "arithmetic",
    "contrib",
    "control",
    "convolutions",
    "indexing",
    "matrices",
    "movement",
    "normalizations",
    "pooling",
    "quantized",
    "recurrent",
    "reductions",
    "resizing",
    "sampling",
    "sizes",
]
