"""Sizes of pictures that a description makes, at which the memory of its model is measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from seed_runtime.backends import Dims, TensorSpec, free_axes, key_of
from seed_runtime.format.parts import processing as part
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.image import ImageStep, read
from seed_runtime.processing.sources import Sources

PIXELS_MAX: Final = 1 << 21
"""Largest picture at which memory is measured, whatever a description makes: one of 2^24 pixels could take more memory
than this machine has [pixel]."""
_SHARES: Final = (1 / 8, 1 / 4, 1 / 2, 1)


def picture_sizes(data: bytes, inputs: Sequence[TensorSpec]) -> list[Dims]:
    """Return sizes of the free dimensions, from small pictures to the largest one that a description makes.

    Args:
        data: the unpacked part, which was checked before; empty for none.
        inputs: of the model.

    Returns:
        Sizes under keys like "pixels:2", without the batch's; none where all its pictures have one size.
    """
    step = _image_step(data) if data else None
    spec = next((each for each in inputs if step is not None and each.name == step.fills["pixels"]), None)
    if step is None or spec is None:
        return []
    first = 2 if step.layout == "NCHW" else 1
    free = [axis for name, axis in free_axes(inputs) if name == spec.name and axis in (first, first + 1)]
    largest = 1.0
    while (canvas := step.canvas_at(largest))[0] * canvas[1] > PIXELS_MAX and canvas != step.canvas_at(largest / 2):
        largest /= 2
    canvases = [step.canvas_at(largest * share) for share in _SHARES]
    sizes = [{key_of((spec.name, axis)): canvas[axis - first] for axis in free} for canvas in canvases]
    return sizes if sizes[0] != sizes[-1] else []


def _image_step(data: bytes) -> ImageStep | None:
    """Return the step of a description that reads pictures."""
    for value in json.loads(bytes(part.unpack(data)[0])).get("inputs", ()):
        if value["kind"] == "image":
            fields = {name: each for name, each in value.items() if name != "kind"}
            return read(Fields(fields, "processing"), Sources({}, dict))
    return None
