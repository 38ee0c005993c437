"""Bind stored arrays to the inputs of a model: which array goes to which input, and how many calls they make."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array, Feeds, TensorSpec, expectation
from seed_runtime.data.stored import ArrayReader, StoredArray
from seed_runtime.errors import InputError

LABELS: Final = "labels"
"""The name of an array that any data file may hold beside the inputs."""
_TEXT_COPIES: Final = 3
"""Copies of texts that are held beside a call's own."""
UNNAMED: Final = (None, "arr_0")
"""Names of a single array that was saved without one."""


@dataclass(frozen=True)
class _Bound:
    """An array and the input that it goes to."""

    spec: TensorSpec
    array: StoredArray
    calls: int | None
    """Length of the first axis, which counts calls; None if every call gets the whole array."""
    wanted: np.dtype[Any]
    """The input's type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one call's input."""
        return self.array.shape if self.calls is None else self.array.shape[1:]

    @property
    def is_converted(self) -> bool:
        """True if the array has another type than the input."""
        return self.array.dtype != self.wanted

    @property
    def extra_bytes(self) -> int:
        """Memory that is held beside the input itself, in bytes."""
        if self.spec.dtype == "string":
            # Footprints are measured with short texts, and a library holds copies of its own.
            return (_TEXT_COPIES + self.array.is_fortran) * self.array.nbytes
        if self.array.is_fortran:
            return self.array.nbytes + prod(self.shape) * self.array.dtype.itemsize
        return prod(self.shape) * self.array.dtype.itemsize if self.is_converted else 0


class Calls:
    """The calls that a data file makes of a model. Iterating yields their feeds, one call at a time.

    The arrays of a call are overwritten by the next one, as only one call's are held.
    """

    def __init__(self, bound: Sequence[_Bound]) -> None:
        """Make the calls of these arrays, which agree on their number."""
        self._bound = bound
        counts = {item.calls for item in bound if item.calls is not None}
        self.is_counted = bool(counts)
        """True if outputs get a first axis that counts calls."""
        self._count = counts.pop() if counts else 1
        self.extra_bytes = sum(item.extra_bytes for item in bound)
        """Memory that is held beside one call's feeds, in bytes."""

    def __len__(self) -> int:
        """Return the number of calls."""
        return self._count

    def shapes(self) -> Feeds:
        """Return stand-ins for the feeds, to plan with: right in shape and dtype, and without memory."""
        return {item.spec.name: np.broadcast_to(np.empty((), item.wanted), item.shape) for item in self._bound}

    def conversions(self) -> list[str]:
        """Return a line for each input that isn't given in the model's dtype."""
        return [
            f"input {item.spec.name!r} is given as {item.array.dtype} and converted to {item.spec.dtype}"
            for item in self._bound
            if item.array.dtype.newbyteorder("=") != item.wanted
        ]

    def __iter__(self) -> Iterator[Feeds]:
        """Yield the feeds of one call after the other."""
        with contextlib.ExitStack() as stack:
            readers = {item.spec.name: stack.enter_context(_reader(item)) for item in self._bound}
            feeds = {item.spec.name: readers[item.spec.name]() for item in self._bound if item.calls is None}
            for _ in range(self._count):
                for item in self._bound:
                    if item.calls is not None:
                        feeds[item.spec.name] = readers[item.spec.name]()
                yield feeds


def bind(arrays: Sequence[StoredArray], specs: Sequence[TensorSpec], optional: Sequence[TensorSpec] = ()) -> Calls:
    """Find the array of each input.

    Args:
        arrays: what the data file holds.
        specs: the model's inputs.
        optional: inputs that have a default, so that there need be no array of them.

    Raises:
        InputError: they don't fit; the text says what is expected.
    """
    expected = expectation(specs, optional)
    if len(arrays) == 1 == len(specs) and arrays[0].name in UNNAMED:
        named = {specs[0].name: arrays[0]}
    else:
        named = {str(array.name): array for array in arrays if array.name is not None}
        if len(named) < len(arrays):
            raise InputError(f"an .npy file holds one array, the model expects {expected}; give an .npz file")
    known = {spec.name for spec in (*specs, *optional)}
    for name in named:
        if name not in known and name != LABELS:
            raise InputError(f"the model has no input {name!r}; it expects {expected}")
    for spec in specs:
        if spec.name not in named:
            raise InputError(f"input {spec.name!r} is missing; the model expects {expected}")
    given = [*specs, *(spec for spec in optional if spec.name in named)]
    bound = [_bind_one(spec, named[spec.name]) for spec in given]
    counts = {item.spec.name: item.calls for item in bound if item.calls is not None}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{count} in {name!r}" for name, count in counts.items())
        raise InputError(f"the inputs count different numbers of calls along their first axis: {text}")
    if 0 in counts.values():
        raise InputError("the first axis counts calls and has length 0; give at least one")
    return Calls(bound)


