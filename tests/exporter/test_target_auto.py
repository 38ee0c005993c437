"""`--dtype auto`: integers where a device multiplies them faster and the model allows it, and floats elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.records import Work
from seed_exporter.results import Options
from seed_exporter.stages import targeting
from seed_exporter.stages.loading import load
from seed_exporter.stages.targeting import choose_target, resolve_dtype
from seed_runtime.agent.processors import Processor
from seed_runtime.errors import UnsupportedError, UsageError
from tests.exporter.support.command import Ran
from tests.exporter.support.exporting import of_nodes

pytestmark = pytest.mark.usefixtures("without_measured_memory")
FALLS_BACK = "--dtype auto takes fp32 for this model: "


def auto(model: onnx.ModelProto, folder: Path, calib: Path | None = None) -> tuple[str, str]:
    """Return the dtype of a model's seed for a Raspberry Pi 5, and the note on it."""
    options, notes = resolve_dtype(Options(dtype="auto", device="pi5", target=6.0, calib=calib))
    work = Work(options, folder, lambda *_: None, notes=notes, is_auto=True)
    decided = choose_target(load(model, work), work)
    (note,) = [note for note in decided.notes if note.startswith("--dtype auto")]
    return decided.options.dtype, note


@pytest.mark.parametrize(
    ("device", "dtype", "said"),
    [
        ("pi4", "fp32", "is fp32 for pi4 (arm64): no instruction is known"),
        ("pi5", "int8", "is int8 for pi5 (arm64+asimddp): it has dot products of bytes (asimddp)"),
        ("arm64+asimddp+i8mm", "int8", "is int8 for arm64+asimddp+i8mm: it has dot products of bytes (asimddp, i8mm)"),
        ("x86-64+avx2", "int8", "is int8 for x86-64+avx2: with AVX2"),
        ("x86-64", "fp32", "is fp32 for x86-64: no instruction"),
    ],
)
def test_the_device_decides_and_a_note_says_why(device: str, dtype: str, said: str) -> None:
    options, (note,) = resolve_dtype(Options(dtype="auto", device=device))
    assert options.dtype == dtype
    assert said in note


def test_without_a_device_it_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targeting, "this_processor", lambda: Processor("x86-64", ("avx_vnni",)))
    options, (note,) = resolve_dtype(Options(dtype="auto"))
    assert options.dtype == "int8"
    assert "for this machine (x86-64+avx_vnni), as --for names no other: " in note


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "lossless"}, "--dtype int8 stores what --method grid rounds"),
        ({"finetune_graph": True}, "--finetune-graph trains floats"),
        ({"base": [Path("old.seed")]}, "--base codes what floats differ by"),
        ({"heal": Path("x.npz"), "target": 9.0}, "--heal trains steps"),
    ],
)
def test_options_that_need_floats_have_them(options: dict[str, Any], reason: str) -> None:
    resolved, (note,) = resolve_dtype(Options(dtype="auto", device="pi5", **options))
    assert resolved.dtype == "fp32"
    assert note.startswith(FALLS_BACK + reason)


def test_a_model_of_layers_holds_integers(model: onnx.ModelProto, tmp_path: Path) -> None:
    dtype, note = auto(model, tmp_path)
    assert dtype == "int8", note
    assert note.startswith("--dtype auto is int8")


@pytest.mark.parametrize(("is_real", "dtype"), [(False, "fp32"), (True, "int8")])
def test_convolutions_hold_integers_where_ranges_were_measured(
    is_real: bool, dtype: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    kernels = numpy_helper.from_array(rng.standard_normal((32, 8, 3, 3)).astype(np.float32), "k")
    convolution = of_nodes(
        [helper.make_node("Conv", ["x", "k"], ["a"]), helper.make_node("ReduceMean", ["a"], ["y"], axes=[2, 3])],
        [kernels],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32, 1, 1])],
    )
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((32, 8, 8, 8)).astype(np.float32))
    found, note = auto(convolution, tmp_path, tmp_path / "x.npz" if is_real else None)
    assert found == dtype, note
    assert is_real or note == FALLS_BACK + "convolutions multiply bytes only within ranges that are measured on --calib"


def test_convolutions_that_keep_their_floats_keep_no_layer_from_integers(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    drawn = {"k": (64, 1, 5, 5), "w": (1024, 32)}
    model = of_nodes(
        [
            helper.make_node("Conv", ["x", "k"], ["a"]),
            helper.make_node("Flatten", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["y"]),
        ],
        [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in drawn.items()],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
    )
    dtype, note = auto(model, tmp_path)
    assert dtype == "int8", note


def test_a_model_of_half_floats_stays_as_it_is(rng: np.random.Generator, tmp_path: Path) -> None:
    half = of_nodes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float16), "w")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["n", 64])],
    )
    dtype, note = auto(half, tmp_path)
    assert (dtype, note.startswith(FALLS_BACK + "matrices of float16 stay as they are")) == ("fp32", True)
    work = Work(Options(dtype="int8", target=6.0), tmp_path, lambda *_: None)
    asked = choose_target(load(half, work), work)
    assert asked.options.dtype.startswith("int8")
    assert any(note.startswith("--dtype int8: matrices of float16 stay as they are") for note in asked.notes)


def test_operators_that_multiply_floats_have_floats(rng: np.random.Generator, tmp_path: Path) -> None:
    kernels = numpy_helper.from_array(rng.standard_normal((8, 32, 3, 3)).astype(np.float32), "k")
    transposed = of_nodes(
        [helper.make_node("ConvTranspose", ["x", "k"], ["y"])],
        [kernels],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32, 6, 6])],
    )
    dtype, note = auto(transposed, tmp_path)
    assert dtype == "fp32"
    assert note.startswith(FALLS_BACK + "ConvTranspose would get floats made of integers each time")


def test_a_model_that_loses_too_much_keeps_its_floats(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targeting, "_excess", lambda *_: 40.0)
    dtype, note = auto(model, tmp_path)
    assert dtype == "fp32"
    assert note.startswith(FALLS_BACK + "with int8 outputs would lose 40 times")


def test_a_model_that_this_release_doesnt_run_in_integers_keeps_its_floats(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UnsupportedError("ONNX Runtime 1.0 has no such operator; update it")

    monkeypatch.setattr(targeting, "check_runnable", refuse)
    dtype, note = auto(model, tmp_path)
    assert (dtype, note) == ("fp32", FALLS_BACK + "ONNX Runtime 1.0 has no such operator")


def test_a_device_without_auto_is_refused() -> None:
    with pytest.raises(UsageError, match="add --dtype auto, or leave out --for"):
        resolve_dtype(Options(device="pi5"))


@pytest.mark.parametrize(("board", "dtype"), [("pi4", "fp32"), ("pi5", "int8")])
def test_the_command_takes_a_board_and_says_what_was_decided(
    board: str, dtype: str, model: onnx.ModelProto, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    wanted = ("--dtype", "auto", "--for", board, "--effort", "1", "--target", "6x", "--json")
    ran = Ran(capfd, tmp_path / "m.onnx", "-o", tmp_path / "m.seed", *wanted)
    result = json.loads(ran.out)
    assert (ran.code, result["dtype"]) == (0, dtype)
    assert any(note.startswith(f"--dtype auto is {dtype} for {board} (arm64") for note in result["notes"])


def test_the_command_refuses_an_unknown_board_before_any_work(
    model_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.seed"
    ran = Ran(capfd, model_file, "-o", output, "--dtype", "auto", "--for", "pi9")
    assert (ran.code, "no device is called 'pi9'" in ran.err) == (2, True)
    assert not output.exists()
