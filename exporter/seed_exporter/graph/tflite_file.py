"""A TFLite file, of which a graph's model is a description in the words of ONNX.

The description is for those who look at a model: what reads a weight, what makes an output. It isn't run, and no seed
carries it: the skeleton is made of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from seed_runtime.skeletons.cut_file import Range
from seed_runtime.skeletons.info import SkeletonInfo

DOMAIN: Final = "tflite"
"""Domain of the description's nodes that no operator of ONNX is like."""
CONVOLUTION: Final = "CONV_2D"
DEPTHWISE: Final = "DEPTHWISE_CONV_2D"
DENSE: Final = "FULLY_CONNECTED"
TRANSPOSED: Final = "TRANSPOSE_CONV"
PRODUCT: Final = "BATCH_MATMUL"


@dataclass(frozen=True, eq=False)
class TFLiteFile:
    """The file.

    Attributes:
        data: all of it, read-only.
        info: what it says of itself.
        places: where the data of each weight are, by the weight's name.
        numbers: tensors of its first subgraph, by the names that they have in the description.
    """

    data: memoryview
    info: SkeletonInfo
    places: Mapping[str, Range]
    numbers: Mapping[str, int]
