"""`seed_exporter.pipeline`: what is written keeps its promises, and what can't be done is refused early."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_exporter
import seed_runtime
from seed_exporter import loaders
from seed_exporter.build import draft
from seed_runtime import backends, golden
from seed_runtime.errors import FormatError, InputError, UnsupportedError, UsageError
from seed_runtime.format.preamble import MAGIC
from seed_runtime.format.writer import front
from seed_runtime.golden import SUPPLIED, Golden
from seed_runtime.system import files
from tests.exporter.support.exporting import dense, holding, layers, of_nodes, quick_export, tensor, weights_in

OLD = MAGIC + b"the old one"


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 48, 96, 64)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "model.seed"


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


# Sizes


@pytest.mark.slow
def test_half_a_million_fp32_weights_become_four_times_smaller_by_default(
    rng: np.random.Generator, output: Path
) -> None:
    result = quick_export(layers(rng, 128, 512, 512, 300), output)
    assert result.parameters > 480_000
    assert result.bytes == output.stat().st_size
    assert 4 * result.parameters / output.stat().st_size >= 4
    assert result.ratio >= 4
    assert result.outputs["y"].relative < 0.02


@pytest.mark.parametrize("goal", [{"target": 3.0}, {"target": 6.0}, {"target": 10.0}, {"size": 7_000}])
def test_a_goal_is_kept_by_the_whole_file_and_used(goal: dict[str, Any], model: onnx.ModelProto, output: Path) -> None:
    result = quick_export(model, output, **goal)
    asked = goal.get("size") or loaders.load(model).distinct_bytes / goal["target"]
    assert result.goal_met
    assert 0.97 * asked <= output.stat().st_size <= asked


def test_a_long_model_id_counts_in_the_size(model: onnx.ModelProto, output: Path) -> None:
    result = quick_export(model, output, size=6_000, model_id="m" * 255)
    assert result.goal_met
    assert 0.97 * 6_000 <= output.stat().st_size <= 6_000


def test_a_goal_that_is_not_met_is_said_and_the_best_is_written(model: onnx.ModelProto, output: Path) -> None:
    result = quick_export(model, output, size=100)
    assert not result.goal_met
    assert result.bytes == output.stat().st_size > 100
    seed_runtime.open(output).check()


def test_what_is_said_to_be_the_smallest_possible_is_so_where_vectors_weigh_most(
    rng: np.random.Generator, output: Path
) -> None:
    sizes = (8, 300, 8, 300, 8)
    matrices = [rng.standard_normal(shape).astype(np.float32) for shape in pairwise(sizes)]
    heavy = dense(matrices, [10 * rng.standard_normal(size).astype(np.float32) for size in sizes[1:]])
    smallest = quick_export(heavy, output, size=100, effort=1).bytes
    assert not quick_export(heavy, output, size=int(0.95 * smallest), effort=1).goal_met


def test_tied_weights_are_stored_once(rng: np.random.Generator, output: Path) -> None:
    table = rng.standard_normal((96, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "turned"], ["i"]),
        helper.make_node("MatMul", ["i", "b"], ["y"]),
    ]
    arrays = {"a": table, "turned": table.T.copy(), "b": table.copy()}
    model = of_nodes(
        nodes,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        [floats("x", 1, 96)],
        [floats("y", 1, 64)],
    )
    result = quick_export(model, output, method="lossless")
    assert result.parameters == table.size
    assert output.stat().st_size < table.nbytes
    assert result.outputs["y"].identical


# What comes back


def test_lossless_keeps_weights_and_outputs_bit_for_bit(model: onnx.ModelProto, output: Path, tmp_path: Path) -> None:
    result = quick_export(model, output, method="lossless")
    assert result.outputs["y"].identical
    for name, array in weights_in(output, tmp_path / "out", result.graph.weights).items():
        assert array.tobytes() == result.graph.weights[name].data.tobytes()


def test_a_matrix_with_an_infinity_is_kept_exactly_by_default(
    rng: np.random.Generator, output: Path, tmp_path: Path
) -> None:
    odd = rng.standard_normal((40, 40)).astype(np.float32)
    odd[1, 2], odd[3, 4] = np.inf, np.nan
    plain = rng.standard_normal((40, 40)).astype(np.float32)
    model = holding(numpy_helper.from_array(odd, "odd"), numpy_helper.from_array(plain, "plain"))
    quick_export(model, output)
    back = weights_in(output, tmp_path / "out", ["odd", "plain"])
    assert back["odd"].tobytes() == odd.tobytes()
    assert back["plain"].tobytes() != plain.tobytes()


def test_a_pre_quantized_model_stays_exact_by_default(rng: np.random.Generator, output: Path, tmp_path: Path) -> None:
    codes, scales = rng.integers(0, 255, (96, 64)).astype(np.uint8), rng.random(64).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    arrays = {"codes": codes, "scales": scales, "zeros": np.full(64, 128, np.uint8)}
    model = of_nodes(
        nodes,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        [floats("x", "batch", 96)],
        [floats("y", "batch", 64)],
    )
    result = quick_export(model, output)
    assert result.outputs["y"].identical
    back = weights_in(output, tmp_path / "out", arrays)
    assert back["codes"].tobytes() == codes.tobytes()
    assert back["scales"].tobytes() == scales.tobytes()


def test_four_bit_weights_stay_exact(rng: np.random.Generator, output: Path, tmp_path: Path) -> None:
    packed = rng.integers(0, 256, 64 * 64 // 2, np.uint8)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = [
        tensor("codes", TensorProto.INT4, (64, 64), packed),
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
    ]
    model = of_nodes(nodes, weights, [floats("x", 1, 64)], [floats("y", 1, 64)], opset=21)
    assert quick_export(model, output).outputs["y"].identical
    assert weights_in(output, tmp_path / "out", ["codes"])["codes"].tobytes() == packed.tobytes()


def test_a_model_without_weights_is_exported_and_runs(output: Path) -> None:
    model = of_nodes([helper.make_node("Relu", ["x"], ["y"])], [], [floats("x", 1, 4)], [floats("y", 1, 4)])
    result = quick_export(model, output)
    assert (result.parameters, result.outputs["y"].identical, result.goal_met) == (0, True, True)
    with seed_runtime.open(output).session() as session:
        out = session.run({"x": np.array([[-1, 2, -3, 4]], np.float32)})
        assert out["y"].tolist() == [[0, 2, 0, 4]]
        assert session.verify().ok


@pytest.mark.parametrize("mode", ["fast", "lean"])
def test_the_golden_sample_verifies_in_the_runtime(
    mode: str, model: onnx.ModelProto, output: Path, tmp_path: Path
) -> None:
    quick_export(model, output)
    opened = seed_runtime.open(output)
    assert opened.header.golden is not None
    assert len(opened.header.golden) <= 512
    opened.assemble(tmp_path / "out")
    runner = backends.get().open(tmp_path / "out", mode)
    verdict = golden.verify(opened.header.golden, runner)
    runner.close()
    assert (verdict.present, verdict.ok) == (True, True)


def test_a_model_with_a_switch_for_input_is_exported(rng: np.random.Generator, output: Path) -> None:
    nodes = [helper.make_node("Where", ["on", "a", "b"], ["y"])]
    weights = [numpy_helper.from_array(rng.standard_normal((40, 40)).astype(np.float32), name) for name in "ab"]
    model = of_nodes(
        nodes, weights, [helper.make_tensor_value_info("on", TensorProto.BOOL, ["rows", 40])], [floats("y", 40, 40)]
    )
    quick_export(model, output)
    with seed_runtime.open(output).session() as session:
        assert session.verify().ok


def test_infinite_outputs_are_no_fault(output: Path, rng: np.random.Generator) -> None:
    model = dense([rng.standard_normal((40, 40)).astype(np.float32)], [np.full(40, np.inf)])
    result = quick_export(model, output)
    assert result.outputs["y"].relative == 0
    with seed_runtime.open(output).session() as session:
        assert session.verify().ok


# The same again


@pytest.mark.usefixtures("threads_for_small_models")
@pytest.mark.parametrize("method", ["grid", "lossless", "moments"])
def test_the_same_model_gives_the_same_bytes_with_any_number_of_jobs(
    method: str, model: onnx.ModelProto, output: Path
) -> None:
    written = []
    for jobs in (1, 1, 2):
        quick_export(model, output, method=method, jobs=jobs, model_id="same")
        written.append(output.read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.slow
def test_measured_memory_is_all_that_differs_between_two_exports(model: onnx.ModelProto, output: Path) -> None:
    seeds = [seed_exporter.export(model, output=output).seed for _ in range(2)]
    assert all(seed.header.footprint is not None for seed in seeds)
    fronts = [front(replace(seed.header, footprint=None)) for seed in seeds]
    assert fronts[0] == fronts[1]
    assert [stream.chunks for stream in seeds[0].streams] == [stream.chunks for stream in seeds[1].streams]


# Real inputs


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "calib.npz", **arrays)
    return folder / "calib.npz"


def test_output_files_are_compared_on_real_inputs_where_there_are_some(
    model: onnx.ModelProto, output: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((3, 2, 48)).astype(np.float32)
    assert quick_export(model, output, calib=npz(tmp_path, x=x)).inputs == "real"
    assert quick_export(model, output).inputs == "generated"


def test_data_with_wrong_names_is_refused(model: onnx.ModelProto, output: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input 'z'; it expects x: float32"):
        quick_export(model, output, calib=npz(tmp_path, z=np.zeros((1, 48), np.float32)))
    assert not output.exists()


def picky(rng: np.random.Generator) -> onnx.ModelProto:
    """Takes rows of 24 in number, which no generated input has: they are reshaped to 2 x 12."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["twelve"]),
        helper.make_node("MatMul", ["twelve", "w"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([2, 12, 40]), "shape"),
        numpy_helper.from_array(rng.standard_normal((40, 40)).astype(np.float32), "w"),
    ]
    return of_nodes(nodes, weights, [floats("x", "rows", 40)], [floats("y", 2, 12, 40)])


