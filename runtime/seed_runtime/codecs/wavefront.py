"""Walks matrices of small integers by their antidiagonals, all matrices at once (SPEC.md, "Order of the elements").

What lies left of an element and above it is known when its wave comes, and none of a wave depends on another one of it:
NumPy decodes a wave at a time, some hundred elements, with the contexts that a decoder of single elements would have.

An element is first expected to have a magnitude: that of its matrix so far, times factors of its row, channel, tap and
column, each by how much more they had so far than was expected of them. All in integers; logarithms are in 256ths of an
octave, and straight lines between powers of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import compress
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import I64
from seed_runtime.codecs.mixing import Bools, Contexts, Few, Mixer
from seed_runtime.codecs.waves import Extent, Places, Waves

Cells = npt.NDArray[np.int8]

ESCAPE: Final = 15
"""Magnitude from which on an element's own magnitude stands behind the words."""
SIGN: Final = -1
"""In place of a magnitude: whether the element is negative."""

_ONE: Final = 1 << 12
"""A magnitude of 1 among expected ones."""
_SHRINK: Final = np.array([[3], [3], [20], [4]], np.int64)
"""How much a row, a channel, a tap and a column must have had to be half believed, in units of 1 + the mean."""
_MATRIX_SHRINK: Final = 10
"""Number of elements of all matrices' mean with which a matrix begins."""
_LEAST, _MOST = 1 << 10, 20 << 8
"""Bounds of the logarithm of expected magnitudes: 2**-8 to 2**8."""
_LOG_OF_ONE_IN_FLOAT: Final = 1023 << 8
_FINE, _COARSE, _NEARBY, _TAPS, _MEANS, _SIDES = 128, 32, 9, 9, 8, 22
"""Number of levels of the expected magnitude, fine and coarse; of what is nearby; of taps; of a matrix's mean; of what
is expected of a row, or of a column, alone."""
_AT: Final = tuple(np.cumsum([0, _FINE, _COARSE * _NEARBY, 7 * _TAPS * _MEANS, _SIDES * _SIDES]).tolist())
"""Where the contexts of each input begin, and the number of all."""
_STAGES: Final = 4
"""Number of magnitudes whose decisions have contexts of their own; the last ones are those of all larger ones."""
_KINDS: Final = 8
"""Number of magnitudes whose decisions have weights of their own."""
_SIGNS: Final = np.array([[18, 6, 0, 2], [6, 0, 2, 0], [0, 0, 6, 2]], np.int64)
"""What the signs left of, above, before and up from an element add to twice each of its sign's contexts."""
_SIGNS_AT: Final = np.array([[2 * 13], [2 * (27 + 4)], [2 * (36 + 4)]], np.int64)
_SIGN_CONTEXTS: Final = 27 + 9 + 9
_PRIOR: Final = 12
"""Number of decisions that a context of an expected magnitude has seen before the first one."""
_FEW: Final = 24
"""Number of decisions up to which NumPy's calls take longer than Python's loops."""


class Decide(Protocol):
    """Decides yes or no, by reading it from a stream or by knowing it."""

    def __call__(self, chances: I64, cells: I64, above: int) -> Bools:
        """Return the decisions, `(n,)`.

        Args:
            chances: probability of yes in 4,096ths.
            cells: of which elements.
            above: whether their magnitudes are above this; SIGN for whether they are negative.
        """

    def few(self, chances: Sequence[int], cells: Sequence[int], above: int) -> list[bool]:
        """Return the decisions; there are few."""


