"""Inputs with a default, from the model through the seed to a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import seed_runtime
from seed_exporter.loaders import load
from seed_runtime.assembly.cache import ModelCache
from tests.exporter.support.exporting import quick_export
from tests.exporter.support.onnx_models import W, X, info, make, run, tensor

GAIN = {"gain": np.full(1, 3, np.float32)}


def model() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Mul", ["h", "gain"], ["y"])]
    default = tensor(np.full(1, 1.5, np.float32), "gain")
    return make(nodes, [tensor(W, "w"), default], inputs=[info("x"), info("gain", (1,))])


@pytest.mark.parametrize("calib", [None, X, X | GAIN])
def test_a_seed_is_compared_with_the_default_and_with_what_the_data_say(calib: Any, tmp_path: Path) -> None:
    if calib is not None:
        np.savez(tmp_path / "x.npz", **calib)
    options = {} if calib is None else {"calib": tmp_path / "x.npz"}
    result = quick_export(model(), tmp_path / "m.seed", method="lossless", **options)
    assert all(error.identical for error in result.outputs.values())
    with seed_runtime.open(tmp_path / "m.seed").session(cache=ModelCache(tmp_path / "cache", 1 << 30)) as session:
        assert session.verify().ok
        for feeds in (X, X | GAIN):
            assert np.array_equal(session.run(feeds)["y"], run(model().SerializeToString(), feeds)[0])


def test_a_default_that_no_array_could_replace_is_a_weight() -> None:
    given = model()
    given.graph.initializer.append(helper.make_tensor("half", TensorProto.BFLOAT16, [2], [1.0, 2.0]))
    given.graph.input.append(info("half", (2,), TensorProto.BFLOAT16))
    given.graph.node.append(helper.make_node("Cast", ["half"], ["z"], to=TensorProto.FLOAT))
    given.graph.output.append(info("z", (2,)))
    graph = load(given)
    assert [value.name for value in graph.model.graph.input] == ["x", "gain"]
    assert graph.notes == ("the input 'half' has a default that is taken for a weight: it can't be fed",)
