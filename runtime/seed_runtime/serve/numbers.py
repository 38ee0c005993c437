"""Tensors in JSON: the numbers of "data" as arrays, a portion at a time, and arrays as JSON.

A list of Python's numbers takes 32 bytes for each of them, and a hostile text such as `[[],[],...` twenty times its own
size. So no JSON parser ever gets a whole request: `extract_arrays` first takes the arrays called "data" out of it, and
what remains is small and bounded. The arrays are read in portions by Python's own parser, so that exactly JSON's
grammar of numbers is accepted, and written straight to memory of the model's type.
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

# Matches one string after the other, so that nothing inside a string is taken for a key. After the key "data" an array
# of numbers goes up to the last bracket before the next string or brace, which is what JSON has next.
# A string that doesn't end, or not within the limit, is matched as far as the limit. Otherwise the search would go on
# from the next quote inside it, and its time would grow with the square of the string's length.
_STRING: Final = re.compile(
    rb'"((?:[^"\\]|\\.){0,%d}+)(?:"(?:[ \t\r\n]*:[ \t\r\n]*(\[[^"{}]*\]))?)?' % ENVELOPE_MAX, re.DOTALL
)
_MARK: Final = secrets.token_hex(8)
"""Beginning of the string that replaces an array which was taken out: random, so that no client can send it."""
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b"[],"))
_SPACE: Final = rb"[ \t\r\n]*"
_TOKEN: Final = rb"[0-9A-Za-z.+-]"
# Neighbours that are never in JSON. The commas before and after a portion are put back before the search.
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


def extract_arrays(text: Text) -> tuple[dict[str, Any], list[memoryview]]:
    """Parse a request without the arrays of numbers in it.

    Returns:
        The request as an object, and the arrays that were taken out of it, see `find_array`.

    Raises:
        InputError: it isn't a JSON object, or larger than the limits.
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
        found = json.loads(b"".join(kept).decode(), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not JSON: {_describe(error)}") from None
    if not isinstance(found, dict):
        raise InputError("the request is not a JSON object; send one with inputs")
    return found, arrays


def find_array(value: Any, arrays: Sequence[memoryview]) -> memoryview | None:
    """Return the text of the array that `value` replaces; None if it replaces none."""
    if isinstance(value, str) and value.startswith(_MARK):
        return arrays[int(value.removeprefix(_MARK))]
    return None


def read_array(where: str, text: memoryview, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Read numbers in row-major order, flat or nested as `shape` says.

    Beside the array this needs the memory of a portion; before that, twice the size of all brackets and commas.

    Args:
        where: how messages name the tensor.
        text: a JSON array.
        shape: the shape of the tensor.
        dtype: its type.

    Raises:
        InputError: there are more or fewer numbers, they are nested otherwise, or the type can't hold one. NaN and
            infinities aren't JSON.
    """
    count = math.prod(shape)
    structure = bytearray()
    for start in range(0, len(text), PORTION):
        structure += bytes(text[start : start + PORTION]).translate(None, _NOT_STRUCTURE)
    brackets = len(structure) - structure.count(b",")
    flat = brackets == 2 and len(structure) == max(1, count) + 1
    if not flat and structure != _structure(_outer(shape), len(structure)):
        raise InputError(
            f"{where}: data is neither a flat list of {count:,} numbers nor nested as the shape {list(shape)} says"
        )
    del structure
    if not count:
        _check_no_numbers(where, text)
        return np.empty(shape, dtype)
    out = np.empty(count, dtype)
    done = 0
    for portion in _portions(text[1:-1]):
        if not flat:
            if _TORN.search(b"," + portion + b","):
                raise InputError(f"{where}: data is not JSON: brackets and commas don't match")
            portion = portion.translate(None, b"[]")
        try:
            values = json.loads(b"[" + portion + b"]", parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: data is not JSON: {_describe(error)}") from None
        out[done : done + len(values)] = _convert(where, values, dtype)
        done += len(values)
    if done != count:
        raise InputError(f"{where}: data has {done:,} numbers, the shape {list(shape)} asks for {count:,}")
    return out.reshape(shape)


def write_array(array: Array) -> Iterator[bytes]:
    """Yield an array as a flat JSON list, in portions. NaN and infinities, which JSON doesn't have, become null."""
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


def _check_no_numbers(where: str, text: memoryview) -> None:
    for start in range(0, len(text), PORTION):
        if bytes(text[start : start + PORTION]).translate(None, b"[], \t\r\n"):
            raise InputError(f"{where}: data has numbers, a size of 0 in the shape asks for none")


def _outer(shape: Sequence[int]) -> Sequence[int]:
    """Return the axes that nested lists show: none within an axis of length 0."""
    return shape[: list(shape).index(0) + 1] if 0 in shape else shape


def _structure(shape: Sequence[int], size: int) -> bytes:
    """Return the brackets and commas of nested lists of this shape; nothing unless they have `size` bytes."""
    length, lists = 0, 1
    for dim in shape:
        length += lists * (2 + max(0, dim - 1))  # two brackets and dim - 1 commas
        lists *= dim
    if not shape or length != size:
        return b""
    text = b""
    for dim in reversed(shape):
        text = b"[" + b",".join([text] * dim) + b"]"
    return text


def _portions(text: memoryview) -> Iterator[bytes]:
    """Yield pieces of about `PORTION` bytes, without the commas between them."""
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


def _convert(where: str, values: list[Any], dtype: np.dtype[Any]) -> Array:
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
    raise ValueError(f"{name} is not a number in JSON; send such values as binary data")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Readers of JSON disagree on which of them counts.
        raise ValueError("a key is given twice in one object")
    return found


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).replace(_MARK, "...")
    # Python goes on with advice for programmers.
    return "an integer has thousands of digits" if text.startswith("Exceeds the limit") else text
