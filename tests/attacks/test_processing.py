"""Seeds whose maps and anchors would keep a device busy: the command refuses them, or answers in bounded time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.described_models import described, png
from tests.support.model_seeds import onnx_model
from tests.support.seed_run import refused, result

ROWS = {
    "stripes": np.arange(2048) % 2,
    "nothing but NaN": np.full(2048, np.nan),
    "infinities": np.where(np.arange(2048) % 512 < 256, np.inf, -np.inf),
}


def integers(name: str, *values: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, np.int64)))


def marked(tmp_path: Path, row: np.ndarray, **fields: Any) -> tuple[Path, Path]:
    """Return a seed whose map has this row 512 times, whatever the picture, and a picture."""
    nodes = [
        integers("shape", 1, 1, 512, 2048),
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=1, axes=[1, 2, 3]),
        helper.make_node("Mul", ["mean", "zero"], ["none"]),
        helper.make_node("Add", ["row", "none"], ["map"]),
        helper.make_node("Expand", ["map", "shape"], ["y"]),
    ]
    weights = {"zero": np.zeros(1), "row": row.reshape(1, 1, 1, -1)}
    model = onnx_model(nodes, {"image": [1, 3, 8, 8]}, {"y": [1, 1, 512, 2048]}, weights)
    image = {"kind": "image", "fills": {"pixels": "image"}, "size": [8, 8]}
    regions = {"kind": "regions", "reads": {"map": "y"}, **fields}
    seed, picture = tmp_path / "attack.seed", tmp_path / "photo.png"
    seed.write_bytes(described(model, {"inputs": [image], "outputs": [regions]}))
    picture.write_bytes(png(8, 8))
    return seed, picture


def test_a_map_of_half_a_million_stripes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    problem = refused(10, *marked(tmp_path, ROWS["stripes"]))
    assert "runs of marked pixels: 524,288 exceeds the limit of 262,144" in problem
    assert "the seed's processing doesn't fit its model" in problem
    assert "damaged" not in problem


@pytest.mark.parametrize(("name", "count"), [("nothing but NaN", 0), ("infinities", 4)])
def test_a_map_of_what_is_no_number_has_an_answer(name: str, count: int, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    answer = result(*marked(tmp_path, ROWS[name]))["answers"][0]["outputs"][0]
    assert len(answer["regions"]) == count


def test_anchors_of_terabytes_are_refused_before_they_are_made(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    nodes = [
        *(integers(*each) for each in (("shape", 1, -1, 4), ("start", 0), ("end", 1), ("axis", 2))),
        helper.make_node("Mul", ["image", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["boxes"]),
        helper.make_node("Slice", ["boxes", "start", "end", "axis"], ["scores"]),
    ]
    outputs = {"boxes": [1, 48, 4], "scores": [1, 48, 1]}
    model = onnx_model(nodes, {"image": [1, 3, 8, 8]}, outputs, {"w": np.ones(1)})
    boxes = {
        "kind": "boxes", "reads": {"boxes": "boxes", "scores": "scores"}, "layout": "separate",
        "cells": [1, 8192] * 8,
    }  # fmt: skip
    image = {"kind": "image", "fills": {"pixels": "image"}, "size": [8, 8]}
    seed, picture = tmp_path / "attack.seed", tmp_path / "photo.png"
    seed.write_bytes(described(model, {"inputs": [image], "outputs": [boxes]}))
    picture.write_bytes(png(8, 8))
    assert "boxes of 4,194,304 anchors is needed" in refused(10, seed, picture)
