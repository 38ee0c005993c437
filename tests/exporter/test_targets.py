"""`seed_exporter.targets`: what devices hold and run of a planned model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_runtime
from seed_exporter.build.streams import restored
from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.integers import IntegersPlan
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.run import run_all
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.quantize.allocate import exact, lossless
from seed_exporter.quantize.rounding.by_blocks import BlockRounder
from seed_exporter.report.text import summary
from seed_exporter.targets import TARGETS, Lowered
from seed_exporter.targets.int8 import LARGEST
from seed_exporter.targets.target import Measured
from seed_runtime import cli
from seed_runtime.backends.onnxruntime_releases import oldest_release
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.errors import UnsupportedError, UsageError
from tests.exporter.support.exporting import decoded, layers, of_nodes, quick_export

STEP = 0.25
VOCABULARY, WIDTH, CLASSES = 96, 64, 32


@pytest.fixture
def graph(rng: np.random.Generator) -> Graph:
    """Return a model with a table, a MatMul, a Gemm of (outputs, inputs) and a convolution: ids -> y, z."""
    drawn = {
        "table": rng.standard_normal((VOCABULARY, WIDTH)),
        "w": rng.standard_normal((WIDTH, 48)),
        "v": rng.standard_normal((CLASSES, 48)),
        "b": rng.standard_normal(CLASSES),
        "k": rng.standard_normal((16, 8, 3, 3)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["h"]),
        helper.make_node("ReduceMean", ["h"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "v", "b"], ["y"], transB=1),
        helper.make_node("Reshape", ["e", "shape"], ["image"]),
        helper.make_node("Conv", ["image", "k"], ["z"]),
    ]
    initializers = [numpy_helper.from_array(each.astype(np.float32), name) for name, each in drawn.items()]
    initializers.append(numpy_helper.from_array(np.array([-1, 8, 8, 8]), "shape"))
    return load(
        of_nodes(
            nodes,
            initializers,
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 8])],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES]),
                helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 16, 6, 6]),
            ],
        )
    )


@pytest.fixture
def tied(rng: np.random.Generator) -> Graph:
    """Return a model whose table is the weight of its last layer as well: ids -> y."""
    return tied_to(rng.standard_normal((VOCABULARY, WIDTH)).astype(np.float32))


def tied_to(table: np.ndarray) -> Graph:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "turned"], ["y"]),
    ]
    return load(
        of_nodes(
            nodes,
            [numpy_helper.from_array(table, "table")],
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, VOCABULARY])],
        )
    )


def planned(graph: Graph, step: float = STEP) -> dict[str, Plan]:
    return {name: GridPlan(step) if len(weight.shape) > 1 else exact(weight) for name, weight in graph.weights.items()}


def outputs_of(graph: Graph, plans: Mapping[str, Plan], folder: Path) -> dict[str, np.ndarray]:
    write_model_files(graph, folder, lambda weight: restored(weight, plans[weight.name]))
    return run_all(folder, [{"ids": np.arange(24).reshape(3, 8) * 4 % VOCABULARY}])[0]


def operators(lowered: Lowered) -> list[str]:
    return [node.op_type for node in lowered.graph.model.graph.node]


def dtypes(lowered: Lowered) -> dict[str, str]:
    return {name: weight.dtype.name for name, weight in lowered.graph.weights.items()}


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_half_floats_are_stored_and_cast(graph: Graph, tmp_path: Path) -> None:
    plans = planned(graph)
    lowered = TARGETS["fp16"].lowered(graph, plans)
    halves = {"table_half": "float16", "w_half": "float16", "v_half": "float16", "k_half": "float16"}
    assert dtypes(lowered) == {"b": "float32", **halves}
    assert operators(lowered).count("Cast") == 4
    # Quarters are half floats.
    expected = outputs_of(graph, plans, tmp_path)
    for name, found in outputs_of(lowered.graph, lowered.plans, tmp_path).items():
        assert np.array_equal(found, expected[name])


def test_values_that_no_half_float_holds_stay_floats(rng: np.random.Generator) -> None:
    model = layers(rng, 64, 64, 32)
    model.graph.initializer[0].raw_data = (1e5 * rng.standard_normal((64, 64))).astype(np.float32).tobytes()
    graph = load(model)
    assert dtypes(TARGETS["fp16"].lowered(graph, lossless(graph)))["w0"] == "float32"


def test_layers_of_int8_multiply_integers_that_no_kernel_saturates_with(graph: Graph, tmp_path: Path) -> None:
    plans = planned(graph, 1 / 64)
    lowered = TARGETS["int8"].lowered(graph, plans)
    names = {"table_int8": "int8", "w_int8": "int8", "v_int8": "int8", "k_int8": "int8"}
    assert dtypes(lowered).items() >= names.items()
    assert operators(lowered).count("DynamicQuantizeMatMul") == 2
    assert operators(lowered).count("DequantizeLinear") == 1  # the convolution's; the table has steps of rows
    assert all(np.abs(lowered.graph.weights[name].data).max() <= LARGEST for name in ("w_int8", "v_int8"))
    assert np.abs(lowered.graph.weights["table_int8"].data).max() > LARGEST
    expected = outputs_of(graph, plans, tmp_path)
    for name, found in outputs_of(lowered.graph, lowered.plans, tmp_path).items():
        assert error(found, expected[name]) < 0.03


@pytest.mark.parametrize("opset", [11, 17])
def test_layers_that_multiply_floats_get_those_of_the_plans(graph: Graph, opset: int, tmp_path: Path) -> None:
    graph.model.opset_import[0].version = opset
    plans = planned(graph)
    lowered = TARGETS["int8-floats"].lowered(graph, plans)
    assert "DynamicQuantizeMatMul" not in operators(lowered)
    assert sorted(dtypes(lowered).values()) == ["float32", "int8", "int8", "int8", "int8"]
    expected = outputs_of(graph, plans, tmp_path)
    for name, found in outputs_of(lowered.graph, lowered.plans, tmp_path).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-5)


def test_layers_of_four_bits_multiply_blocks_and_rows_of_tables_are_unpacked(graph: Graph, tmp_path: Path) -> None:
    plans = planned(graph, 0.5)
    lowered = TARGETS["int4"].lowered(graph, plans)
    assert dtypes(lowered).items() >= {"w_int4": "uint8", "v_int4": "uint8", "table_int4": "uint8"}.items()
    assert dtypes(lowered)["k_int8"] == "int8"
    assert operators(lowered).count("MatMulNBits") == 2
    assert lowered.graph.weights["table_int4"].size == VOCABULARY * WIDTH // 2
    expected = outputs_of(graph, plans, tmp_path)
    found = outputs_of(lowered.graph, lowered.plans, tmp_path)
    np.testing.assert_allclose(found["z"], expected["z"], rtol=1e-5, atol=1e-5)
    assert error(found["y"], expected["y"]) < 0.03


@pytest.mark.parametrize("bits", [2, 4])
def test_a_tied_table_is_stored_once(tied: Graph, bits: int, tmp_path: Path) -> None:
    plans = {"table": GridPlan(1.0)}
    lowered = TARGETS[f"int{bits}"].lowered(tied, plans)
    assert [weight.size for weight in lowered.graph.weights.values() if weight.dtype.name == "uint8"] == [
        VOCABULARY * WIDTH * bits // 8
    ]
    lines = operators(lowered)
    assert lines.count("MatMulNBits") == 1
    assert "Transpose" not in lines
    if bits == 2:
        return  # older releases of ONNX Runtime multiply no integers of 2 bits
    expected = outputs_of(tied, plans, tmp_path)["y"]
    assert error(outputs_of(lowered.graph, lowered.plans, tmp_path)["y"], expected) < 0.03


@pytest.mark.parametrize("width", [128, 192])
def test_blocks_with_zero_points_are_multiplied_and_selected_with_them(
    width: int, rng: np.random.Generator, tmp_path: Path
) -> None:
    values = rng.standard_normal((VOCABULARY, width)).astype(np.float32)
    # Each block has its weights elsewhere; the last byte of a row's zero points may hold a single one.
    values += np.repeat(np.linspace(-2, 2, width // 64), 64).astype(np.float32)
    graph = tied_to(values)
    rounder = BlockRounder({"table": Covariance(np.eye(width, dtype=np.float32)[None, None], np.array([1]))})
    rounded = rounder("table", values, 64, 4)
    assert rounded is not None
    integers, scales, zeros = rounded
    assert zeros is not None
    assert len(np.unique(zeros)) > 3
    rows = ((integers - zeros) * scales).reshape(values.shape)
    lowered = replace(TARGETS["int4"], measured=Measured(rounding=rounder)).lowered(graph, {"table": GridPlan(0.01)})
    found = outputs_of(lowered.graph, lowered.plans, tmp_path)["y"]
    selected = rows[np.arange(24).reshape(3, 8) * 4 % VOCABULARY]
    assert error(found, selected @ rows.T) < 0.01


def test_a_tied_table_of_bytes_is_turned_for_its_layer(tied: Graph, tmp_path: Path) -> None:
    plans = {"table": GridPlan(0.1)}
    lowered = TARGETS["int8"].lowered(tied, plans)
    assert [each.size for each in lowered.graph.weights.values() if each.dtype.name == "int8"] == [VOCABULARY * WIDTH]
    expected = outputs_of(tied, plans, tmp_path)["y"]
    assert error(outputs_of(lowered.graph, lowered.plans, tmp_path)["y"], expected) < 0.03


def test_tables_of_two_bits_have_four(graph: Graph) -> None:
    lowered = TARGETS["int2"].lowered(graph, planned(graph, 1.0))
    # What multiplies 2 bits takes this version, and no older release does either.
    assert oldest_release(lowered.graph.model.ir_version, {"": 17}) == "1.24"
    widths = {name: plan.width for name, plan in lowered.plans.items() if isinstance(plan, IntegersPlan)}
    assert widths == {"table_int4": 4, "w_int2": 2, "v_int2": 2, "k_int8": 8}


@pytest.mark.parametrize("name", ["int8", "int8-floats", "int4", "int2", "fp16"])
def test_a_decoder_makes_what_outputs_were_measured_with(name: str, graph: Graph, tmp_path: Path) -> None:
    plans = planned(graph)
    lowered = TARGETS[name].lowered(graph, plans)
    for weight_name, found in decoded(lowered.graph, lowered.plans, tmp_path).items():
        weight = lowered.graph.weights[weight_name]
        assert np.array_equal(found, restored(weight, lowered.plans[weight_name]))


def test_integers_on_a_trellis_stay_on_it(graph: Graph) -> None:
    integers = np.tile(np.arange(-8, 8, dtype=np.int32), (WIDTH, 3))
    matrix = QuantizedMatrix(integers, STEP, delay=48)
    plans = {**planned(graph), "w": GridPlan.of(matrix)}
    lowered = TARGETS["int8"].lowered(graph, plans)
    plan = lowered.plans["w_int8"]
    assert isinstance(plan, IntegersPlan)
    assert plan.matrix.delay == 48
    assert np.array_equal(lowered.graph.weights["w_int8"].data, matrix.multiples())


def test_a_weight_that_is_an_output_stays_a_float(rng: np.random.Generator) -> None:
    model = layers(rng, 64, 64, 32)
    model.graph.output.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, [64, 64]))
    graph = load(model)
    lowered = TARGETS["int8"].lowered(graph, lossless(graph))
    assert dtypes(lowered)["w0"] == "float32"
    assert dtypes(lowered)["w1_int8"] == "int8"


@pytest.mark.usefixtures("without_measured_memory")
@pytest.mark.parametrize(
    ("dtype", "share"), [("fp16", 0.51), ("int8", 0.28), pytest.param("int4", 0.2, marks=pytest.mark.slow)]
)
def test_a_device_assembles_as_many_bytes_as_its_dtype_takes(
    dtype: str, share: float, model: onnx.ModelProto, output: Path, tmp_path: Path
) -> None:
    result = quick_export(model, output, dtype=dtype, effort=2, target=6.0)
    assert f"of weights by --dtype {dtype}\n" in summary(replace(result, dtype=f"{dtype}-floats"))
    assert result.as_json()["held_bytes"] == result.held_bytes < share * 4 * result.parameters + 1500
    seed = seed_runtime.open(output)
    seed.assemble(tmp_path / "assembled")
    assert (tmp_path / "assembled" / "model.weights").stat().st_size == result.held_bytes
    assert result.ratio >= 6
    assert result.outputs["y"].relative < 0.35


@pytest.mark.slow
@pytest.mark.usefixtures("threads_for_small_models", "without_measured_memory")
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_integers_are_the_same_with_any_number_of_jobs(
    dtype: str, rng: np.random.Generator, output: Path, tmp_path: Path
) -> None:
    model, calib, written = layers(rng, 64, 32, 32), tmp_path / "x.npz", []
    np.savez(calib, x=rng.standard_normal((64, 64)).astype(np.float32))
    for jobs in (1, 3):
        quick_export(model, output, dtype=dtype, effort=1, size=1 << 20, calib=calib, jobs=jobs, model_id="same")
        written.append(output.read_bytes())
    assert written[0] == written[1]


@pytest.mark.usefixtures("without_measured_memory")
def test_a_seed_of_integers_shows_them_and_says_that_only_floats_are_trained(
    model: onnx.ModelProto, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_export(model, output, dtype="int4", effort=1, target=6.0)
    assert cli.main([str(output), "--inspect", "--json"]) == 0
    held = json.loads(capsys.readouterr().out)["held_as"]
    # Three layers of 48 x 96, 96 x 96 and 96 x 20 weights, two to a byte.
    assert held["uint8"] == (48 * 96 + 96 * 96 + 96 * 20) // 2
    assert list(held) == ["uint8", "float32"]
    with pytest.raises(UnsupportedError, match="--finetune-graph and --dtype fp32, as only floats are trained"):
        seed_runtime.open(output).training_graph()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lossless"}, "--method grid"),
        ({"finetune_graph": True}, "--finetune-graph"),
        ({"base": [Path("old.seed")]}, "--base"),
        ({"heal": Path("x.npz"), "target": 9.0}, "--heal"),
    ],
)
def test_options_that_need_floats_are_refused(
    options: dict[str, Any], message: str, model: onnx.ModelProto, output: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        quick_export(model, output, dtype="int8", **options)
    assert not output.exists()


def test_an_unknown_dtype_names_those_there_are(model: onnx.ModelProto, output: Path) -> None:
    with pytest.raises(UsageError, match="fp32, fp16, int8, int4, int2"):
        quick_export(model, output, dtype="int3")