def _bind_one(spec: TensorSpec, array: StoredArray) -> _Bound:
    # Of an input that takes any number of axes, no axis can be told to count calls.
    wanted_shape = array.shape if spec.shape is None else spec.shape
    extra = len(array.shape) - len(wanted_shape)
    shape = array.shape[extra:] if extra in (0, 1) else ()
    fixed = zip(wanted_shape, shape, strict=False)
    if extra not in (0, 1) or any(isinstance(want, int) and size != want for want, size in fixed):
        raise InputError(f"input {spec.name!r}: {spec} is expected, or one axis more to count calls; {array} was given")
    if spec.dtype == "string":
        if array.dtype.kind not in "US":
            raise InputError(
                f"input {spec.name!r}: {spec} is expected, {array} was given; give text: numpy.array([...], str)"
            )
        return _Bound(spec, array, array.shape[0] if extra else None, array.dtype)
    try:
        wanted = np.dtype(spec.dtype)
    except TypeError:
        raise InputError(f"input {spec.name!r}: {spec} is expected, which no .npz file can hold") from None
    if not _keeps_values(array.dtype, wanted):
        raise InputError(
            f"input {spec.name!r}: {spec} is expected, {array} was given; convert it with .astype('{wanted}')"
        )
    return _Bound(spec, array, array.shape[0] if extra else None, wanted)


def _keeps_values(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Return whether arrays of type `given` may be converted to `wanted`.

    Integers may change their width, which is checked value by value: Python's integers are saved as int64, and many
    models take int32. Floats may only get wider. Integers are never converted to floats: pixels of 0 to 255 as floats
    are seldom what a model was trained on.
    """
    if given.kind in "iu":
        return wanted.kind in "iu"
    return given.kind == wanted.kind and np.can_cast(given, wanted, "safe")


@contextlib.contextmanager
def _reader(item: _Bound) -> Iterator[Callable[[], Array]]:
    """Give a function that reads the feeds of one call after the other, always into the same memory."""
    source = ArrayReader(item.array)
    try:
        read = _read_fortran(item, source) if item.array.is_fortran else _read_rows(item, source)
        if item.spec.dtype == "string":
            yield lambda: _checked_text(item, read())
            return
        if not item.is_converted:
            yield read
            return
        out = np.empty(item.shape, item.wanted)

        def read_converted() -> Array:
            values = read()
            _check_range(item, values)
            np.copyto(out, values, casting="unsafe")
            return out

        yield read_converted
    finally:
        source.close()


def _read_rows(item: _Bound, source: ArrayReader) -> Callable[[], Array]:
    buffer = np.empty(item.shape, item.array.dtype)

    def read() -> Array:
        source.read_into(buffer)
        return buffer

    return read


def _read_fortran(item: _Bound, source: ArrayReader) -> Callable[[], Array]:
    # The elements of a call are scattered over the file, so all of it is read at once.
    whole = np.empty(item.array.shape[::-1], item.array.dtype)
    source.read_into(whole)
    calls = iter(whole.T if item.calls is not None else [whole.T])
    return lambda: np.ascontiguousarray(next(calls)).reshape(item.shape)


def _checked_text(item: _Bound, values: Array) -> Array:
    """Return texts as NumPy's `str_`; bytes are taken for UTF-8."""
    if item.array.dtype.kind == "S":
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"input {item.spec.name!r}: {item.array.where} holds bytes that are no UTF-8 ({error.reason}); "
                f"decode them with numpy.char.decode(array, encoding)"
            ) from None
    codes = values.reshape(-1).view(np.dtype("u4").newbyteorder(values.dtype.byteorder))
    if codes.max(initial=0) > 0x10FFFF or bool(((codes >= 0xD800) & (codes < 0xE000)).any()):
        raise InputError(f"input {item.spec.name!r}: {item.array.where} holds text that is no Unicode; write it again")
    return values


def _check_range(item: _Bound, values: Array) -> None:
    if item.wanted.kind not in "iu" or not values.size:
        return
    info = np.iinfo(item.wanted)
    least, most = int(values.min()), int(values.max())
    if least < info.min or most > info.max:
        raise InputError(
            f"input {item.spec.name!r}: {item.spec} is expected, {item.array} was given with values from "
            f"{least} to {most}, which {item.spec.dtype} can't hold"
        )
