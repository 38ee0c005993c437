"""Recurrent layers: reverse mode through time.

The states that a layer returns give the gates of all steps at once. What is left to do step by step is a loop from the
last step to the first: a product with the recurrent weights, and factors that were made before the loop.
Where lengths of sequences are given, a step behind the end passes the gradients of states on as they are.
Source: Werbos, "Backpropagation through time: what it does and how to do it" (1990); ONNX, operators LSTM, GRU and RNN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from onnx import TensorProto, helper

from seed_exporter.gradients.emitter import Emitter
from seed_exporter.gradients.registry import Call, rule

_ACTIVATIONS: Final = frozenset({"Sigmoid", "Tanh", "Relu"})
"""Those whose slope their result tells."""

Gradients = list[str | None]


class _Direction:
    """One direction of a layer: its part of the inputs and outputs, and the states before each step.

    Values of all steps are `(steps, batch, units)`, states are `(batch, units)`.

    Args:
        c: the call.
        index: which of the layer's directions.
        directions: number of directions.
        gates: number of gates.
        functions: its activations.
    """

    def __init__(self, c: Call, index: int, directions: int, gates: int, functions: Sequence[str]) -> None:
        self.c, self._index, self._directions, self.functions = c, index, directions, functions
        self.e, self._hidden = c.emit, int(c.attribute("hidden_size"))
        self.is_reversed = index == 1 or c.attribute("direction", "forward") == "reverse"
        self.weights, self.recurrent = self.part(c.input(1)), self.part(c.input(2))
        self.biases: Sequence[str] = ("", "")
        """Of the gates, beside the inputs and beside the states before."""
        if c.input(3):
            self.biases = self.split(self.part(c.input(3)), [gates, gates], axis=0)
        self.states = self.part(c.optional_output(0), axis=1)
        self.has_lengths = bool(c.input(4))
        self.first_state = self.first(5)
        self.states_before = self.before(self.states, self.first_state)

    def part(self, name: str, axis: int = 0) -> str:
        """Return what a value holds for this direction."""
        parts, at = [name], self.e.integers([axis])
        if self._directions == 2:
            # Two Gathers would be fused by ONNX Runtime 1.19, under names that it takes twice.
            parts = list(self.e.several("Split", [name, self.e.integers([1, 1])], 2, axis=axis))
        return self.e("Squeeze", parts[self._index], at)

    def first(self, index: int) -> str:
        """Return the first state that an input of the layer gives, zeros where it is left out."""
        return self.part(self.c.input(index)) if self.c.input(index) else self._zero_state()

    def gradient(self, index: int) -> str:
        """Return the gradient of an output of the layer: the first of all steps, others of the last state."""
        found = self.c.gradients[index] if index < len(self.c.gradients) else None
        if index:
            return self._last_state(self.part(found)) if found else self._zero_state()
        return self.where_running(self.part(found, axis=1), 0) if found else self.e.zeros(self.states, self.c.code)

    def before(self, states: str, first: str) -> str:
        """Return the states before each step, given those after it and the first one."""
        e, axis = self.e, self.e.integers([0])
        one = e("Unsqueeze", first, axis)
        if not self.is_reversed:
            return e("Concat", one, e("Slice", states, axis, e.integers([-1]), axis), axis=0)
        found = e("Concat", e("Slice", states, e.integers([1]), e.integers([2**62]), axis), one, axis=0)
        # A sequence that is shorter than the longest begins with its own last step.
        return e("Where", self.steps_left(1), found, first) if self.has_lengths else found

    def where_running(self, value: str, otherwise: float) -> str:
        """Return a value of all steps, with a number in its place behind the ends of sequences."""
        return self.e("Where", self.steps_left(0), value, self.c.scalar(otherwise)) if self.has_lengths else value

    def steps_left(self, ahead: int) -> str:
        """Return for each step whether its sequence goes so many steps further, `(steps, batch, 1)`."""
        e = self.e
        count = e("Squeeze", e("Shape", self.states, end=1))
        steps = e("Reshape", e("Range", self._number(0), count, self._number(1)), e.integers([-1, 1, 1]))
        lengths = e("Unsqueeze", e("Cast", self.c.input(4), to=TensorProto.INT64), e.integers([0, 2]))
        return e("Less", e("Add", steps, self._number(ahead)) if ahead else steps, lengths)

    def behind_the_end(self) -> list[str]:
        """Return for all steps 1 behind the ends of sequences and 0 before; nothing where no lengths are given."""
        return [self.where_running(self.c.scalar(0), 1)] if self.has_lengths else []

    def split(self, value: str, counts: Sequence[int], axis: int = -1) -> Sequence[str]:
        """Split a value into parts of so many gates each."""
        sizes = self.e.integers(count * self._hidden for count in counts)
        return self.e.several("Split", [value, sizes], len(counts), axis=axis)

    def product(self, values: str, weights: str, bias: str = "") -> str:
        """Return what weights make of values at all steps."""
        found = self.e("MatMul", values, self.e("Transpose", weights, perm=[1, 0]))
        return self.e("Add", found, bias) if bias else found

    def outer(self, gradient: str, values: str) -> str:
        """Return the gradient of weights, given that of `product`."""
        return self.e("Gemm", *(self.e("Flatten", each, axis=2) for each in (gradient, values)), transA=1)

    def total(self, gradient: str) -> str:
        """Return the sum over all steps of all sequences."""
        return self.e("ReduceSum", gradient, self.e.integers([0, 1]), keepdims=0)

    def function(self, index: int, value: str) -> str:
        """Apply one of the activations."""
        return self.e(self.functions[index], value)

    def slope(self, index: int, result: str) -> str:
        """Return the slope of one of the activations where it gave a result."""
        e, name, one = self.e, self.functions[index], self.c.scalar(1)
        if name == "Relu":
            return e("Sign", result)
        return e("Mul", result if name == "Sigmoid" else e("Add", one, result), e("Sub", one, result))

    def factor(self, *factors: str) -> str:
        """Return a product for all steps, 0 behind the ends of sequences."""
        found = factors[0]
        for each in factors[1:]:
            found = self.e("Mul", found, each)
        return self.where_running(found, 0)

    def found(self, gates: str, recurrent: str, beside: str, *states: str) -> Gradients:
        """Return the gradients of the layer's inputs, as far as all layers have them.

        Args:
            gates: the gradient of what the gates get from the inputs at all steps.
            recurrent: that of the recurrent weights.
            beside: that of what the gates get from the states before.
            states: those of the first states.
        """
        biases = self.e("Concat", self.total(gates), self.total(beside), axis=0)
        return [self.e("MatMul", gates, self.weights), self.outer(gates, self.c.x), recurrent, biases, None, *states]

    def _number(self, value: int) -> str:
        return self.e.scalar(value, TensorProto.INT64)

    def _last_state(self, gradient: str) -> str:
        """Return the gradient of a last state: ONNX Runtime gives 0 for that of an empty sequence."""
        if not self.has_lengths:
            return gradient
        lengths = self.e("Unsqueeze", self.c.input(4), self.e.integers([1]))
        is_empty = self.e("Equal", lengths, self.e.scalar(0, TensorProto.INT32))
        return self.e("Where", is_empty, self.c.scalar(0), gradient)

    def _zero_state(self) -> str:
        zero = helper.make_tensor("", self.c.code, [1], [0])
        return self.e("ConstantOfShape", self.e("Shape", self.states, start=1), value=zero)


def _through_time(c: Call, gates: int, defaults: Sequence[str], run: Callable[[_Direction], Gradients]) -> Gradients:
    """Put the gradients of both directions together."""
    if c.attribute("layout", 0):
        c.refuse("layout 1, which ONNX Runtime doesn't run")
    for name in ("clip", "input_forget"):
        if c.attribute(name):
            c.refuse(name)
    count = 2 if c.attribute("direction", "forward") == "bidirectional" else 1
    functions = [name.decode().capitalize() for name in c.attribute("activations", ())] or [*defaults] * count
    if unknown := set(functions) - _ACTIVATIONS:
        c.refuse(f"the activation {min(unknown)}")
    each = len(functions) // count
    found = [run(_Direction(c, at, count, gates, functions[each * at : each * (at + 1)])) for at in range(count)]
    e = c.emit
    return [
        None
        if parts[0] is None
        else e("Sum", *parts)
        if index == 0
        else e("Concat", *(e("Unsqueeze", part, e.integers([0])) for part in parts), axis=0)
        for index, parts in enumerate(zip(*found, strict=True))
    ]


@rule("RNN")
def _rnn(c: Call) -> Sequence[str | None]:
    return _through_time(c, 1, ["Tanh"], _rnn_direction)


def _rnn_direction(d: _Direction) -> Gradients:
    def body(e: Emitter, states: Sequence[str], elements: Sequence[str]) -> tuple[list[str], list[str]]:
        given, slope, *behind = elements
        total = e("Add", states[0], given)
        gate = e("Mul", total, slope)
        before = e("MatMul", gate, d.recurrent)
        return [_passed_on(e, before, total, behind)], [gate]

    elements = [d.gradient(0), d.factor(d.slope(0, d.states)), *d.behind_the_end()]
    (first,), (gate,) = d.e.scan([d.gradient(1)], elements, body, backwards=not d.is_reversed)
    return d.found(gate, d.outer(gate, d.states_before), gate, first)


@rule("GRU")
def _gru(c: Call) -> Sequence[str | None]:
    return _through_time(c, 3, ["Sigmoid", "Tanh"], _gru_direction)


def _gru_direction(d: _Direction) -> Gradients:
    e, before = d.e, d.states_before
    resets_after = bool(d.c.attribute("linear_before_reset", 0))
    inputs = d.split(d.product(d.c.x, d.weights, d.biases[0]), [1, 1, 1])
    both, candidate = d.split(d.recurrent, [2, 1], axis=0)
    biases = d.split(d.biases[1], [2, 1], axis=0) if d.biases[1] else ("", "")
    recurrent = d.split(d.product(before, both, biases[0]), [1, 1])
    update, reset = (d.function(0, e("Add", *pair)) for pair in zip(inputs, recurrent, strict=False))
    if resets_after:
        base = d.product(before, candidate, biases[1])
        new = d.function(1, e("Add", inputs[2], e("Mul", reset, base)))
    else:
        base = before
        new = d.function(1, e("Add", inputs[2], d.product(e("Mul", reset, base), candidate, biases[1])))

    def body(e: Emitter, states: Sequence[str], elements: Sequence[str]) -> tuple[list[str], list[str]]:
        given, of_update, of_reset, of_new, kept, opened = elements
        total = e("Add", states[0], given)
        updates, news = e("Mul", total, of_update), e("Mul", total, of_new)
        kept_part = e("Mul", total, kept)
        if resets_after:
            resets, bases = e("Mul", news, of_reset), e("Mul", news, opened)
            back = e("MatMul", e("Concat", updates, resets, bases, axis=-1), d.recurrent)
        else:
            bases = e("MatMul", news, candidate)
            resets = e("Mul", bases, of_reset)
            back = e("MatMul", e("Concat", updates, resets, axis=-1), both)
            back = e("Add", back, e("Mul", bases, opened))
        return [e("Add", kept_part, back)], [e("Concat", updates, resets, news, axis=-1)]

    elements = [
        d.gradient(0),
        d.factor(e("Sub", before, new), d.slope(0, update)),
        d.factor(base, d.slope(0, reset)),
        d.factor(e("Sub", d.c.scalar(1), update), d.slope(1, new)),
        d.where_running(update, 1),
        reset,
    ]
    (first,), (gates,) = e.scan([d.gradient(1)], elements, body, backwards=not d.is_reversed)
    pair, news = d.split(gates, [2, 1])
    if resets_after:
        beside = e("Concat", pair, e("Mul", news, reset), axis=-1)
        return d.found(gates, d.outer(beside, before), beside, first)
    of_candidate = d.outer(news, e("Mul", reset, before))
    return d.found(gates, e("Concat", d.outer(pair, before), of_candidate, axis=0), gates, first)


@rule("LSTM")
def _lstm(c: Call) -> Sequence[str | None]:
    return _through_time(c, 4, ["Sigmoid", "Tanh", "Tanh"], _lstm_direction)


def _lstm_direction(d: _Direction) -> Gradients:
    e = d.e
    peepholes = d.split(d.part(d.c.input(7)), [1, 1, 1], axis=0) if d.c.input(7) else ("", "", "")
    to_in, to_out, to_forget = peepholes
    inputs = d.product(d.c.x, d.weights, d.biases[0])
    sums = d.split(e("Add", inputs, d.product(d.states_before, d.recurrent, d.biases[1])), [1, 1, 1, 1])
    new, first_cell = d.function(1, sums[3]), d.first(6)

    def forward(e: Emitter, states: Sequence[str], elements: Sequence[str]) -> tuple[list[str], list[str]]:
        (cell,), (in_sum, forget_sum, news, *running) = states, elements
        opened = e(d.functions[0], _peeped(e, in_sum, cell, to_in))
        kept = e(d.functions[0], _peeped(e, forget_sum, cell, to_forget))
        after = e("Add", e("Mul", kept, cell), e("Mul", opened, news))
        after = e("Where", running[0], after, cell) if running else after
        return [after], [after]

    running = [d.steps_left(0)] if d.has_lengths else []
    _, (cells,) = e.scan([first_cell], [sums[0], sums[2], new, *running], forward, backwards=d.is_reversed)
    cells_before = d.before(cells, first_cell)
    opened = d.function(0, _peeped(e, sums[0], cells_before, to_in))
    shown = d.function(0, _peeped(e, sums[1], cells, to_out))
    kept = d.function(0, _peeped(e, sums[2], cells_before, to_forget))
    value = d.function(2, cells)

    def body(e: Emitter, states: Sequence[str], elements: Sequence[str]) -> tuple[list[str], list[str]]:
        given, of_out, of_cell, of_in, of_forget, of_new, kept, *behind = elements
        total = e("Add", states[0], given)
        outs = e("Mul", total, of_out)
        cell = _peeped(e, e("Add", states[1], e("Mul", total, of_cell)), outs, to_out)
        ins, forgets, news = (e("Mul", cell, each) for each in (of_in, of_forget, of_new))
        gates = e("Concat", ins, outs, forgets, news, axis=-1)
        before = e("MatMul", gates, d.recurrent)
        cell = _peeped(e, _peeped(e, e("Mul", cell, kept), ins, to_in), forgets, to_forget)
        return [_passed_on(e, before, total, behind), cell], [gates]

    elements = [
        d.gradient(0),
        d.factor(value, d.slope(0, shown)),
        d.factor(shown, d.slope(2, value)),
        d.factor(new, d.slope(0, opened)),
        d.factor(cells_before, d.slope(0, kept)),
        d.factor(opened, d.slope(1, new)),
        d.where_running(kept, 1),
        *d.behind_the_end(),
    ]
    states = [d.gradient(1), d.gradient(2)]
    (first, first_cell_gradient), (gates,) = e.scan(states, elements, body, backwards=not d.is_reversed)
    found = d.found(gates, d.outer(gates, d.states_before), gates, first, first_cell_gradient)
    ins, outs, forgets, _ = d.split(gates, [1, 1, 1, 1])
    pairs = ((ins, cells_before), (outs, cells), (forgets, cells_before))
    return [*found, e("Concat", *(d.total(e("Mul", *pair)) for pair in pairs), axis=0)]


def _peeped(e: Emitter, value: str, cell: str, weights: str) -> str:
    """Add what a peephole adds, where there is one."""
    return e("Add", value, e("Mul", cell, weights)) if weights else value


def _passed_on(e: Emitter, before: str, total: str, behind: Sequence[str]) -> str:
    """Add the gradient of a state that stays the same behind the end of a sequence."""
    return e("Add", before, e("Mul", total, behind[0])) if behind else before
