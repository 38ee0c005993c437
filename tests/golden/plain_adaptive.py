"""Codec 8 of SPEC.md, with the standard library: the walk over elements, and a decoder and an encoder of decisions.

Written from the document alone. The walk asks for each decision, so that tests can also code integers by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count

Decide = Callable[[int, int, int, int, int], bool]
"""Decides by probability, matrix, row, column, and the magnitude that may be exceeded, -1 for the sign."""
STRENGTH = {"row": 3, "channel": 3, "tap": 20, "column": 4}


@dataclass
class Plane:
    """The live rows and columns of a matrix."""

    rows: int
    cols: int
    taps: int
    width: int
    values: dict[tuple[int, int], int] = field(default_factory=dict)
    """Elements so far by row and column, magnitudes of 15 and more as 15."""
    sum: int = 0
    count: int = 0
    had: dict[tuple[str, int], int] = field(default_factory=dict)
    expected: dict[tuple[str, int], int] = field(default_factory=dict)

    def at(self, row: int, col: int) -> int:
        return self.values.get((row, col), 0) if row >= 0 and col >= 0 else 0


def within(x: int, least: int, most: int) -> int:
    return max(least, min(x, most))


def log(x: int) -> int:
    e = x.bit_length() - 1
    return 256 * e + (256 * x >> e) - 256


def exp(y: int) -> int:
    return ((256 + y % 256) << y // 256) // 256


@cache
def exact_log(x: int) -> int:
    return int(x**256).bit_length() - 1


@cache
def probability(m: int) -> int:
    low, high = 1, 4095
    while low < high:
        middle = (low + high + 1) // 2
        if exact_log(middle) - exact_log(4096 - middle) <= m:
            low = middle
        else:
            high = middle - 1
    return low


class Predictor:
    """The counts of some kinds of contexts, and the weights of some sets."""

    def __init__(self, inputs: int) -> None:
        self.counts: dict[tuple[object, ...], list[int]] = {}
        self.weights: dict[int, list[int]] = {}
        self.inputs, self.pending = inputs, list[tuple[tuple[object, ...], bool]]()

    def pair(self, context: tuple[object, ...]) -> list[int]:
        if context not in self.counts:
            no = yes = 0
            if context[0] in ("A", "B"):
                first = context[1]
                assert isinstance(first, int)
                e = exp(1024 + 32 * first + 16 if context[0] == "A" else 1024 + 128 * first + 64)
                yes = (12 * e + (e + 4096) // 2) // (e + 4096)
                no = 12 - yes
            self.counts[context] = [no, yes]
        return self.counts[context]

    def decide(
        self, group: Sequence[list[tuple[object, ...]]], weights: int, ask: Callable[[int, int], bool]
    ) -> list[bool]:
        """Decide a group of decisions with the same weights; `ask` gets the number in the group and the probability."""
        w = self.weights.setdefault(weights, [393216 // (5 * self.inputs)] * self.inputs)
        gradients, decided = [0] * self.inputs, []
        for number, contexts in enumerate(group):
            pairs = [self.pair(context) for context in contexts]
            odds = [exact_log(2 * yes + 1) - exact_log(2 * no + 1) for no, yes in pairs]
            p = probability(within(sum(a * b for a, b in zip(w, odds, strict=True)) // 65536, -3071, 3071))
            answer = ask(number, p)
            decided.append(answer)
            self.pending += [(context, answer) for context in contexts]
            for place, o in enumerate(odds):
                gradients[place] += o * (4096 * answer - p)
        b = (len(group) // 16).bit_length()
        for place, gradient in enumerate(gradients):
            w[place] += gradient // 2 ** (12 + b // 2)
        return decided

    def end_wave(self) -> None:
        for context, answer in self.pending:
            self.pair(context)[answer] += 1
        for context in {context for context, _ in self.pending}:
            pair = self.pair(context)
            while sum(pair) > 510:
                pair[:] = [pair[0] // 2, pair[1] // 2]
        self.pending.clear()


@dataclass
class Element:
    """An element of the present wave."""

    matrix: int
    row: int
    col: int
    log_mean: int
    factors: dict[str, int]
    y: int
    near: dict[str, int]
    magnitude: int = 0

    def places(self, plane: Plane) -> dict[str, int]:
        return {"row": self.row, "channel": self.col // plane.taps, "tap": self.col % plane.taps, "column": self.col}


def walk(planes: Sequence[Plane], decide: Decide) -> list[tuple[int, int, int]]:
    """Decide all elements; return the matrix, row and column of each magnitude of 15 and more, in order."""
    magnitudes, signs, escaped = Predictor(4), Predictor(3), []
    last = max((plane.rows + plane.cols - 1 for plane in planes if plane.rows and plane.cols), default=0)
    for wave in range(last):
        total, number = sum(plane.sum for plane in planes), sum(plane.count for plane in planes)
        elements = [
            expect(planes, index, row, wave - row, total, number)
            for index, plane in enumerate(planes)
            for row in range(plane.rows)
            if 0 <= wave - row < plane.cols
        ]
        open_ = elements
        for k in range(15):
            group = [contexts_of(element, planes[element.matrix], k) for element in open_]
            asked = open_

            def larger(place: int, p: int, k: int = k, asked: list[Element] = asked) -> bool:
                return decide(p, asked[place].matrix, asked[place].row, asked[place].col, k)

            answers = magnitudes.decide(group, min(k, 7), larger) if group else []
            open_ = [element for element, answer in zip(open_, answers, strict=True) if answer]
            for element in open_:
                element.magnitude += 1
        escaped += [(element.matrix, element.row, element.col) for element in open_]
        present = [element for element in elements if element.magnitude]

        def negative(place: int, p: int, asked: list[Element] = present) -> bool:
            return decide(p, asked[place].matrix, asked[place].row, asked[place].col, -1)

        group = [sign_contexts_of(element) for element in present]
        for element, answer in zip(present, signs.decide(group, 0, negative) if group else [], strict=True):
            planes[element.matrix].values[element.row, element.col] = (
                -element.magnitude if answer else element.magnitude
            )
        magnitudes.end_wave()
        signs.end_wave()
        for element in elements:
            plane = planes[element.matrix]
            plane.sum, plane.count = plane.sum + element.magnitude, plane.count + 1
            for kind, place in element.places(plane).items():
                added = exp(within(element.y - element.factors[kind], 0, 5119))
                plane.had[kind, place] = plane.had.get((kind, place), 0) + 4096 * element.magnitude
                plane.expected[kind, place] = plane.expected.get((kind, place), 0) + added
    return escaped


def expect(planes: Sequence[Plane], index: int, row: int, col: int, total: int, number: int) -> Element:
    plane = planes[index]
    mean = max(1, (4096 * plane.sum + 10 * ((4096 * total + 2048) // (number + 1))) // (plane.count + 10))
    near = {
        "left": plane.at(row, col - 1),
        "above": plane.at(row, col - plane.width),
        "before": plane.at(row, col - plane.taps),
        "up": plane.at(row - 1, col),
    }
    element = Element(index, row, col, log(mean), {}, 0, near)
    for kind, place in element.places(plane).items():
        base = STRENGTH[kind] * (mean + 4096)
        factor = log(plane.had.get((kind, place), 0) + base) - log(plane.expected.get((kind, place), 0) + base)
        element.factors[kind] = 0 if plane.taps == 1 and kind in ("tap", "column") else factor
    element.y = within(log(mean) + sum(element.factors.values()), 1024, 5119)
    return element


def contexts_of(element: Element, plane: Plane, k: int) -> list[tuple[object, ...]]:
    n, j, y, mean = sum(map(abs, element.near.values())), min(k, 3), element.y, element.log_mean
    row = within((mean + element.factors["row"]) // 128 - 10, 0, 21)
    col = within((mean + element.factors["channel"] + element.factors["column"]) // 128 - 10, 0, 21)
    return [
        ("A", (y - 1024) // 32, j),
        ("B", (y - 1024) // 128, min(n, 8), j),
        ("C", min(n, 6), min(element.col % plane.taps, 8), within(mean // 256 - 7, 0, 7), j),
        ("D", row, col, j),
    ]


def sign_contexts_of(element: Element) -> list[tuple[object, ...]]:
    left, above, before, up = ((value > 0) - (value < 0) for value in element.near.values())
    return [("lau", left, above, up), ("lb", left, before), ("ub", up, before)]


class Lanes:
    """Decodes decisions."""

    def __init__(self, states: list[int], words: list[int]) -> None:
        self.states, self.words, self.next, self.number = states, words, 0, count()

    def decide(self, p: int) -> bool:
        lane = next(self.number) % len(self.states)
        x = self.states[lane]
        slot = x % 4096
        yes = slot < p
        x = p * (x // 4096) + slot if yes else (4096 - p) * (x // 4096) + slot - p
        if x < 65536:
            x, self.next = x * 65536 + self.words[self.next], self.next + 1
        self.states[lane] = x
        return yes

    def end(self) -> None:
        assert self.next == len(self.words)
        assert all(state == 65536 for state in self.states)


def coded(decisions: Sequence[tuple[int, bool]], lanes: int) -> tuple[list[int], list[int]]:
    """Code decisions under their probabilities; return the lanes' first states, and their words."""
    states, words = [65536] * lanes, list[int]()
    for index in range(len(decisions) - 1, -1, -1):
        p, yes = decisions[index]
        frequency, start = (p, 0) if yes else (4096 - p, p)
        x = states[index % lanes]
        if x >= frequency << 20:
            words.append(x % 65536)
            x //= 65536
        states[index % lanes] = x // frequency * 4096 + x % frequency + start
    return states, words[::-1]
