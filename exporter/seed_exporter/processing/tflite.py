"""What a TFLite file says of its processing: classifiers of pictures, whose labels were appended to the file."""

from __future__ import annotations

from typing import Any, Final

from seed_exporter.processing import tflite_metadata
from seed_exporter.processing.package import Found, Package
from seed_exporter.processing.text import with_line_feeds
from seed_exporter.processing.tflite_metadata import TensorMetadata
from seed_runtime.backends import TensorSpec
from seed_runtime.format.primitives import printable
from seed_runtime.limits import STRING_MAX

_CHANNELS: Final = {(0, 3): "RGB", (1, 3): "RGB", (0, 1): "L", (2, 1): "L"}
"""Channels of a picture by the number of its colors and that of the model's channels."""
_BYTES: Final = {"uint8": 0.0, "int8": 128.0}
"""What is subtracted from bytes for inputs of integers of which nothing else is said."""


def read(package: Package) -> Found | None:
    """Return the processing of a TFLite model of one picture, of whose outputs some have labels.

    The schema's pipeline for pictures is to resize, normalize and quantize, without cutting anything off; a value of an
    output with labels is the probability of its label.

    Raises:
        ValueError: the picture is described, and no output as it would have to be.
    """
    metadata = None if package.data is None else tflite_metadata.read(package.data)
    if package.data is None or metadata is None:
        return None
    outputs = list(package.outputs.values())
    if len(package.inputs) != 1 or len(metadata.inputs) != 1 or len(metadata.outputs) != len(outputs):
        return None
    (spec,) = package.inputs.values()
    image = _image(package.data, spec, metadata.inputs[0])
    if image is None:
        return None
    steps, files = list[dict[str, Any]](), dict[str, bytes]()
    for output, described in zip(outputs, metadata.outputs, strict=True):
        labels = _labels(package.data, output, described)
        if labels is None:
            continue
        name = f"labels-{len(steps)}.txt" if steps else "labels.txt"
        step: dict[str, Any] = {"kind": "labels", "reads": {"scores": output.name}, "labels": name}
        if described.threshold is not None:
            step["threshold"] = described.threshold
        steps.append(step | {"activation": "none"})
        files[name] = labels
    if not steps:
        raise ValueError(
            f"the file's metadata describe a picture of mean {image['mean']} and scale {image['scale']}, "
            f"and no output with a label for each of its scores"
        )
    package.used.append("the file's own metadata")
    description: dict[str, Any] = {"inputs": [image], "outputs": steps}
    if 0 < len(metadata.license.encode()) <= STRING_MAX and printable(metadata.license):
        description["about"] = {"license": metadata.license}
    return description, files


def _image(data: memoryview, spec: TensorSpec, described: TensorMetadata) -> dict[str, Any] | None:
    """Return the step that makes a picture the input; None for what isn't one, or isn't described in full."""
    if described.color_space is None or spec.shape is None or len(spec.shape) != 4:
        return None
    _, height, width, depth = spec.shape
    if not isinstance(height, int) or not isinstance(width, int):
        if described.size is None:
            return None
        height, width = described.size
    channels = _CHANNELS.get((described.color_space, depth if isinstance(depth, int) else 0))
    if channels is None:
        return None
    if spec.dtype in _BYTES:
        mean, scale = _of_integers(data, spec.dtype, described)
    elif described.std:
        mean, scale = list(described.mean) or [0.0], list(described.std)
    else:
        return None
    return {
        "kind": "image", "fills": {"pixels": spec.name}, "size": [height, width], "resize": "stretch",
        "channels": channels, "layout": "NHWC", "mean": mean, "scale": scale,
    }  # fmt: skip


def _of_integers(data: memoryview, dtype: str, described: TensorMetadata) -> tuple[list[float], list[float]]:
    """Return what is subtracted from bytes for an input of integers, and what the difference is divided by.

    MediaPipe gives a model of uint8 the bytes themselves, whatever its normalization is, and takes no int8. For that
    the schema's formulas are used: (byte - mean) / std is quantized as the tensor says.

    Raises:
        ValueError: there are several means and another number of standard deviations.
    """
    quantization = tflite_metadata.input_quantization(data) if dtype == "int8" else None
    if quantization is None or not described.std:
        return [_BYTES[dtype]], [1.0]
    step, zero = quantization
    means, stds = described.mean or (0.0,), described.std
    count = max(len(means), len(stds))
    means, stds = (each * count if len(each) == 1 else each for each in (means, stds))
    return [mean - zero * std * step for mean, std in zip(means, stds, strict=True)], [std * step for std in stds]


def _labels(data: memoryview, output: TensorSpec, described: TensorMetadata) -> bytes | None:
    """Return the labels of an output of probabilities; None where there isn't one for each of them."""
    if described.labels is None or described.is_calibrated or not output.dtype.startswith("float"):
        return None
    if not output.shape:
        return None
    # Keras leaves the batch free; this one is of one picture.
    batch, between = output.shape[:-1][:1], output.shape[1:-1]
    if any(isinstance(size, int) and size != 1 for size in batch) or any(size != 1 for size in between):
        return None
    content = tflite_metadata.appended(data, described.labels)
    if content is None:
        return None
    labels = with_line_feeds(content)
    return labels if labels.count(b"\n") + 1 == output.shape[-1] else None
