"""A TFLite classifier of pictures of 8 x 2 gray pixels, with metadata and labels as MediaPipe's tools write them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.tflite_bytes import (
    WEIGHT,
    Numbers,
    Scalar,
    Tables,
    Writer,
    buffer,
    code,
    model,
    numbers,
    operator,
    tensor,
)

SIDES = (2, 8)
"""Height and width [pixel]."""
LABELS = tuple(f"label {index}" for index in range(16))
LABELS_TEXT = "\n".join(LABELS).encode() + b"\n"
PICTURE = 2
"""Number of ImageProperties."""
NORMALIZATION, CALIBRATION, THRESHOLD = 1, 2, 3
"""Numbers of process units."""
NORMALIZED = {0: Numbers("f", [127.5]), 1: Numbers("f", [127.5])}


def units(*given: tuple[int, Mapping[int, Any]]) -> Tables:
    """Return process units."""
    return Tables([{0: Scalar("B", number), 1: options} for number, options in given])


def picture_fields(color_space: int = 2, normalization: Mapping[int, Any] | None = None) -> dict[int, Any]:
    """Return the metadata of an input."""
    content = {0: Scalar("B", PICTURE), 1: {0: Scalar("b", color_space)}}
    return {0: "image", 3: content, 4: units((NORMALIZATION, NORMALIZED if normalization is None else normalization))}


def scores_fields(
    labels: str | None = "labels.txt", given: Sequence[tuple[int, Mapping[int, Any]]] = ()
) -> dict[int, Any]:
    """Return the metadata of an output."""
    files = {} if labels is None else {6: Tables([{0: labels, 2: Scalar("b", 2)}])}
    return {0: "probability", **({4: units(*given)} if given else {}), **files}


def metadata_of(
    inputs: Sequence[Mapping[int, Any]] | None = None,
    outputs: Sequence[Mapping[int, Any]] | None = None,
    **more: Any,
) -> bytes:
    """Return metadata.

    Args:
        inputs: of each; None for one picture.
        outputs: of each; None for one with labels.
        more: `license`, and `custom` for more fields of the subgraph.
    """
    subgraph = {
        2: Tables([picture_fields()] if inputs is None else inputs),
        3: Tables([scores_fields()] if outputs is None else outputs),
        **more.get("custom", {}),
    }
    fields = {0: "classifier", 3: Tables([subgraph]), 5: more.get("license", ""), 7: "1.5.0"}
    writer = Writer(bytearray(b"\0\0\0\0M001"))
    writer.table("ModelMetadata", fields, 0)
    return bytes(writer.data)


def classifier(
    metadata: bytes | None, kind: int = 0, *, quantization: tuple[float, int] | None = None, is_free: bool = False
) -> bytes:
    """Return a model that adds a weight to each of 16 pixels.

    Args:
        metadata: None for none.
        kind: number of its type: 0 for float32, 3 for uint8, 9 for int8.
        quantization: step of the input, and what stands for 0.
        is_free: leave the sizes of the batch free, as Keras does.
    """
    height, width = SIDES
    free = [{7: numbers([-1, *sizes])} if is_free else {} for sizes in ((height, width, 1), (16,))]
    step = {} if quantization is None else {4: {2: Numbers("f", quantization[:1]), 3: Numbers("q", quantization[1:])}}
    tensors = [
        tensor([1, height, width, 1], 0, "image", kind, free[0] | step),
        tensor([2], 2, "shape", 2),
        tensor([1, 16], 0, "flat", kind),
        tensor([16], 1, "weight", kind),
        tensor([1, 16], 0, "scores", kind, free[1]),
    ]
    weight = struct.pack("<16f", *WEIGHT) if kind == 0 else bytes(range(16))
    buffers = [buffer(), buffer(weight), buffer(struct.pack("<2i", 1, 16)), buffer(metadata or b"")]
    graph = {0: Tables(tensors), 1: numbers([0]), 2: numbers([4])}
    graph[3] = Tables([operator(1, [0, 1], [2]), operator(0, [2, 3], [4])])
    named = {} if metadata is None else {6: Tables([{0: "TFLITE_METADATA", 1: Scalar("I", 3)}])}
    return model(codes=[code(0), code(22)], subgraphs=[graph], buffers=buffers, more=named)


def with_files(data: bytes, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return the file with a zip behind it, whose places are counted from its beginning."""
    held = io.BytesIO(data)
    with zipfile.ZipFile(held, "a", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()
