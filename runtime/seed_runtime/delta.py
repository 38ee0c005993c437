"""Writes a seed that holds what differs from a base: what a device has learned, as kilobytes.

Memory: what `codecs.encode.symbols` takes for STREAM_SYMBOLS elements or for the largest tensor that changed, a few
arrays of that tensor's size, and the coded chunks of the whole seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_runtime.assembly.assemble import decode_streams, working_bytes
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.codecs import BY_NAME, BaseWeights
from seed_runtime.codecs.arrays import F32, WINDOW, Values
from seed_runtime.codecs.delta import BITS_MAX, difference_of_bits
from seed_runtime.codecs.encode import delta as encoder
from seed_runtime.codecs.encode import raw
from seed_runtime.codecs.encode.delta import NO_CHANGE, Change
from seed_runtime.codecs.encode.grid import round_in_place
from seed_runtime.codecs.floats import STORED_AS, from_storage, to_storage
from seed_runtime.errors import InputError, UnsupportedError
from seed_runtime.format.header import BaseInfo, Header, Hole, Stream, Tuned, WeightsInfo, build_on
from seed_runtime.format.writer import front, stream_of, write_seed
from seed_runtime.limits import CHAIN_MAX, SIDE_MAX
from seed_runtime.seed import Seed

STREAM_SYMBOLS: Final = 1 << 20
"""Elements after which a stream ends, which bounds the memory of coding it."""
RMS_SHARE: Final = 0.25
"""Step of a tensor's differences, as a share of their root mean square: some 4 bits each, and .5 % of their square is
lost."""

StepRule = Callable[[int, F32], float]
"""Gives the quantization step for the differences of one tensor, from its hole's number and the differences, flat."""


def step_by_rms(hole: int, difference: F32) -> float:
    """Return RMS_SHARE of the differences' root mean square; for the arguments see `StepRule`."""
    return RMS_SHARE * float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def write_delta(
    base: Seed,
    values: Mapping[int, npt.NDArray[Any]],
    path: str | os.PathLike[str],
    *,
    mode: str = "",
    scores: tuple[str, float, float] | None = None,
    step: StepRule | None = step_by_rms,
    golden: bytes | None = None,
    cache: ModelCache | None = None,
    before_publishing: Callable[[bytes], None] = lambda digest: None,
) -> int:
    """Write a seed with the base's graph and other weights, replacing an older file in one step.

    Args:
        base: a seed in a file, or one on top of others.
        values: new values by the number of the base's hole, `base.header.holes`, in its shape. Floats of any width for
            weights of floats; for other types the type itself, 4-bit ones as the bytes that hold them, flat. All other
            weights stay as they are.
        path: of the new seed.
        mode: what was trained, such as "small".
        scores: name of a score, and its values with the base and with the new weights, on data that was held out.
        step: gives the step of each tensor's differences; None to keep all bits.
        golden: section GOLDEN of the new weights (`golden.with_outputs`); None for none.
        cache: where the base is assembled, if it isn't there; None for the user's.
        before_publishing: see `write_seed`.

    Returns:
        Size of the seed [B].

    Raises:
        InputError: a value has another shape or type than its tensor, or isn't finite.
        UnsupportedError: the base stands on too many others.
    """
    depth = base.header.depth_above
    if depth > CHAIN_MAX:
        raise UnsupportedError(
            f"{base.name} stands on {depth - 1} seeds already, and a chain has at most {CHAIN_MAX}; "
            f"write the difference to one that comes before it"
        )
    _check(base.header.holes, values)
    # What is read of a base that is a delta itself is its assembled weights.
    with base.assembled_weights(cache) as weights:
        header, streams = _coded(base, weights, values, mode, scores, step, golden)
        # What a device will decode, by the decoder itself.
        digest = decode_streams(
            build_on(header, base.header, base.digest, ("delta", base.name)),
            lambda index, _: iter([memoryview(chunk) for chunk in streams.chunks[index]]),
            lambda data: None,
            base=weights,
        )
    known = replace(header.weights, digest=digest)
    chunks = (chunk for coded in streams.chunks for chunk in coded)
    return write_seed(Path(path), replace(header, weights=known), [], chunks, before_publishing)


def measure_delta(
    base: Seed,
    weights: BaseWeights,
    values: Mapping[int, npt.NDArray[Any]],
    step: StepRule,
    *,
    mode: str = "",
    scores: tuple[str, float, float] | None = None,
    golden: bytes | None = None,
) -> int:
    """Return the size that `write_delta` would give [B]; nothing is written or decoded.

    Args:
        base: see `write_delta`.
        weights: of the base.
        values: see `write_delta`.
        step: see `write_delta`.
        mode: see `write_delta`.
        scores: see `write_delta`.
        golden: see `write_delta`.
    """
    header, _ = _coded(base, weights, values, mode, scores, step, golden)
    return len(front(header)) + header.body_size


def _coded(
    base: Seed,
    weights: BaseWeights,
    values: Mapping[int, npt.NDArray[Any]],
    mode: str,
    scores: tuple[str, float, float] | None,
    step: StepRule | None,
    golden: bytes | None,
) -> tuple[Header, _Streams]:
    """Code all changes; the header's digest of the weights is still missing."""
    streams = _Streams()
    for number, hole in enumerate(base.header.holes):
        if number not in values:
            streams.add(NO_CHANGE, hole)
        elif _is_raw(hole, step):
            streams.add_raw(np.ascontiguousarray(_stored(values[number], hole)))
        else:
            streams.add(_change(weights, number, hole, values[number], step), hole)
    streams.end()
    header = Header(
        model=base.header.model,
        weights=WeightsInfo(base.header.weights.size, bytes(32)),
        parts=(),
        holes=(),
        streams=tuple(streams.records),
        base=BaseInfo(base.digest, base.header.depth_above),
        golden=golden,
        tuned=Tuned(mode, *(scores or ())) if mode or scores else None,
    )
    whole = build_on(header, base.header, base.digest, ("delta", base.name))
    weights_info = replace(header.weights, working_bytes=working_bytes(whole))
    return replace(header, weights=weights_info), streams