def test_a_model_that_no_generated_input_suits_is_exported_with_real_ones(
    output: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    with pytest.raises(UnsupportedError, match="--calib"):
        quick_export(picky(rng), output)
    result = quick_export(picky(rng), output, calib=npz(tmp_path, x=np.ones((24, 40), np.float32)))
    assert result.inputs == "real"
    assert result.seed.header.golden is None  # 3,840 bytes of input would be too many


def test_small_real_inputs_become_the_golden_sample(output: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    # Rows of a table beyond the first are asked for by number; what is generated is 0 or 1 and out of its range.
    nodes = [
        helper.make_node("Sub", ["i", "offset"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array(1000), "offset"),
        numpy_helper.from_array(rng.standard_normal((50, 30)).astype(np.float32), "table"),
    ]
    model = of_nodes(nodes, weights, [helper.make_tensor_value_info("i", TensorProto.INT64, [4])], [floats("y", 4, 30)])
    quick_export(model, output, calib=npz(tmp_path, i=np.array([1001, 1002, 1049, 1000])))
    opened = seed_runtime.open(output)
    assert opened.header.golden is not None
    (recipe,) = Golden.unpack(opened.header.golden).inputs
    assert recipe.kind == SUPPLIED
    with opened.session() as session:
        assert session.verify().ok


# Refusals


class Untouchable:
    """A source that must not be looked at: what is wrong is known before."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model was asked for {name}")


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("none/model.seed", "no folder .*none; make it: mkdir -p"),
        (".", "is a folder"),
        ("file/model.seed", "no folder"),
    ],
)
def test_an_output_that_can_not_be_written_is_refused_before_the_model_is_read(
    where: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=problem):
        quick_export(Untouchable(), tmp_path / where)


def test_a_place_in_the_working_folder_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.check_writable("model.seed")


def test_the_model_itself_is_never_replaced(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for output in (path, tmp_path / "link"):
        with pytest.raises(UsageError, match="exists and is not a seed"):
            quick_export(path, output)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"method": "magic"}, "no method is called 'magic'; use one of grid"),
        ({"target": 4.0, "size": 1000}, "give one of them"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str, output: Path) -> None:
    with pytest.raises(UsageError, match=problem):
        quick_export(Untouchable(), output, **options)


@pytest.mark.parametrize("name", ["m" * 256, "ä" * 128, "line\nbreak", "\x1b[2J"])
def test_a_model_id_that_no_header_can_hold_is_refused(name: str, model: onnx.ModelProto, output: Path) -> None:
    with pytest.raises(UsageError, match="model id"):
        quick_export(model, output, model_id=name)
    assert not output.exists()


def test_an_operator_that_onnx_runtime_lacks_is_named(output: Path) -> None:
    model = of_nodes(
        [helper.make_node("Conjure", ["x"], ["y"], domain="my.own")], [], [floats("x", 1)], [floats("y", 1)],
        domains=["my.own"],
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"no operator Conjure of domain my\.own"):
        quick_export(model, output)
    assert not output.exists()


def test_a_seed_that_does_not_check_never_replaces_an_older_one(
    model: onnx.ModelProto, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.write_bytes(OLD)
    write_into = draft.SeedDraft.write_into

    def cut(seed: draft.SeedDraft, file: IO[bytes]) -> int:
        size = write_into(seed, file)
        file.truncate(size - 1)
        return size

    monkeypatch.setattr(draft.SeedDraft, "write_into", cut)
    with pytest.raises(FormatError):
        quick_export(model, output)
    assert output.read_bytes() == OLD
    assert [path.name for path in output.parent.iterdir()] == [output.name]


# PyTorch
