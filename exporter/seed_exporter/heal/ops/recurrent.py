"""Recurrent layers, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from seed_exporter.heal.registry import Call, operator

_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}

_States = Sequence[Tensor]
_Step = Callable[[Tensor, _States], _States]
"""Return the states after a step, given what its gates get from the inputs and the states before."""
_Cell = Callable[[Call, int, Sequence[Callable[[Tensor], Tensor]], Tensor, Tensor], _Step]
"""Make the step of a direction, given its number, activations, recurrent weights and biases."""


def _layer(name: str, gates: int, defaults: Sequence[str], states: int = 1) -> Callable[[_Cell], _Cell]:
    """Register a cell as a layer.

    Args:
        name: the operator.
        gates: number of gates.
        defaults: its activations by default.
        states: number of its states; the first one is what it returns for all steps.
    """

    def register(cell: _Cell) -> _Cell:
        operator(name)(lambda call: _through_time(call, gates, defaults, states, cell))
        return cell

    return register


def _through_time(call: Call, gates: int, defaults: Sequence[str], states: int, cell: _Cell) -> list[Tensor]:
    for refused in ("layout", "clip", "input_forget"):
        if call.attribute(refused, 0):
            call.refuse(refused)
    direction = call.attribute("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    functions = [_activation(call, each) for each in call.attribute("activations") or [*defaults] * directions]
    x, hidden, each = call.x, int(call.attribute("hidden_size")), len(functions) // directions
    lengths, found = call.input(4), []
    for index in range(directions):
        biases, given = call.input(3), [call.input(5 + state) for state in range(states)]
        zeros = x.new_zeros(2, gates * hidden)
        beside_inputs, beside_states = zeros if biases is None else biases[index].chunk(2)
        own = functions[each * index : each * (index + 1)]
        step = cell(call, index, own, call.required(2)[index], beside_states)
        sums = x @ call.required(1)[index].T + beside_inputs
        first = [x.new_zeros(x.shape[1], hidden) if state is None else state[index] for state in given]
        found.append(_run(step, sums, first, lengths, backwards=index == 1 or direction == "reverse"))
    steps, *last = zip(*found, strict=True)
    return [torch.stack(steps, 1), *(torch.stack(state) for state in last)]


def _run(
    step: _Step, sums: Tensor, states: Sequence[Tensor], lengths: Tensor | None, *, backwards: bool
) -> list[Tensor]:
    """Return the first state after each step, and the last states."""
    order = list(range(len(sums)))
    found = []
    for time in reversed(order) if backwards else order:
        after = step(sums[time], states)
        result = after[0]
        if lengths is not None:
            running = (time < lengths)[:, None]
            after = [torch.where(running, new, old) for new, old in zip(after, states, strict=True)]
            result = torch.where(running, result, 0)
        states = after
        found.append(result)
    if lengths is not None:
        # ONNX Runtime gives 0 for the states of an empty sequence.
        states = [torch.where((lengths > 0)[:, None], state, 0) for state in states]
    return [torch.stack(found[::-1] if backwards else found), *states]


def _activation(call: Call, name: Any) -> Callable[[Tensor], Tensor]:
    text = (name.decode() if isinstance(name, bytes) else name).lower()
    if text not in _ACTIVATIONS:
        call.refuse(f"the activation {text}")
    return _ACTIVATIONS[text]


@_layer("RNN", 1, ["tanh"])
def _rnn(call: Call, index: int, functions: Any, recurrent: Tensor, biases: Tensor) -> _Step:
    def step(sums: Tensor, states: _States) -> _States:
        return [functions[0](sums + states[0] @ recurrent.T + biases)]

    return step


@_layer("GRU", 3, ["sigmoid", "tanh"])
def _gru(call: Call, index: int, functions: Any, recurrent: Tensor, biases: Tensor) -> _Step:
    resets_after, hidden = call.attribute("linear_before_reset", 0), recurrent.shape[1]
    both, candidate = recurrent.split([2 * hidden, hidden])
    both_biases, bias = biases.split([2 * hidden, hidden])

    def step(sums: Tensor, states: _States) -> _States:
        (state,) = states
        pair, last = sums.split([2 * hidden, hidden], -1)
        update, reset = functions[0](pair + state @ both.T + both_biases).chunk(2, -1)
        if resets_after:
            new = functions[1](last + reset * (state @ candidate.T + bias))
        else:
            new = functions[1](last + (reset * state) @ candidate.T + bias)
        return [(1 - update) * new + update * state]

    return step


@_layer("LSTM", 4, ["sigmoid", "tanh", "tanh"], states=2)
def _lstm(call: Call, index: int, functions: Any, recurrent: Tensor, biases: Tensor) -> _Step:
    peepholes = call.input(7)
    none = recurrent.new_zeros(3, 1)
    to_in, to_out, to_forget = none if peepholes is None else peepholes[index].chunk(3)

    def step(sums: Tensor, states: _States) -> _States:
        state, cell = states
        into, out, forget, new = (sums + state @ recurrent.T + biases).chunk(4, -1)
        kept = functions[0](forget + to_forget * cell) * cell
        cell = kept + functions[0](into + to_in * cell) * functions[1](new)
        return [functions[0](out + to_out * cell) * functions[2](cell), cell]

    return step
