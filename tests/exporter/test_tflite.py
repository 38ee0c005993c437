"""TFLite files as seeds: every bit kept, quantized, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_exporter import loaders
from seed_exporter.archive.checkpoints import load as load_checkpoint
from seed_exporter.comparison.own import check_comparable
from seed_exporter.pipeline import export
from seed_exporter.results import Options
from seed_runtime.errors import UnsupportedError, UsageError
from tests.support.tflite_bytes import Scalar, code, model, operator, tensor

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")

LOSSLESS = Options(method="lossless", jobs=1)


def written(tmp_path: Path, data: bytes, name: str = "m.tflite") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.slow
def test_every_bit_is_kept_and_the_file_is_given_back(tmp_path: Path) -> None:
    source = written(tmp_path, model() + b"a file that a tool appended")
    result = export(source, output=tmp_path / "m.seed", options=LOSSLESS)
    assert all(error.identical for error in result.outputs.values())
    seed = seed_runtime.open(tmp_path / "m.seed")
    assert (seed.assemble(tmp_path / "out") / "model.tflite").read_bytes() == source.read_bytes()
    with seed.session() as session:
        x = np.ones(16, np.float32)
        assert session.run({"x": x})["y"].shape == (16,)
        assert session.verify().ok
    assert seed.footprint() is not None


def test_a_seed_is_known_by_its_weights_names_and_types(tmp_path: Path) -> None:
    graph = loaders.load(written(tmp_path, model()))
    (weight,) = graph.weights.values()
    assert (weight.name, weight.dtype.name, weight.shape) == ("weight", "float32", (16,))
    assert [(use.op, use.index) for use in weight.uses] == [("Add", 1)]


def test_a_file_without_the_suffix_is_known_by_its_bytes(tmp_path: Path) -> None:
    assert loaders.load(written(tmp_path, model(), "model.bin")).file is not None


def test_custom_operators_are_exported_with_every_bit_and_not_run(tmp_path: Path) -> None:
    source = written(tmp_path, model(codes=[code(32, "Mine")]))
    result = export(source, output=tmp_path / "m.seed", options=LOSSLESS)
    assert result.outputs == {}
    seed = seed_runtime.open(tmp_path / "m.seed")
    assert (seed.assemble(tmp_path / "out") / "model.tflite").read_bytes() == source.read_bytes()
    with pytest.raises(UnsupportedError, match="Mine"):
        seed.session()
    with pytest.raises(UnsupportedError, match=r"Mine.*--method lossless"):
        export(source, output=tmp_path / "n.seed", options=Options(jobs=1))
    assert not (tmp_path / "n.seed").exists()


@pytest.mark.parametrize("options", [Options(shrink=True), Options(finetune_graph=True)])
def test_what_edits_a_graph_is_refused(options: Options, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave it out for a TFLite model"):
        export(written(tmp_path, model()), output=tmp_path / "m.seed", options=options)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes"),
        (b"hello", "5 bytes"),
        (b"hello, this is no model at all", "bytes 4 to 7"),
        (model()[:300], "cut or damaged"),
        (model(operators=[operator(0, [0, 9], [2])]), "out of range"),
    ],
)
def test_what_is_no_model_is_refused(data: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=problem) as caught:
        export(written(tmp_path, data), output=tmp_path / "m.seed", options=LOSSLESS)
    assert caught.value.exit_code == 12
    assert not (tmp_path / "m.seed").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.tflite"):
        export(tmp_path / "none.tflite", output=tmp_path / "m.seed", options=LOSSLESS)


def test_half_precision_behind_a_dequantization_counts_as_the_weight(tmp_path: Path) -> None:
    tensors = [
        tensor([16], 0, "x"),
        tensor([32], 1, "half", 1),
        tensor([16], 0, "y"),
        tensor([32], 0, "single"),
    ]
    data = model(tensors=tensors, codes=[code(6), code(0)], operators=[operator(0, [1], [3]), operator(1, [0, 0], [2])])
    graph = loaders.load(written(tmp_path, data))
    assert graph.weights["half"].dtype.name == "float16"
    assert [node.op_type for node in graph.model.graph.node] == ["Add"]


def test_the_larger_of_both_numbers_names_an_operator(tmp_path: Path) -> None:
    old = {0: Scalar("b", 0)}
    graph = loaders.load(written(tmp_path, model(codes=[old])))
    assert graph.model.graph.node[0].op_type == "Add"


def test_peers_and_archives_take_no_tflite_model(tmp_path: Path) -> None:
    source = written(tmp_path, model())
    with pytest.raises(UsageError, match="peers take ONNX models"):
        check_comparable(loaders.load(source))
    with pytest.raises(UsageError, match="no checkpoint"):
        load_checkpoint(source)