@dataclass
class _Streams:
    """Streams of consecutive holes: those that are coded as changes together, the others one by one."""

    records: list[Stream] = field(default_factory=list)
    chunks: list[list[bytes]] = field(default_factory=list)
    _pending: list[Change] = field(default_factory=list)
    _symbols: int = 0
    _sides: int = 0
    _first: int = 0

    def add(self, change: Change, hole: Hole) -> None:
        """Take the next hole's change."""
        if change.matrix is not None:
            symbols, sides = (
                change.matrix.symbols.size,
                change.matrix.classes.rows.size + change.matrix.classes.cols.size,
            )
            if self._symbols and (self._symbols + symbols > STREAM_SYMBOLS or self._sides + sides > SIDE_MAX):
                self.end()
            self._symbols, self._sides = self._symbols + symbols, self._sides + sides
        self._pending.append(change)

    def add_raw(self, values: Values) -> None:
        """Take the next hole's elements, as they are."""
        self.end()
        self._append("raw", 1, raw.encode(values.tobytes(), values.dtype.itemsize))

    def end(self) -> None:
        """Code what was added since the last stream."""
        if self._pending:
            self._append("delta", len(self._pending), encoder.encode(self._pending).chunks)
        self._pending, self._symbols, self._sides = [], 0, 0

    def _append(self, codec: str, holes: int, chunks: list[bytes]) -> None:
        self.records.append(stream_of(BY_NAME[codec].number, self._first, holes, chunks))
        self.chunks.append(chunks)
        self._first += holes


def _check(holes: tuple[Hole, ...], values: Mapping[int, npt.NDArray[Any]]) -> None:
    """Raise InputError for values that don't fit their tensors, before anything is coded."""
    for number, given in values.items():
        if not 0 <= number < len(holes):
            raise InputError(f"there is no hole {number}, the base has {len(holes)}; give numbers of its own")
        hole = holes[number]
        shape = hole.dims if hole.dtype.bits >= 8 else (hole.size,)
        is_float = hole.dtype.name in STORED_AS
        if given.shape != shape or not (given.dtype == hole.dtype.storage or (is_float and given.dtype.kind == "f")):
            raise InputError(
                f"hole {number} is {hole.dtype.name}{list(shape)}, and its new value {given.dtype}{list(given.shape)}; "
                f"give the tensor's own type and shape"
            )
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise InputError(f"the new value of hole {number} holds infinities or NaN; train it again with less")


def _is_raw(hole: Hole, step: StepRule | None) -> bool:
    """Return whether a tensor can't be coded as a difference: its elements are too wide, or a side is too long."""
    is_exact = step is None or hole.dtype.name not in STORED_AS
    return (is_exact and hole.dtype.bits > BITS_MAX) or sum(_view(hole)) > SIDE_MAX


def _view(hole: Hole) -> tuple[int, int]:
    return encoder.view_of(hole.dims, hole.size if hole.dtype.bits < 8 else hole.count)


def _change(base: BaseWeights, number: int, hole: Hole, given: npt.NDArray[Any], step: StepRule | None) -> Change:
    """Return what a tensor differs by; bit for bit without a step, and where differences can't be quantized."""
    view = _view(hole)
    count = view[0] * view[1]
    if step is not None and hole.dtype.name in STORED_AS:
        difference = _difference(base, number, hole, given.reshape(-1))
        if difference is not None:
            if not difference.any():
                return NO_CHANGE
            wanted = encoder.rounded_step(step(number, difference))
            return encoder.of_rounded(round_in_place(difference.reshape(view), wanted))
    values, integers = _stored(given, hole).reshape(-1), np.empty(count, np.int32)
    bits = values.view(np.dtype(f"u{values.dtype.itemsize}"))
    old = np.empty_like(bits)
    for start in range(0, count, WINDOW):
        stop = min(start + WINDOW, count)
        ends = (2 * start, min(2 * stop, hole.count)) if hole.dtype.bits < 8 else (start, stop)
        found = base.read(number, *ends).view(bits.dtype)
        integers[start:stop] = difference_of_bits(bits[start:stop], found, hole.dtype)
        old[start:stop] = found
    return encoder.exact(integers.reshape(view), old.reshape(view), hole.dtype)


def _difference(base: BaseWeights, number: int, hole: Hole, given: Values) -> F32 | None:
    """Return the differences to the base's tensor; None where one of them isn't finite."""
    difference = np.empty(hole.count, np.float32)
    for start in range(0, hole.count, WINDOW):
        stop = min(start + WINDOW, hole.count)
        new = given[start:stop]
        if new.dtype.kind != "f":
            new = from_storage(new, hole.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(
                new,
                from_storage(base.read(number, start, stop), hole.dtype),
                difference[start:stop],
                casting="same_kind",
            )
    return difference if np.isfinite(difference).all() else None


def _stored(given: npt.NDArray[Any], hole: Hole) -> Values:
    """Return values in the type in which the tensor is stored."""
    if given.dtype == hole.dtype.storage:
        return given
    wide = np.float64 if hole.dtype.name == "float64" else np.float32
    return to_storage(given.astype(wide), hole.dtype)
