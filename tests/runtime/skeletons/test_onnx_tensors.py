"""Data inside the model: what onnx writes of every type is taken, and whatever else holds is refused."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.errors import FormatError
from seed_runtime.skeletons import onnx
from seed_runtime.skeletons.onnx_tensors import count_varints
from tests.support.onnx_bytes import graph, model, node, num, put, varint, weight

VALUES = [0, 1, 1, 0, 1]


def scan(tensor: bytes) -> None:
    onnx.scan(model(graph(tensors=weight(), extra=put(5, tensor))))


def inline(code: int, *data: bytes, dims: tuple[int, ...] = (2, 3), name: str = "k") -> bytes:
    return b"".join(num(1, dim) for dim in dims) + num(2, code) + put(8, name) + b"".join(data)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("code", range(1, 27))
def test_what_onnx_writes_of_each_type_is_taken(code: int, raw: bool) -> None:
    library = pytest.importorskip("onnx")
    if code not in library.TensorProto.DataType.values():
        pytest.skip(f"onnx {library.__version__} has no such type")
    if raw and code == 8:
        pytest.skip("strings have no raw data")
    if raw:
        dtype = library.helper.tensor_dtype_to_np_dtype(code)
        tensor = library.numpy_helper.from_array(np.array(VALUES).astype(dtype), "k")
    else:
        values = [str(value).encode() for value in VALUES] if code == 8 else VALUES
        tensor = library.helper.make_tensor("k", code, [len(VALUES)], values)
    scan(tensor.SerializeToString())


def test_negative_numbers_take_ten_bytes_each() -> None:
    scan(inline(7, put(7, b"".join(map(varint, [-1, 2, -3, 4, 5, -(1 << 63)])))))


def test_a_tensor_without_elements_may_have_no_data() -> None:
    for data in ((), (put(9, b""),), (put(7, b""),)):
        scan(inline(7, *data, dims=(0, 3)))


@pytest.mark.parametrize(
    ("tensor", "problem"),
    {
        "raw data of another length": (inline(1, put(9, bytes(25))), "25 bytes of data for 6 elements, which take 24"),
        "raw data of complex numbers": (inline(14, put(9, bytes(24))), "which take 48"),
        "raw data of half bytes": (inline(22, put(9, bytes(4))), "which take 3"),
        "floats too few": (inline(1, put(4, bytes(20))), "20 bytes"),
        "floats too many": (inline(1, put(4, bytes(28))), "28 bytes"),
        "doubles too many": (inline(11, put(10, bytes(56))), "56 bytes"),
        "numbers too few": (inline(7, put(7, b"\1" * 5)), "5 numbers of data for 6 elements"),
        "numbers too many": (inline(6, put(5, b"\1" * 7)), "7 numbers"),
        "half bytes in a number each": (
            inline(21, put(5, b"\1" * 6)),
            "6 numbers .* which take 3",
        ),
        "strings too many": (inline(8, put(6, "a") * 7), "7 strings"),
        "no data": (inline(7), "no data for 6 elements"),
        "floats as integers": (inline(1, put(7, b"\1" * 6)), "has its data in int64_data"),
        "int64 as int32": (inline(7, put(5, b"\1" * 6)), "has its data in int32_data"),
        "int32 as int64": (inline(6, put(7, b"\1" * 6)), "has its data in int64_data"),
        "half floats as floats": (inline(10, put(4, bytes(24))), "has its data in float_data"),
        "raw strings": (inline(8, put(9, bytes(6))), "has its data in raw_data"),
        "two fields": (inline(1, put(9, bytes(24)), put(4, bytes(24))), "data of two kinds"),
        "two fields, one empty": (inline(1, put(9, bytes(24)), put(7, b"")), "data of two kinds"),
        "no type": (inline(0, put(9, b"")), "element type 0"),
        "a type of later versions": (inline(27, put(9, bytes(6))), "element type 27"),
        "a padded number": (inline(7, put(7, b"\1\1\1\1\1\x81\0")), "shortest form"),
        "a number cut": (inline(7, put(7, b"\1\1\1\1\1\x81")), "5 numbers|ends within"),
        "a number of 65 bits": (inline(7, put(7, b"\1" * 5 + b"\xff" * 9 + b"\2")), "shortest form"),
        "no name": (inline(1, put(9, bytes(24)), name=""), "is empty or can't be printed"),
        "a name to fool a terminal": (inline(1, put(9, bytes(24)), name="k\x1b[2J"), "is empty or can't be printed"),
    }.values(),
)
def test_data_that_are_not_those_of_the_type_and_the_dimensions_are_refused(tensor: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        scan(tensor)


def test_tensors_in_attributes_are_checked_alike() -> None:
    def constant(tensor: bytes) -> bytes:
        return model(graph(nodes=node(put(1, "value") + put(5, tensor) + num(20, 4))))

    onnx.scan(constant(inline(7, put(7, b"\1" * 6))))
    with pytest.raises(FormatError, match="5 numbers"):
        onnx.scan(constant(inline(7, put(7, b"\1" * 5))))


def test_an_attribute_stands_once() -> None:
    def two(first: str, second: str) -> bytes:
        attributes = [put(5, put(1, name) + num(3, 1) + num(20, 2)) for name in (first, second)]
        return model(graph(nodes=node(extra=b"".join(attributes))))

    onnx.scan(two("axis", "keepdims"))
    with pytest.raises(FormatError, match="a node of operator 'MatMul' has an attribute twice"):
        onnx.scan(two("axis", "axis"))


@pytest.mark.parametrize("count", [1, 65_535, 65_536, 200_000])
def test_numbers_are_counted_across_portions(count: int) -> None:
    assert count_varints(memoryview(b"\x80\x01" * count), "x") == count
    assert count_varints(memoryview(b"\x05" * count + b"\xff" * 9 + b"\x01"), "x") == count + 1
    with pytest.raises(FormatError, match="ends within a number"):
        count_varints(memoryview(b"\x05" * count + b"\xff" * 9), "x")
    with pytest.raises(FormatError, match="shortest form"):
        count_varints(memoryview(b"\x05" * count + b"\x81\x00"), "x")
