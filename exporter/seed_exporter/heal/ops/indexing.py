"""Elements chosen by index."""

from __future__ import annotations

import torch
from torch import Tensor

from seed_exporter.heal.ops.normalizations import along
from seed_exporter.heal.registry import Call, operator


def _from_start(indices: Tensor, size: int) -> Tensor:
    """Return indices of which negative ones count from the end as those from the start."""
    return torch.where(indices < 0, indices + size, indices).to(torch.int64)


@operator("Gather")
def _gather(call: Call) -> Tensor:
    data, axis = call.x, call.attribute("axis", 0) % call.x.dim()
    indices = _from_start(call.required(1), data.shape[axis])
    shape = [*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]]
    return data.index_select(axis, indices.reshape(-1)).reshape(shape)


@operator("GatherElements")
def _gather_elements(call: Call) -> Tensor:
    axis = call.attribute("axis", 0)
    return call.x.gather(axis, _from_start(call.required(1), call.x.shape[axis]))


@operator("GatherND")
def _gather_nd(call: Call) -> Tensor:
    batch, indices = call.attribute("batch_dims", 0), call.required(1)
    lead = [
        torch.arange(size, device=indices.device).reshape(
            [-1 if axis == each else 1 for each in range(indices.dim() - 1)]
        )
        for axis, size in enumerate(call.x.shape[:batch])
    ]
    chosen = [_from_start(each, call.x.shape[batch + axis]) for axis, each in enumerate(indices.unbind(-1))]
    return call.x[(*lead, *chosen)]


@operator("ScatterElements")
def _scatter_elements(call: Call) -> Tensor:
    axis, kind = call.attribute("axis", 0), call.attribute("reduction", "none")
    indices = _from_start(call.required(1), call.x.shape[axis])
    if kind == "none":
        return call.x.scatter(axis, indices, call.required(2))
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return call.x.scatter_reduce(axis, indices, call.required(2), names[kind])


@operator("ScatterND")
def _scatter_nd(call: Call) -> Tensor:
    kind = call.attribute("reduction", "none")
    if kind not in ("none", "add"):
        call.refuse(f"the reduction {kind}")
    parts = call.required(1).unbind(-1)
    chosen = tuple(_from_start(each, call.x.shape[axis]) for axis, each in enumerate(parts))
    return call.x.index_put(chosen, call.required(2), accumulate=kind == "add")


@operator("TopK")
def _top_k(call: Call) -> tuple[Tensor, Tensor]:
    count = call.integers(1) or [call.attribute("k")]
    found = torch.topk(
        call.x, count[0], call.attribute("axis", -1), bool(call.attribute("largest", 1)), sorted=True
    )  # fmt: skip
    return found.values, found.indices


@operator("OneHot")
def _one_hot(call: Call) -> Tensor:
    indices, values, depth = call.x, call.required(2), (call.integers(1) or [0])[0]
    axis = call.attribute("axis", -1) % (indices.dim() + 1)
    places = along(torch.arange(depth, device=indices.device), indices.unsqueeze(axis), axis)
    # Indices that are out of range choose no place.
    return torch.where(_from_start(indices, depth).unsqueeze(axis) == places, values[1], values[0])


@operator("NonZero")
def _non_zero(call: Call) -> Tensor:
    return call.x.nonzero().T


@operator("Slice")
def _slice(call: Call) -> Tensor:
    data = call.x
    starts, ends = call.integers(1), call.integers(2)
    if starts is None or ends is None:  # attributes until opset 9
        starts, ends = list(call.attribute("starts")), list(call.attribute("ends"))
    axes = call.integers(3) or call.attribute("axes") or range(len(starts))
    steps = call.integers(4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = data.shape[axis]
        if step > 0:
            index: list[slice] = [slice(None)] * data.dim()
            index[axis] = slice(start, end, step)
            data = data[tuple(index)]
        else:
            # Python takes an end of -1 for the last element, ONNX one below -size for "to the first".
            places = range(size)[start : None if end < -size else end : step]
            data = data.index_select(axis, torch.tensor(places, dtype=torch.int64, device=data.device))
    return data


@operator("Trilu")
def _trilu(call: Call) -> Tensor:
    diagonal = (call.integers(1) or [0])[0]
    return (torch.triu if call.attribute("upper", 1) else torch.tril)(call.x, diagonal)


@operator("Compress")
def _compress(call: Call) -> Tensor:
    axis, chosen = call.attribute("axis"), call.required(1).nonzero().reshape(-1)
    return call.x.reshape(-1)[chosen] if axis is None else call.x.index_select(axis, chosen)


@operator("ReverseSequence")
def _reverse_sequence(call: Call) -> Tensor:
    time, batch = call.attribute("time_axis", 0), call.attribute("batch_axis", 1)
    rows = call.x.movedim((batch, time), (0, 1))
    places = torch.arange(rows.shape[1], device=rows.device)
    lengths = call.required(1).reshape(-1, 1)
    order = torch.where(places < lengths, lengths - 1 - places, places)
    reversed_rows = rows[torch.arange(rows.shape[0], device=rows.device)[:, None], order]
    return reversed_rows.movedim((0, 1), (batch, time))
