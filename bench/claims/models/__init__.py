"""The networks of the published table in torch, random weights, at their published sizes and head sizes.

`build(NAME, ...)` makes one; `TINY` are the same structures at a size at which a test trains them in seconds.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from . import encoders, gpt2, mobilenetv2, resnet50

# Parameters at 1,000 classes, or without a head for texts.
PARAMETERS = {
    "resnet50": 25_557_032,
    "mobilenetv2": 3_504_872,
    "berttiny": 4_385_920,
    "distilbert": 66_362_880,
    "gpt2": 124_439_808,
}
KINDS = {
    "resnet50": "glyphs",
    "mobilenetv2": "glyphs",
    "berttiny": "sections",
    "distilbert": "sections",
    "gpt2": "english",
}

SETTINGS: dict[str, dict[str, Any]] = {
    "resnet50": {"width": 64, "blocks": (3, 4, 6, 3)},
    "mobilenetv2": {"width": 1.0},
    "berttiny": {"words": 30522, "width": 128, "layers": 2, "heads": 2, "inner": 512, "segments": 2},
    "distilbert": {"words": 30522, "width": 768, "layers": 6, "heads": 12, "inner": 3072, "segments": 0},
    "gpt2": {"words": 50257, "positions": 1024, "width": 768, "layers": 12, "heads": 12},
}
TINY: dict[str, dict[str, Any]] = {
    "resnet50": {"width": 8, "blocks": (1, 1, 1, 1)},
    "mobilenetv2": {"width": 0.125},
    "berttiny": {"width": 16, "layers": 1, "heads": 2, "inner": 32, "segments": 2},
    "distilbert": {"width": 16, "layers": 2, "heads": 2, "inner": 32, "segments": 0},
    "gpt2": {"positions": 32, "width": 16, "layers": 2, "heads": 2},
}
_MAKERS: dict[str, Any] = {
    "resnet50": resnet50.ResNet,
    "mobilenetv2": mobilenetv2.MobileNetV2,
    "berttiny": encoders.Classifier,
    "distilbert": encoders.Classifier,
    "gpt2": gpt2.GPT2,
}


def build(name: str, settings: dict[str, Any]) -> nn.Module:
    """Return a network with random weights.

    Args:
        name: a key of `SETTINGS`.
        settings: of it, or of `TINY`, with `classes` for all but gpt2.
    """
    module: nn.Module = _MAKERS[name](**settings)
    return module


def parameters(model: nn.Module) -> int:
    """Return the number of parameters, tied ones once, running statistics not counted."""
    return sum(parameter.numel() for parameter in model.parameters())
