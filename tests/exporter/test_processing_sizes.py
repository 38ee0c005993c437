"""Sizes of pictures that a description makes."""

from __future__ import annotations

from typing import Any

import pytest

from seed_exporter.processing.sizes import PIXELS_MAX, picture_sizes
from seed_exporter.processing.text import json_bytes
from seed_runtime.backends import TensorSpec
from seed_runtime.format.parts import processing as part

PICTURE = TensorSpec("x", "float32", ("n", 3, "h", "w"))
LAST = TensorSpec("x", "float32", (1, "h", "w", 3))


def sizes(spec: TensorSpec = PICTURE, **fields: Any) -> list[tuple[int, ...]]:
    """Return the sizes of a description with one picture."""
    image = {"kind": "image", "fills": {"pixels": "x"}, "size": [32, 32], **fields}
    data = part.pack(json_bytes({"inputs": [image]}), {})
    return [tuple(found.values()) for found in picture_sizes(data, [spec])]


def test_a_page_grows_to_its_longest_side_by_multiples() -> None:
    longest = {"resize": "longest", "longest": 1280, "multiple": 32}
    assert sizes(**longest) == [(160, 160), (320, 320), (640, 640), (1280, 1280)]
    assert sizes(**longest | {"longest": 960}) == [(128, 128), (256, 256), (480, 480), (960, 960)]
    assert sizes(LAST, layout="NHWC", **longest)[-1] == (1280, 1280)


def test_a_line_grows_in_its_width_alone() -> None:
    line = {"resize": "height", "size": [48, 320], "longest": 3200}
    assert sizes(**line) == [(48, 400), (48, 800), (48, 1600), (48, 3200)]
    fixed = TensorSpec("x", "float32", (1, 3, 48, None))
    assert sizes(fixed, **line) == [(400,), (800,), (1600,), (3200,)]


def test_pictures_of_one_size_say_nothing() -> None:
    assert sizes(resize="letterbox") == []
    assert sizes(TensorSpec("x", "float32", (1, 3, 32, 32))) == []
    assert picture_sizes(b"", [PICTURE]) == []
    assert picture_sizes(part.pack(b"{}", {}), [PICTURE]) == []


@pytest.mark.parametrize("longest", [1600, 8192])
def test_a_description_does_not_make_an_export_measure_huge_pictures(longest: int) -> None:
    height, width = sizes(resize="longest", longest=longest, multiple=32)[-1]
    assert PIXELS_MAX / 4 < height * width <= PIXELS_MAX
