"""`seed-export` as a command: options, one JSON object, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_runtime
from seed_exporter.evaluate import footprint
from seed_runtime.format.preamble import MAGIC
from tests.exporter.support.command import Ran, refused
from tests.exporter.support.exporting import layers, of_nodes

KEYS = {"seed", "bytes", "ratio", "parameters", "bits_per_weight", "seconds", "outputs", "digest"}


pytestmark = pytest.mark.usefixtures("without_measured_memory")


@pytest.fixture
def model(model_file: Path) -> Path:
    return model_file


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "model.seed"


def one_object(text: str) -> dict[str, Any]:
    """All of stdout is one object on one line, of standard JSON."""
    assert text.count("\n") == 1

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


# Results


def test_json_is_one_object_with_the_keys_that_programs_rely_on(
    model: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capfd, model, "-o", output, "--json")
    assert (ran.code, ran.err) == (0, "")
    result = one_object(ran.out)
    assert result.keys() >= KEYS
    assert result["seed"] == str(output)
    assert result["bytes"] == output.stat().st_size
    assert result["digest"] == seed_runtime.open(output).digest.hex()
    assert result["parameters"] == 48 * 96 + 96 + 96 * 64 + 64
    assert result["bits_per_weight"] == pytest.approx(8 * result["bytes"] / result["parameters"], abs=1e-3)
    assert result["outputs"].keys() == {"y"}
    assert {"relative", "cosine", "identical"} <= result["outputs"]["y"].keys()
    assert {"load", "search", "encode", "check"} <= result["seconds"].keys()


def test_json_has_no_infinity_where_an_output_changed_its_shape(
    tmp_path: Path, output: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    # Places that are exactly zero: rounding a weight to zero makes one more of them.
    weights = rng.standard_normal((60, 60)).astype(np.float32)
    weights[0] *= 1e-4
    nodes = [
        helper.make_node("Mul", ["w", "x"], ["m"]),
        helper.make_node("NonZero", ["m"], ["y"]),
    ]
    model = of_nodes(
        nodes,
        [numpy_helper.from_array(weights, "w")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2, "found"])],
    )
    onnx.save(model, tmp_path / "odd.onnx")
    ran = Ran(capfd, tmp_path / "odd.onnx", "-o", output, "--json")
    assert ran.code == 0
    assert one_object(ran.out)["outputs"]["y"]["relative"] is None


def test_the_summary_goes_to_stdout_and_nothing_to_stderr_without_a_terminal(
    model: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capfd, model, "-o", output)
    assert (ran.code, ran.err) == (0, "")
    assert "x smaller" in ran.out
    assert str(output) in ran.out


def test_without_a_name_the_seed_gets_the_models_in_the_working_folder(
    model: Path, output: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(output.parent)
    assert Ran(capfd, model).code == 0
    assert [path.name for path in output.parent.iterdir()] == ["model.seed"]


@pytest.mark.parametrize(("goal", "most"), [(("--target", "5x"), None), (("--size", "9KB"), 9000)])
def test_a_goal_is_kept(
    goal: tuple[str, str], most: int | None, model: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capfd, model, "-o", output, *goal, "--json")
    assert ran.code == 0
    source = 4 * one_object(ran.out)["parameters"]
    assert 0.97 * (most or source / 5) <= output.stat().st_size <= (most or source / 5)


@pytest.mark.parametrize("goal", [("--target", "900x"), ("--size", "100"), ("--size", "100", "--method", "moments")])
def test_a_goal_that_is_not_met_returns_15_and_the_best_is_written(
    goal: tuple[str, ...], model: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capfd, model, "-o", output, *goal, "--json")
    assert ran.code == 15
    assert one_object(ran.out)["goal_met"] is False
    assert ran.err.startswith("seed-export: ")
    assert "best so far" in ran.err
    assert ("hardly of use" in ran.err) == (one_object(ran.out)["outputs"]["y"]["relative"] > 0.5)
    assert str(output) in ran.err
    seed_runtime.open(output).check()


@pytest.mark.parametrize("method", ["grid", "lossless", "moments"])
def test_every_method_makes_a_seed_of_a_tiny_model(
    method: str, tmp_path: Path, output: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    onnx.save(layers(rng, 4, 40), tmp_path / "tiny.onnx")
    assert Ran(capfd, tmp_path / "tiny.onnx", "-o", output, "--method", method, "-q").code == 0
    seed_runtime.open(output).check()


def test_id_version_and_report_are_as_asked(
    model: Path, output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model-id", "door/left", "--model-version", "7", "--report", tmp_path / "r.html", "--jobs", "1"]
    assert Ran(capfd, model, "-o", output, *arguments).code == 0
    header = seed_runtime.open(output).header
    assert (header.model.model_id, header.model.version) == ("door/left", 7)
    assert "door/left" in (tmp_path / "r.html").read_text()


# Refusals


@pytest.mark.parametrize(
    ("name", "content", "code", "problem"),
    [
        ("none.onnx", None, 2, "No such file"),
        ("none.pt2", None, 2, "seed-runtime[torch]|no such file"),
        ("model.txt", b"text", 2, "is not a model that seed-export reads"),
        ("text.onnx", b"this is no protobuf at all", 12, "no ONNX model"),
        ("empty.onnx", b"", 12, "is empty"),
        ("seed.onnx", MAGIC, 2, "is already a seed; run it: seed-run"),
        ("", None, 2, "is no file"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(
    name: str, content: bytes | None, code: int, problem: str, tmp_path: Path, output: Path, capfd: Any
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    error = refused(capfd, code, tmp_path / name if name else "", "-o", output)
    assert any(each in error for each in problem.split("|"))
    assert not output.exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_model_that_was_cut_is_refused_in_one_line(share: float, model: Path, output: Path, capfd: Any) -> None:
    data = model.read_bytes()
    model.write_bytes(data[: int(share * len(data))])
    refused(capfd, 12, model, "-o", output)
    assert not output.exists()


@pytest.mark.parametrize(("word", "problem"), [("zoo", "is ./zoo"), ("zoo:magik", "is ./zoo:magik")])
def test_words_of_the_command_line_are_no_files(
    word: str, problem: str, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / word).write_bytes(b"x")
    assert f"a file of that name {problem}" in refused(capfd, 2, "-q", word)
    # So named, it is a file, and refused for its contents.
    assert "is not a model that seed-export reads" in refused(capfd, 2, f"./{word}")


def test_an_operator_that_is_missing_is_named(tmp_path: Path, output: Path, capfd: Any) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Levitate", ["x"], ["y"], name="up")
    onnx.save(of_nodes([node], [], value[:1], value[1:]), tmp_path / "odd.onnx")
    error = refused(capfd, 12, tmp_path / "odd.onnx", "-o", output)
    assert "Levitate" in error
    assert "node up" in error


def test_a_folder_of_inputs_is_refused_with_what_to_do(model: Path, output: Path, capfd: Any) -> None:
    error = refused(capfd, 3, model, "-o", output, "--calib", model.parent)
    assert "is a folder; prepare its files as the model takes them and save them as one file: numpy.savez" in error
    assert "numpy.savez('calib.npz', x=array)" in error


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"images": np.zeros((1, 48), np.float32)}, "it expects x: float32[batch, 48]"),
        ({"x": np.zeros((1, 49), np.float32)}, "x: float32[batch, 48] is expected"),
        ({"x": np.zeros((1, 48), np.float64)}, "convert it with .astype('float32')"),
        ({"x": np.full((9, 1, 48), np.nan, np.float32)}, "call 1: input 'x' holds NaN"),
        ({"x": np.full((1, 48), -np.inf, np.float32)}, "call 1: input 'x' holds infinities; clean the data"),
        (None, "No such file"),
    ],
)
def test_data_that_can_not_be_used_returns_3(
    arrays: dict[str, np.ndarray] | None, problem: str, model: Path, output: Path, capfd: Any
) -> None:
    calib = model.with_name("calib.npz")
    if arrays is not None:
        np.savez(calib, **arrays)
    assert problem in refused(capfd, 3, model, "-o", output, "--calib", calib)
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--target", "4x", "--size", "1MB"], "give one of them"),
        (["--method", "lossless", "--target", "4x"], "has the size it has"),
        (["--report", "{folder}/none/r.html"], "there is no folder"),
        (["--report", "{folder}/model.seed"], "both name"),
        (["--report", "{folder}/../model.onnx"], "is not a report, so it isn't replaced; name another file with --"),
        (["--report", "{folder}/c.npz", "--calib", "{folder}/../out/c.npz"], "is not a report"),
        (["-o", "{folder}/c.npz", "--calib", "{folder}/c.npz"], "is not a seed"),
        (["-o", "{folder}/" + 256 * "m"], "File name too long; give another path"),
    ],
)
def test_options_that_can_not_be_are_refused_before_any_work(
    arguments: list[str], problem: str, model: Path, output: Path, capfd: Any
) -> None:
    model.write_bytes(b"never read")
    (output.parent / "c.npz").write_bytes(b"PK")
    arguments = [argument.format(folder=output.parent) for argument in arguments]
    assert problem in refused(capfd, 2, model, "-o", output, *arguments)


def test_an_output_in_a_missing_folder_is_refused_before_any_work(model: Path, tmp_path: Path, capfd: Any) -> None:
    model.write_bytes(b"never read")
    error = refused(capfd, 2, model, "-o", tmp_path / "none" / "model.seed")
    assert f"mkdir -p {tmp_path / 'none'}" in error


@pytest.mark.parametrize(
    "arguments",
    [["--target", "big"], ["--target", "0.5x"], ["--target", "nan"], ["--size", "-1"], ["--size", "1XB"],
     ["--size", "9"], ["--method", "magic"], ["--model-version", str(1 << 63)], ["--jobs", "0"], ["--unknown"], []],
)  # fmt: skip
def test_arguments_that_mean_nothing_return_2(arguments: list[str], model: Path, output: Path, capfd: Any) -> None:
    assert "; see: seed-export --help" in refused(capfd, 2, *([model, "-o", output, *arguments] if arguments else []))
    assert not output.exists()


def test_an_internal_error_says_how_to_report_it(
    model: Path, output: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(footprint, "measure", fail)
    assert "SEED_DEBUG=1" in refused(capfd, 1, model, "-o", output)
    assert not output.exists()
