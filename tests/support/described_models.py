"""Seeds of small models with a description of processing, made without the exporter."""

from __future__ import annotations

import functools
import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_runtime.format.parts import PROCESSING
from seed_runtime.format.parts import processing as part
from tests.support.model_seeds import build_model_seed, onnx_model

COLORS = ("red", "green", "blue")
SIDE = 4


def described(model: onnx.ModelProto, description: Mapping[str, Any] | bytes, **attachments: bytes) -> bytes:
    """Return the seed of a model with a description, which may be wrong; `labels` is attached as labels.txt."""
    data = description if isinstance(description, bytes) else json.dumps(description).encode()
    packed = part.pack(data, {f"{name}.txt": content for name, content in attachments.items()})
    return build_model_seed(model, model_id="described", parts=[(PROCESSING.number, packed)])


@functools.cache
def color_model() -> onnx.ModelProto:
    """Return a model of image: float32[n, 3, SIDE, SIDE] -> scores: float32[n, 3], the means of red, green and blue."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Mul", ["means", "gain"], ["scores"]),
    ]
    inputs, outputs = {"image": ["n", 3, SIDE, SIDE]}, {"scores": ["n", 3]}
    return onnx_model(nodes, inputs, outputs, {"gain": np.full(3, 4.0)})


def color_description(**changes: Any) -> dict[str, Any]:
    """Return a description of the color model; `changes` are fields of its image step."""
    image = {"kind": "image", "fills": {"pixels": "image"}, "size": [SIDE, SIDE], **changes}
    labels = {"kind": "labels", "reads": {"scores": "scores"}, "labels": "labels.txt", "activation": "softmax"}
    return {"inputs": [image], "outputs": [labels]}


@functools.cache
def color_seed() -> bytes:
    """Return the seed of the color model."""
    return described(color_model(), color_description(), labels="\n".join(COLORS).encode())


def typed_input(shape: list[int | str], code: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a model that gives its input `x` back as `y`, beside a weight."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["w"], ["z"])]
    return onnx_model(nodes, {"x": shape}, {"y": shape, "z": [1]}, {"w": np.ones(1)}, {"x": code, "y": code})


def png(width: int, height: int, color: Any = (255, 0, 0), mode: str = "RGB", **options: Any) -> bytes:
    """Return a PNG of one color; `color` may be an array of its pixels."""
    from PIL import Image

    picture = Image.fromarray(color) if isinstance(color, np.ndarray) else Image.new(mode, (width, height), color)
    file = io.BytesIO()
    picture.save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def claimed_png(width: int, height: int) -> bytes:
    """Return the bytes of a PNG of a few bytes that says it has this size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