class Wavefront:
    """Decides all elements of some matrices. Memory: a byte a cell, 90 bytes a row and 16 for each column and tap."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        """Begin with nothing decided."""
        self._waves = Waves(extents)
        self.starts = self._waves.starts
        """Where the cells of each matrix begin, and end."""
        self.cells: Cells = np.zeros(self.starts[-1], np.int8)
        """Elements with the magnitudes above ESCAPE as ESCAPE, matrix after matrix, and zeros around them."""
        self.escaped: list[I64] = []
        """Cells of magnitudes from ESCAPE on, step by step."""
        self._sides = np.zeros((2, self._waves.slots), np.int64)
        """What each row, channel, tap and column had, and what was expected of it."""
        self._sums = np.zeros(len(extents), np.int64)
        self._counts = np.full(len(extents), _MATRIX_SHRINK, np.int64)
        """Of each matrix, elements so far, and those of the mean with which it begins."""
        self._total = self._count = 0
        self._contexts = [Contexts(_AT[-1]) for _ in range(_STAGES)]
        for contexts in self._contexts:
            _expect_geometric(contexts.counts)
        self._mixers = [Mixer(4) for _ in range(_KINDS)]
        self._sign_contexts, self._sign_mixer = Contexts(_SIGN_CONTEXTS), Mixer(3)

    def run(self, decide: Decide) -> None:
        """Decide all elements, in order."""
        for wave in self._waves:
            self._step(wave, decide)

    def _step(self, wave: Places, decide: Decide) -> None:
        around = self.cells.take(wave.near)
        index, parts = self._expect(wave, np.add.reduce(np.abs(around), 0, np.int8))
        magnitudes = self._decide_magnitudes(index, wave.cells, decide)
        had, expected = self._sides
        present = magnitudes.nonzero()[0]
        if present.size:
            cells, own = wave.cells.take(present), magnitudes.take(present)
            negative = self._decide_signs(around.take(present, 1), cells, decide)
            self.cells[cells] = np.where(negative, -own, own)
            own *= _ONE
            np.add.at(had, wave.slots.take(present, 1).reshape(-1), np.concatenate([own] * len(wave.slots)))
            np.add.at(self._sums, wave.matrices.take(present), own)
            self._total += int(own.sum())
        np.add.at(expected, wave.slots.reshape(-1), parts.reshape(-1))
        had[0] = expected[0] = 0
        self._counts += np.bincount(wave.matrices.astype(np.intp, copy=False), minlength=self._counts.size)
        self._count += magnitudes.size

    def _expect(self, wave: Places, nearby: Cells) -> tuple[I64, I64]:
        """Return twice the contexts of magnitudes, and what is expected without each factor.

        Args:
            wave: `n` elements.
            nearby: sum of magnitudes around each, `(n,)`.

        Returns:
            `(4, n)`, and `(4, n)` in units of 1 / _ONE.
        """
        tables = _tables()
        start = (self._total + _ONE // 2) // (self._count + 1)
        mean = self._sums + _MATRIX_SHRINK * start
        mean //= self._counts
        np.maximum(mean, 1, out=mean)
        log = _log(mean)
        mean += _ONE
        mean, log, level = np.array((mean, log, tables.means.take(log))).take(wave.matrices, 1)
        sides = self._sides.take(wave.slots, 1)
        sides += _SHRINK * mean
        had, expected = _log(sides)
        factors = np.subtract(had, expected, out=had)
        row = log + factors[0]
        column = log + factors[1]
        column += factors[3]
        logs = row + column
        logs -= log
        logs += factors[2]
        np.maximum(logs, _LEAST, out=logs)
        np.minimum(logs, _MOST - 1, out=logs)
        index = np.empty_like(factors)
        tables.fine.take(logs, out=index[0], mode="clip")
        np.add(tables.coarse.take(logs), tables.nearby_coarse.take(nearby), out=index[1])
        level += tables.taps.take(wave.taps, mode="clip")
        np.add(tables.nearby.take(nearby), level, out=index[2])
        np.add(tables.rows.take(row, mode="clip"), tables.columns.take(column, mode="clip"), out=index[3])
        return index, tables.powers.take(np.subtract(logs, factors, out=factors), mode="clip")

    def _decide_magnitudes(self, index: I64, cells: I64, decide: Decide) -> I64:
        magnitudes = np.zeros(cells.size, np.int64)
        left = np.arange(cells.size)
        for above, contexts in enumerate(self._contexts[:-1]):
            larger = _decided(self._mixers[above], contexts.opinions(index), cells, above, decide)
            contexts.count(index, larger)
            kept = larger.nonzero()[0]
            if not kept.size:
                return magnitudes
            left, cells, index = left.take(kept), cells.take(kept), index.take(kept, 1)
            magnitudes[left] = above + 1
        magnitudes[left] = self._decide_large(index, cells, decide)
        return magnitudes

    def _decide_large(self, index: I64, cells: I64, decide: Decide) -> I64:
        """Return the magnitudes of elements that have the last contexts: their opinions stay the same."""
        opinions = self._contexts[-1].opinions(index)
        above = _STAGES - 1
        magnitudes = np.full(cells.size, above, np.int64)
        left = np.arange(cells.size)
        while left.size > _FEW and above < ESCAPE:
            larger = _decided(self._mixer(above), opinions.take(left, 1), cells.take(left), above, decide)
            left = left[larger]
            above += 1
            magnitudes[left] = above
        if left.size:
            magnitudes[left] = self._decide_few(opinions.take(left, 1), cells.take(left).tolist(), above, decide)
        escaped = magnitudes == ESCAPE
        self._contexts[-1].count_several(index, 1 - escaped, magnitudes - (_STAGES - 1))
        if escaped.any():
            self.escaped.append(cells[escaped])
        return magnitudes

    def _decide_few(self, opinions: I64, cells: Sequence[int], least: int, decide: Decide) -> list[int]:
        """Return the magnitudes of a few elements, which are `least` or more."""
        own, magnitudes = _each(opinions), [ESCAPE] * len(cells)
        places: Sequence[int] = range(len(cells))
        for above in range(least, ESCAPE):
            mixer = self._mixer(above)
            chances = mixer.predict_few(own)
            larger = decide.few(chances, cells, above)
            mixer.learn_few(own, chances, larger)
            if all(larger):
                continue
            for place, yes in zip(places, larger, strict=True):
                magnitudes[place] = ESCAPE if yes else above
            if not any(larger):
                break
            own, cells = tuple(compress(own, larger)), tuple(compress(cells, larger))
            places = tuple(compress(places, larger))
        return magnitudes

    def _mixer(self, above: int) -> Mixer:
        return self._mixers[min(above, _KINDS - 1)]

    def _decide_signs(self, around: Cells, cells: I64, decide: Decide) -> Bools:
        index = _SIGNS @ np.sign(around).astype(np.int64)
        index += _SIGNS_AT
        negative = _decided(self._sign_mixer, self._sign_contexts.opinions(index), cells, SIGN, decide)
        self._sign_contexts.count(index, negative)
        return negative


def _decided(mixer: Mixer, opinions: I64, cells: I64, above: int, decide: Decide) -> Bools:
    """Predict decisions, make them, and learn from them."""
    if cells.size > _FEW:
        chances = mixer.predict(opinions)
        decided = decide(chances, cells, above)
        mixer.learn(opinions, chances, decided)
        return decided
    few = _each(opinions)
    own = mixer.predict_few(few)
    made = decide.few(own, cells.tolist(), above)
    mixer.learn_few(few, own, made)
    return np.array(made, np.bool_)


def _each(opinions: I64) -> Few:
    """Return the opinions of each decision."""
    return tuple(zip(*opinions.tolist(), strict=True))


class _Tables(NamedTuple):
    """Twice the contexts, or what their parts add to that."""

    fine: I64
    """By the logarithm of the expected magnitude, below _MOST."""
    coarse: I64
    nearby_coarse: I64
    """By the sum of magnitudes nearby."""
    nearby: I64
    taps: I64
    """By tap; the last one is that of all larger ones."""
    means: I64
    """By the logarithm of a matrix's mean."""
    rows: I64
    """By the logarithm of what a row alone lets expect; the first and last ones stand for all below and above."""
    columns: I64
    powers: I64
    """What has a logarithm; the first one for all below 0, too, and the last one for all above."""


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    logs = np.arange(_MOST, dtype=np.int64)
    level = np.maximum(logs - _LEAST, 0)
    sums = np.arange(4 * ESCAPE + 1, dtype=np.int64)
    sides = np.clip((logs >> 7) - 10, 0, _SIDES - 1)
    return _Tables(
        2 * (level >> 5),
        2 * (_AT[1] + (level >> 7) * _NEARBY),
        2 * np.minimum(sums, _NEARBY - 1),
        2 * np.minimum(sums, 6) * _TAPS * _MEANS,
        2 * (_AT[2] + np.arange(_TAPS, dtype=np.int64) * _MEANS),
        2 * np.clip((logs[: 16 << 8] >> 8) - 7, 0, _MEANS - 1),
        2 * (_AT[3] + sides * _SIDES),
        2 * sides,
        _power(logs),
    )


def _expect_geometric(counts: I64) -> None:
    """Begin the contexts of expected magnitudes with decisions as magnitudes of a geometric distribution have them."""
    for at, levels, each in ((_AT[0], _FINE, 1), (_AT[1], _COARSE, _NEARBY)):
        octave = (_MOST - _LEAST) // levels
        expected = _power(_LEAST + octave * np.arange(levels) + octave // 2)
        yes = (_PRIOR * expected + (expected + _ONE) // 2) // (expected + _ONE)
        counts[2 * at : 2 * (at + levels * each)] = np.repeat(np.stack((_PRIOR - yes, yes), 1), each, 0).reshape(-1)


def _log(numbers: I64) -> I64:
    """Return 256 * (e + numbers / 2**e - 1), rounded down, with 2**e <= numbers: of 1 or more, below 2**53."""
    # The exponent and the upper eight bits of the fraction, which float64 has as they are wanted.
    logs: I64 = numbers.astype(np.float64).view(np.int64)
    logs >>= 44
    logs -= _LOG_OF_ONE_IN_FLOAT
    return logs


def _power(logs: I64) -> I64:
    """Return what has these logarithms, rounded down: `_log` undone."""
    return ((256 + (logs & 255)) << (logs >> 8)) >> 8
