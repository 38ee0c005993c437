"""Reductions along axes, given as an attribute or as an input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seed_exporter.heal.registry import Call, operator


def _reduction(name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> None:
    def reduced(call: Call) -> Tensor:
        axes = call.integers(1)
        if axes is None:
            axes = list(call.attribute("axes", ()))
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                return call.x
            axes = list(range(call.x.dim()))
        # Without axes torch would reduce a scalar along none of them, which is the same.
        return function(call.x, axes, bool(call.attribute("keepdims", 1))) if axes else call.x

    operator(name)(reduced)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_reduction("ReduceL1", lambda x, axes, keep: x.abs().sum(axes, keepdim=keep))
_reduction("ReduceL2", lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt())
_reduction("ReduceLogSum", lambda x, axes, keep: x.sum(axes, keepdim=keep).log())
_reduction("ReduceLogSumExp", lambda x, axes, keep: x.logsumexp(axes, keepdim=keep))
_reduction("ReduceMax", lambda x, axes, keep: x.amax(axes, keepdim=keep))
_reduction("ReduceMean", lambda x, axes, keep: x.mean(axes, keepdim=keep))
_reduction("ReduceMin", lambda x, axes, keep: x.amin(axes, keepdim=keep))
_reduction("ReduceProd", _product)
_reduction("ReduceSum", lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype))
_reduction("ReduceSumSquare", lambda x, axes, keep: x.square().sum(axes, keepdim=keep))


def _arg(name: str, function: Callable[..., Tensor]) -> None:
    def found(call: Call) -> Tensor:
        if call.attribute("select_last_index", 0):
            call.refuse("the last of equal ones")
        return function(call.x, dim=call.attribute("axis", 0), keepdim=bool(call.attribute("keepdims", 1)))

    operator(name)(found)


_arg("ArgMax", torch.argmax)
_arg("ArgMin", torch.argmin)


@operator("CumSum")
def _cumsum(call: Call) -> Tensor:
    axis = int(call.required(1))
    x = call.x.flip(axis) if call.attribute("reverse", 0) else call.x
    sums = x.cumsum(axis)
    if call.attribute("exclusive", 0):
        sums = sums - x
    return sums.flip(axis) if call.attribute("reverse", 0) else sums
