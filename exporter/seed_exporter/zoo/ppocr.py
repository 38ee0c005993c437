"""What the recipes of PP-OCR's models share: the wheel of RapidOCR, which has them as ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from seed_exporter.zoo.recipe import License, Sources, Wheel

if TYPE_CHECKING:
    import onnx

WHEEL: Final = Wheel(
    project="rapidocr-onnxruntime",
    version="1.4.4",
    file="rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    size=14_915_192,
)
LICENSE: Final = License("Apache-2.0", "PaddleOCR and RapidOCR authors")
HEIGHT: Final = 48
"""Height of a line of text [pixel]."""


def model(sources: Sources, file: str) -> onnx.ModelProto:
    """Return one of the wheel's models."""
    import onnx

    return onnx.load_model_from_string(sources.read(WHEEL, f"rapidocr_onnxruntime/models/{file}"))


def line_step(least: int, longest: int, multiple: int = 1) -> dict[str, Any]:
    """Return the step that makes an input `x` of a picture of one line, from -1 to 1, gray (0) behind its end.

    Args:
        least: smallest width [pixel].
        longest: largest width, to which a longer line is squeezed [pixel].
        multiple: what a larger width is a multiple of [pixel].
    """
    return {
        "kind": "image",
        "fills": {"pixels": "x"},
        "size": [HEIGHT, least],
        "resize": "height",
        "longest": longest,
        "multiple": multiple,
        "pad": 127.5,
        "channels": "BGR",
        "mean": [127.5],
        "scale": [127.5],
    }
