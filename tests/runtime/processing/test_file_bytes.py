"""Both ends of any file as numbers: order, filling, white space, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

import seed_runtime
from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.processing import FILE, Item, prepare
from tests.support.described_models import described, typed_input

FIELDS: dict[str, Any] = {"first": 3, "last": 2, "block": 6, "pad": 256}


def row_of(item: Item, size: int = 5, code: int = TensorProto.INT32, **fields: Any) -> list[float]:
    """Return the input `x` of a file."""
    step = {"kind": "bytes", "fills": {"bytes": "x"}, **FIELDS, **fields}
    seed = seed_runtime.open(io.BytesIO(described(typed_input(["n", size], code), {"inputs": [step]})))
    processing = seed.processing()
    assert processing is not None
    (feeds,) = prepare(processing, (item,)).calls()
    assert feeds["x"].shape == (1, size)
    return list(feeds["x"][0])


def of(data: bytes, **fields: Any) -> list[float]:
    return row_of(Item(FILE, "it", data=data), **fields)


def test_the_beginning_stands_first_and_the_end_last() -> None:
    assert of(bytes(range(10))) == [0, 1, 2, 8, 9]


def test_a_short_file_is_filled_up_behind_its_beginning_and_before_its_end() -> None:
    assert of(b"\x07") == [7, 256, 256, 256, 7]
    assert of(b"") == [256] * 5


def test_white_space_is_left_out_as_far_as_blocks_reach() -> None:
    assert of(b" \n abcdefgh\t ", strip=True) == [*b"abc", *b"gh"]
    assert of(b"       abc", strip=True, last=0, size=3) == [256] * 3


def test_a_file_on_the_disk_is_read_at_both_ends_only(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"abc")
        file.truncate(1 << 34)
    assert row_of(Item(FILE, str(path), path)) == [*b"abc", 0, 0]


@pytest.mark.parametrize("code", [TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT])
def test_numbers_have_the_type_of_the_input(code: int) -> None:
    assert of(b"abcde", code=code) == list(b"abcde")


def test_a_file_that_is_missing_or_a_folder_is_the_users_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            row_of(Item(FILE, str(path), path))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"size": 6}, FormatError),
        ({"block": 2}, FormatError),
        ({"first": 0, "last": 0}, FormatError),
        ({"first": 1 << 30}, LimitError),
        ({"block": 1 << 30}, LimitError),
        ({"pad": -1}, FormatError),
        ({"code": TensorProto.UINT8}, FormatError),
    ],
)
def test_what_does_not_fit_the_model_or_asks_for_too_much_is_refused(
    fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        of(b"abc", **fields)
