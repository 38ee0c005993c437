"""Rules of reverse mode, one file a family of operators.

A rule is a function from a `Call` to the gradients of the node's inputs, in operators of opset 18; importing this
package registers all of them. Operators whose outputs are integers or booleans need none.
"""

from seed_exporter.gradients.rules import (
    activations,
    arithmetic,
    contrib,
    convolutions,
    elementwise,
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
)

__all__ = [
    "activations",
    "arithmetic",
    "contrib",
    "convolutions",
    "elementwise",
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
]
