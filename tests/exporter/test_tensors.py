"""Data of tensors: typed fields, raw bytes, files beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.matrix import matrix_view
from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from tests.exporter.support.onnx_models import W, info, make, run, tensor
from tests.support.wrong_files import POINTER


@pytest.mark.parametrize(
    ("code", "field", "values", "expected"),
    [
        (TensorProto.FLOAT, "float_data", [1.5, -2.0], np.array([1.5, -2], "<f4")),
        (TensorProto.DOUBLE, "double_data", [1.5, -2.0], np.array([1.5, -2], "<f8")),
        (TensorProto.INT64, "int64_data", [1, -2], np.array([1, -2], "<i8")),
        (TensorProto.UINT64, "uint64_data", [1, 1 << 63], np.array([1, 1 << 63], "<u8")),
        (TensorProto.UINT32, "uint64_data", [1, 1 << 31], np.array([1, 1 << 31], "<u4")),
        (TensorProto.INT32, "int32_data", [1, -2], np.array([1, -2], "<i4")),
        (TensorProto.INT16, "int32_data", [1, -2], np.array([1, -2], "<i2")),
        (TensorProto.INT8, "int32_data", [1, -2], np.array([1, -2], "i1")),
        (TensorProto.UINT8, "int32_data", [1, 255], np.array([1, 255], "u1")),
        (TensorProto.BOOL, "int32_data", [1, 0], np.array([1, 0], "u1")),
        (TensorProto.FLOAT16, "int32_data", [0x3C00, 0xC000], np.array([1, -2], "<f2")),
        (TensorProto.BFLOAT16, "int32_data", [0x3F80, 0xC000], np.array([0x3F80, 0xC000], "<u2")),
        (TensorProto.FLOAT8E5M2, "int32_data", [0x3C, 0xC0], np.array([0x3C, 0xC0], "u1")),
        (TensorProto.INT4, "int32_data", [0xE1, 0x2F], np.array([0xE1, 0x2F], "u1")),
    ],
)
def test_typed_fields_give_the_same_bits_as_raw_data(code: int, field: str, values: list, expected: np.ndarray):
    dtype = next(each for each in BY_NAME.values() if each.code == code)
    repeat = 256
    held = TensorProto(name="w", data_type=code, dims=[expected.size * repeat * (2 if dtype.bits == 4 else 1)])
    getattr(held, field).extend(values * repeat)
    graph = load(make([helper.make_node("Cast", ["w"], ["y"], to=1)], [held], opset=21, ir=10))
    weight = graph.weights["w"]
    assert weight.data.tobytes() == expected.tobytes() * repeat
    assert weight.data.dtype == dtype.storage
    assert weight.size == weight.data.nbytes


def test_data_of_the_wrong_size_is_refused():
    held = TensorProto(name="w", data_type=1, dims=[16, 16], raw_data=bytes(1000))
    with pytest.raises(UnsupportedError, match="1,000 bytes"):
        load(make([helper.make_node("MatMul", ["x", "w"], ["y"])], [held]))


def test_external_data_is_mapped_from_beside_the_model(tmp_path: Path):
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")])
    expected = run(model.SerializeToString())
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    graph = load(path)
    assert np.array_equal(graph.weights["w"].data, W)
    rebuilt = tmp_path / "rebuilt"
    rebuilt.mkdir()
    assert np.array_equal(run(write_model_files(graph, rebuilt))[0], expected[0])


def external(location: str, offset: int = 0, dims: Sequence[int] = (16, 16)) -> onnx.TensorProto:
    out = TensorProto(name="w", dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset))):
        out.external_data.add(key=key, value=value)
    return out


@pytest.mark.parametrize(
    ("location", "offset", "problem"),
    [
        ("../w.bin", 0, "not below"),
        ("/etc/passwd", 0, "not below"),
        ("C:\\w.bin", 0, "not below"),
        ("..\\w.bin", 0, "not below"),
        ("link.bin", 0, "not below"),
        ("", 0, "not below"),
        ("nowhere.bin", 0, "missing"),
        # ONNX Runtime would read its own memory at the offset.
        ("*/_ORT_MEM_ADDR_/*", 4096, "missing"),
        ("*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*", 4096, "missing"),
        ("w.bin", 8, "does not hold"),
        ("w.bin", -8, "does not hold"),
    ],
)
def test_external_data_elsewhere_or_cut_is_refused(tmp_path: Path, location: str, offset: int, problem: str):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(W.tobytes())
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path = folder / "model.onnx"
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [external(location, offset)])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match=problem):
        load(path)


def test_weights_that_are_a_git_lfs_pointer_are_called_one(tmp_path: Path):
    (tmp_path / "w.bin").write_bytes(POINTER)
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [external("w.bin")])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match=r"w\.bin' is a Git LFS pointer .*git lfs pull"):
        load(tmp_path / "model.onnx")


def test_a_hub_cache_that_links_model_and_data_is_read(tmp_path: Path):
    blobs, links = tmp_path / "blobs", tmp_path / "links"
    blobs.mkdir()
    links.mkdir()
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [external("w.bin")])
    (blobs / "1").write_bytes(model.SerializeToString())
    (blobs / "2").write_bytes(W.tobytes())
    (links / "model.onnx").symlink_to(blobs / "1")
    (links / "w.bin").symlink_to(blobs / "2")
    assert np.array_equal(load(links / "model.onnx").weights["w"].data, W)


@pytest.mark.slow
def test_models_over_two_gigabytes_are_loaded_without_reading_them(tmp_path: Path):
    rows = 200 << 20
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(4 * 4 * rows)  # one hole: no disk is used
    model = make(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        [external("w.bin", dims=(rows, 4))],
        inputs=[info("x", ["n"], TensorProto.INT64)],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    graph = load(path)
    assert graph.distinct_bytes == 16 * rows > 1 << 31
    assert matrix_view(graph.weights["w"]) == (rows, 4)
    check_runnable(graph)
