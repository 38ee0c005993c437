"""Tensors in JSON: the numbers of "data" as arrays, a portion at a time, and arrays as JSON.

A list of Python's numbers takes 32 bytes for each, and a hostile text such as `[[],[],...` twenty times its own
size, so that no JSON parser ever sees a whole request: `split` takes the arrays called "data" out of the text first.
What remains is small and bounded. The arrays are read in portions by Python's own parser, so exactly JSON's grammar
of numbers is taken, straight into memory of the model's type.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import InputError
from seed_runtime.serve.limits import ENVELOPE_MAX, PORTION, STRINGS_MAX

Text = bytes | bytearray | memoryview

# Strings are stepped over one by one, so that nothing inside of one is taken for a key. After the key "data" an
# array of numbers goes up to the last bracket before the next string or brace: JSON has one of those next.
# A string that doesn't end, or not within the limit, is matched as far as that. If it weren't, the search would go on
# from the next quote inside of it, and take time with the square of its length.
_STRING: Final = re.compile(
    rb'"((?:[^"\\]|\\.){0,%d}+)(?:"(?:[ \t\r\n]*:[ \t\r\n]*(\[[^"{}]*\]))?)?' % ENVELOPE_MAX, re.DOTALL
)
_MARK: Final = secrets.token_hex(8)
"""What stands for an array that was taken out: nobody else knows it."""
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b"[],"))
_SPACE: Final = rb"[ \t\r\n]*"
_TOKEN: Final = rb"[0-9A-Za-z.+-]"
# Neighbours that no JSON has; the commas before and after a portion are put back first.
_TORN: Final = re.compile(
    b"|".join(
        [
            _TOKEN + rb"(?:[ \t\r\n]+" + _TOKEN + b"|" + _SPACE + rb"\[)",
            rb"\]" + _SPACE + rb"(?:\[|" + _TOKEN + b")",
            rb"\[" + _SPACE + b",",
            b"," + _SPACE + rb"\]",
        ]
    )
)
_KINDS: Final[dict[str, tuple[frozenset[type], str]]] = {
    "b": (frozenset({bool}), "true and false"),
    "f": (frozenset({int, float}), "numbers"),
    "i": (frozenset({int}), "integers"),
    "u": (frozenset({int}), "integers"),
}


def split(text: Text) -> tuple[dict[str, Any], list[memoryview]]:
    """The request as an object, and the arrays that were taken out of it, see `taken`.

    InputError for what is no JSON, no object, or larger than the limits.
    """
    view, end, size = memoryview(text), 0, 0
    kept: list[bytes] = []
    arrays: list[memoryview] = []
    for count, match in enumerate(_STRING.finditer(text), start=1):
        if count > STRINGS_MAX or size + match.end(1) - end > ENVELOPE_MAX:
            raise InputError('the request is too long beside the numbers in "data"; send only what the protocol has')
        if match[1] == b"data" and match[2] is not None:
            kept.append(bytes(view[end : match.start(2)]))
            kept.append(f'"{_MARK}{len(arrays)}"'.encode())
            arrays.append(view[match.start(2) : match.end(2)])
            size += match.start(2) - end
            end = match.end(2)
    if size + len(view) - end > ENVELOPE_MAX:
        raise InputError('the request is too long beside the numbers in "data"; send only what the protocol has')
    kept.append(bytes(view[end:]))
    try:
        found = json.loads(b"".join(kept).decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is no JSON: {_plain(error)}") from None
    if not isinstance(found, dict):
        raise InputError("the request is no JSON object; send one with inputs")
    return found, arrays


def taken(value: Any, arrays: Sequence[memoryview]) -> memoryview | None:
    """The text of the array that `value` stands for, None if it stands for none."""
    if isinstance(value, str) and value.startswith(_MARK):
        return arrays[int(value.removeprefix(_MARK))]
    return None


def read_array(where: str, text: memoryview, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """The numbers of `text`, flat or nested as `shape` says, row-major.

    Beside the array it takes a portion; before that, twice the brackets and commas. InputError, which begins with
    `where`, for anything else: another count, a value that the type can't hold, NaN and infinities, of which JSON
    knows none.
    """
    count = math.prod(shape)
    structure = bytearray()
    for start in range(0, len(text), PORTION):
        structure += bytes(text[start : start + PORTION]).translate(None, _NOT_STRUCTURE)
    brackets = len(structure) - structure.count(b",")
    flat = brackets == 2 and len(structure) == count + 1
    if not flat and structure != _structure(shape, len(structure)):
        raise InputError(
            f"{where}: data is neither a flat list of {count:,} numbers nor nested as the shape {list(shape)} says"
        )
    del structure
    out = np.empty(count, dtype)
    done = 0
    for portion in _portions(text[1:-1]):
        if not flat:
            if _TORN.search(b"," + portion + b","):
                raise InputError(f"{where}: data is no JSON: brackets and commas don't match")
            portion = portion.translate(None, b"[]")
        try:
            values = json.loads(b"[" + portion + b"]", parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: data is no JSON: {_plain(error)}") from None
        out[done : done + len(values)] = _converted(where, values, dtype)
        done += len(values)
    if done != count:
        raise InputError(f"{where}: data has {done:,} numbers, the shape {list(shape)} asks for {count:,}")
    return out.reshape(shape)


def write_array(array: Array) -> Iterator[bytes]:
    """The array as a flat JSON list, in portions. What JSON has no number for, NaN and infinities, is null."""
    flat = array.reshape(-1)
    step = PORTION // 16
    yield b"["
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        values: list[Any] = part.tolist()
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            values = [value if math.isfinite(value) else None for value in values]
        text = json.dumps(values, separators=(",", ":"), allow_nan=False)[1:-1].encode()
        yield b"," + text if start else text
    yield b"]"


def _structure(shape: Sequence[int], size: int) -> bytes:
    """Brackets and commas of nested lists of this shape; empty unless they have `size` bytes."""
    length, lists = 0, 1
    for dim in shape:
        length += lists * (dim + 1)  # two brackets and dim - 1 commas
        lists *= dim
    if not shape or length != size:
        return b""
    text = b""
    for dim in reversed(shape):
        text = b"[" + b",".join([text] * dim) + b"]"
    return text


def _portions(text: memoryview) -> Iterator[bytes]:
    """Pieces of about `PORTION` bytes without the commas between them."""
    start = 0
    while start < len(text):
        piece = bytes(text[start : start + PORTION])
        end = len(piece)
        if start + end < len(text):
            end = piece.rfind(b",")
            if end < 0:
                raise InputError(f"a number in data has more than {PORTION:,} characters")
        yield piece[:end]
        start += end + 1


def _converted(where: str, values: list[Any], dtype: np.dtype[Any]) -> Array:
    allowed, name = _KINDS[dtype.kind]
    if not allowed.issuperset(map(type, values)):
        raise InputError(f"{where}: data must hold {name}, as the datatype says")
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if values and not (info.min <= min(values) and max(values) <= info.max):
            raise InputError(f"{where}: data has values outside of {info.min} to {info.max}")
    if dtype.kind != "f":
        return np.array(values, dtype)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, np.float64).astype(dtype)
        finite = bool(np.isfinite(array).all())
    except OverflowError:  # an integer of hundreds of digits
        finite = False
    if not finite:
        raise InputError(f"{where}: data has numbers that are too large for {dtype}")
    return array


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON; send such values as binary data")


def _plain(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).replace(_MARK, "...")
