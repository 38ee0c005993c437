"""Build EfficientNet-lite as an ONNX graph, from a checkpoint's weights. Batch norms are kept.

Source: Tan, Le 2019, https://arxiv.org/abs/1905.11946; the lite variant has no squeeze and excitation, ReLU6 in place
of Swish, and a stem and a head of fixed width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from seed_exporter.zoo.graph_builder import GraphBuilder

INPUT, OUTPUT = "image", "logits"
SIDE = 224  # [pixel]
_EPSILON = 1e-3  # of batch norms, the original's


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    """Of its first block; the others have 1."""
    expands: bool


_STAGES = (
    _Stage(1, 3, 1, False),
    _Stage(2, 3, 2, True),
    _Stage(2, 5, 2, True),
    _Stage(3, 3, 2, True),
    _Stage(3, 5, 1, True),
    _Stage(4, 5, 2, True),
    _Stage(1, 3, 1, True),
)


def lite0(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the model: `image` `(batch, 3, 224, 224)` to `logits`.

    Args:
        weights: of the checkpoint, by their names.
    """
    return _Network(weights).whole()


class _Network(GraphBuilder):
    def whole(self) -> onnx.ModelProto:
        x = self._relu6(self._convolved(INPUT, "_conv_stem", "_bn0", 3, 2))
        number = 0
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                x = self._block(x, f"_blocks.{number}.", stage, 1 if repeat else stage.stride, bool(repeat))
                number += 1
        x = self.node("GlobalAveragePool", [self._relu6(self._convolved(x, "_conv_head", "_bn1", 1, 1))])
        logits = self.node(
            "Gemm", [self.node("Flatten", [x]), self.weight("_fc.weight"), self.weight("_fc.bias")], transB=1
        )
        classes = len(self.weights["_fc.bias"])
        image = (onnx.TensorProto.FLOAT, ("batch", 3, SIDE, SIDE))
        return self.model("efficientnet", {INPUT: image}, logits, (OUTPUT, ("batch", classes)))

    def _block(self, x: str, prefix: str, stage: _Stage, stride: int, has_skip: bool) -> str:
        wide = x
        if stage.expands:
            wide = self._relu6(self._convolved(x, f"{prefix}_expand_conv", f"{prefix}_bn0", 1, 1))
        depthwise = (f"{prefix}_depthwise_conv", f"{prefix}_bn1", stage.kernel, stride)
        wide = self._relu6(self._convolved(wide, *depthwise, depthwise=True))
        narrow = self._convolved(wide, f"{prefix}_project_conv", f"{prefix}_bn2", 1, 1)
        return self.node("Add", [narrow, x]) if has_skip else narrow

    def _convolved(self, x: str, conv: str, norm: str, kernel: int, stride: int, depthwise: bool = False) -> str:
        # TensorFlow's padding: what an even size lacks is added below and on the right.
        pads = [(kernel - stride) // 2] * 2 + [(kernel - stride + 1) // 2] * 2
        weight = self.weights[f"{conv}.weight"]
        x = self.node(
            "Conv", [x, self.weight(f"{conv}.weight")], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads,
            group=len(weight) if depthwise else 1,
        )  # fmt: skip
        parts = [self.weight(f"{norm}.{name}") for name in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [x, *parts], epsilon=_EPSILON)

    def _relu6(self, x: str) -> str:
        return self.node("Clip", [x, self.constant("least", np.float32(0)), self.constant("most", np.float32(6))])
