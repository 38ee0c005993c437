"""Nested graphs: choices are made and loops iterate, so that gradients go through what was computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seed_exporter.heal.registry import Body, Call, operator


@operator("If")
def _if(call: Call) -> list[Tensor]:
    branch: Body = call.attribute("then_branch" if bool(call.x) else "else_branch")
    return branch.run([])


@operator("Loop")
def _loop(call: Call) -> list[Tensor]:
    body: Body = call.attribute("body")
    limit, condition = call.integers(0), call.input(1)
    device = call.given()[0].device
    states: list[Tensor | None] = list(call.inputs[2:])
    results: list[list[Tensor]] = []
    goes_on = condition is None or bool(condition)
    while goes_on and (limit is None or len(results) < limit[0]):
        iteration = torch.tensor(len(results), dtype=torch.int64, device=device)
        asked, *made = body.run([iteration, torch.tensor(True, device=device), *states])
        goes_on = bool(asked)
        results.append(made[len(states) :])
        states = [*made[: len(states)]]
    last = [state for state in states if state is not None]
    return [*last, *_stacked(call, results, [0] * (body.results - 1 - len(states)))]


@operator("Scan")
def _scan(call: Call) -> list[Tensor]:
    if call.opset < 9:
        call.refuse("batches of sequences, as before opset 9")
    body: Body = call.attribute("body")
    count, given = call.attribute("num_scan_inputs"), call.given()
    states, elements = given[: len(given) - count], given[len(given) - count :]
    stacks = body.results - len(states)
    axes, backwards = (call.attribute(f"scan_input_{name}", [0] * count) for name in ("axes", "directions"))
    sequences = [_elements(*each) for each in zip(elements, axes, backwards, strict=True)]
    results = []
    for parts in zip(*sequences, strict=True):
        made = body.run([*states, *parts])
        states = made[: len(states)]
        results.append(made[len(states) :])
    axes, backwards = (call.attribute(f"scan_output_{name}", [0] * stacks) for name in ("axes", "directions"))
    found = _stacked(call, results, axes)
    pairs = zip(found, axes, backwards, strict=True)
    return [*states, *(each.flip(axis) if flipped else each for each, axis, flipped in pairs)]


def _elements(value: Tensor, axis: int, backwards: int) -> list[Tensor]:
    parts = list(value.unbind(axis))
    return parts[::-1] if backwards else parts


def _stacked(call: Call, results: Sequence[Sequence[Tensor]], axes: Sequence[int]) -> list[Tensor]:
    """Return the results of all iterations, each along an axis of its own."""
    if axes and not results:
        call.refuse("a loop of no iterations whose results have no shape then")
    return [torch.stack(list(each), axis) for each, axis in zip(zip(*results, strict=True), axes, strict=True)]
