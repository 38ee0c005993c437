"""Tensors of text, the protocol's datatype BYTES: as JSON strings, or as binary data, each behind its length.

Source: github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import InputError
from seed_runtime.serve.limits import TEXTS_MAX

_LENGTH: Final = 4
"""Size of the length before each text, little-endian [B]."""
_TEXTS: Final = 1024
"""Texts that are written at once."""


def read_texts(where: str, data: Any, shape: Sequence[int]) -> Array:
    """Read texts from JSON, flat or nested as `shape` says.

    Raises:
        InputError: there are more or fewer, or something else than strings.
    """
    count = _count(where, shape)
    flat: list[Any] = data if isinstance(data, list) and len(data) == count else []
    if not all(isinstance(item, str) for item in flat) or not (flat or not count):
        flat = list(_flattened(where, data, shape))
    return _array(where, flat, shape)


def read_text_bytes(where: str, data: memoryview, shape: Sequence[int]) -> Array:
    """Read texts from binary data.

    Raises:
        InputError: there are more or fewer, one ends past the end, or one is no UTF-8.
    """
    texts, place = [], 0
    for _ in range(_count(where, shape)):
        end = place + _LENGTH
        end += int.from_bytes(data[place:end], "little")
        if place + _LENGTH > len(data) or end > len(data):
            raise InputError(f"{where}: its {len(data):,} bytes end within a text; send each behind its length")
        try:
            texts.append(str(data[place + _LENGTH : end], "utf-8"))
        except UnicodeDecodeError:
            raise InputError(f"{where}: a text is not UTF-8; encode it before it is sent") from None
        place = end
    if place != len(data):
        raise InputError(f"{where}: {len(data) - place:,} bytes are left behind the texts that its shape asks for")
    return _array(where, texts, shape)


def write_texts(array: Array) -> Iterator[bytes]:
    """Yield an array of texts as a flat JSON list, in portions."""
    flat = array.reshape(-1)
    yield b"["
    for start in range(0, flat.size, _TEXTS):
        text = json.dumps(flat[start : start + _TEXTS].tolist())[1:-1].encode()
        yield b", " + text if start else text
    yield b"]"


def write_text_bytes(array: Array) -> memoryview:
    """Return an array of texts as binary data."""
    out = bytearray()
    for text in array.reshape(-1):
        raw = str(text).encode()
        out += len(raw).to_bytes(_LENGTH, "little") + raw
    return memoryview(out)


def _count(where: str, shape: Sequence[int]) -> int:
    count = math.prod(shape)
    if count > TEXTS_MAX:
        raise InputError(f"{where}: {count:,} texts are sent, at most {TEXTS_MAX:,} are taken at once; send fewer")
    return count


def _flattened(where: str, data: Any, shape: Sequence[int]) -> Iterator[str]:
    if not shape and isinstance(data, str):
        yield data
    elif shape and isinstance(data, list) and len(data) == shape[0]:
        for item in data:
            yield from _flattened(where, item, shape[1:])
    else:
        raise InputError(f"{where}: data is neither a flat list of texts nor nested as its shape says")


def _array(where: str, texts: Sequence[str], shape: Sequence[int]) -> Array:
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: a text holds half a surrogate pair, which is no Unicode") from None
    out: Array = np.empty(len(texts), object)
    out[:] = texts
    return out.reshape(shape)
