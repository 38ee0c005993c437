"""Evaluate an ONNX graph in torch, so that torch's own gradients are there to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from seed_exporter.gradients.typed import opset_of
from seed_exporter.graph.model import Graph, Weight

Tensor = torch.Tensor
FLOATS = {helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in ("float16", "float32", "float64")}


def torch_gradients(
    graph: Graph,
    feeds: Mapping[str, np.ndarray],
    seeds: Mapping[str, np.ndarray],
    wrt: list[str],
    dtype: torch.dtype = torch.float64,
) -> list[np.ndarray]:
    """Return torch's gradients of weights and inputs, given those of the outputs; all floats are of one type."""
    with _default_dtype(dtype):
        return _gradients(graph, feeds, seeds, wrt)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _gradients(
    graph: Graph, feeds: Mapping[str, np.ndarray], seeds: Mapping[str, np.ndarray], wrt: list[str]
) -> list[np.ndarray]:
    values: dict[str, Tensor] = {"": None}  # type: ignore[dict-item]
    held = {name: _unpacked(weight) for name, weight in graph.weights.items()}
    small = {t.name: numpy_helper.to_array(t) for t in graph.model.graph.initializer if t.name not in held}
    for name, array in {**small, **held, **feeds}.items():
        tensor = _tensor(array)
        differs = name in wrt or (name in held and tensor.is_floating_point())
        values[name] = tensor.requires_grad_() if differs else tensor
    opset = opset_of(graph.model)
    for node in graph.model.graph.node:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        inputs = [values[name] for name in node.input]
        values[node.output[0]] = OPS[node.op_type](inputs, attributes, opset)
    loss = sum((values[name] * _tensor(seed)).sum() for name, seed in seeds.items())
    found = torch.autograd.grad(loss, [values[name] for name in wrt], allow_unused=True)
    pairs = zip(wrt, found, strict=True)
    return [(torch.zeros_like(values[name]) if each is None else each).detach().numpy() for name, each in pairs]


def _unpacked(weight: Weight) -> np.ndarray:
    if weight.data.shape == weight.shape:
        return np.array(weight.data)
    packed = TensorProto(data_type=weight.dtype.code, dims=weight.shape, raw_data=weight.data.tobytes())
    return numpy_helper.to_array(packed).astype(np.int8)


def _tensor(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _axes(x: list[Tensor], a: dict[str, Any]) -> list[int]:
    if len(x) > 1 and x[1] is not None:
        return [int(axis) for axis in x[1]]
    return list(a.get("axes", range(x[0].dim())))


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, a, _: function(x[0], dim=_axes(x, a), keepdim=bool(a.get("keepdims", 1)))


def _pads(pads: list[int]) -> list[int]:
    """Return pads of ONNX in torch's order: the last axis first, both sides of each together."""
    half = len(pads) // 2
    return [pads[index + side * half] for index in reversed(range(half)) for side in (0, 1)]


def _window(x: Tensor, kernel: tuple[int, ...], a: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    ones = [1] * len(kernel)
    strides, dilations = list(a.get("strides", ones)), list(a.get("dilations", ones))
    auto = a.get("auto_pad", b"NOTSET").decode()
    if not auto.startswith("SAME"):
        return strides, dilations, list(a.get("pads", [0] * 2 * len(kernel)))
    sizes = zip(x.shape[2:], strides, dilations, kernel, strict=True)
    totals = [max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0) for size, s, d, k in sizes]
    less = [total // 2 for total in totals]
    more = [total - total // 2 for total in totals]
    return strides, dilations, less + more if auto == "SAME_UPPER" else more + less


def _conv(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    strides, dilations, pads = _window(x[0], tuple(x[1].shape[2:]), a)
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[x[1].dim() - 3]
    bias = x[2] if len(x) > 2 else None
    padded = functional.pad(x[0], _pads(pads))
    return run(padded, x[1], bias, stride=strides, dilation=dilations, groups=a.get("group", 1))


def _conv_transpose(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    strides, dilations, pads = _window(x[0], tuple(x[1].shape[2:]), a)
    run = (functional.conv_transpose1d, functional.conv_transpose2d)[x[1].dim() - 3]
    added, bias = a.get("output_padding", [0] * len(strides)), x[2] if len(x) > 2 else None
    full = run(x[0], x[1], bias, stride=strides, dilation=dilations, groups=a.get("group", 1))
    half = len(strides)
    cut = [-pad for pad in pads[:half]] + [more - pad for pad, more in zip(pads[half:], added, strict=True)]
    return functional.pad(full, _pads(cut))


def _max_pool(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    strides, dilations, pads = _window(x[0], tuple(a["kernel_shape"]), a)
    padded = functional.pad(x[0], _pads(pads), value=-torch.inf)
    return functional.max_pool2d(padded, a["kernel_shape"], strides, dilation=dilations)


def _average_pool(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    strides, _dilations, pads = _window(x[0], tuple(a["kernel_shape"]), a)
    shared = functional.avg_pool2d(functional.pad(x[0], _pads(pads)), a["kernel_shape"], strides)
    if a.get("count_include_pad"):
        return shared
    inside = functional.pad(torch.ones_like(x[0]), _pads(pads))
    return shared / functional.avg_pool2d(inside, a["kernel_shape"], strides)


def _slice(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    data, starts, ends = x[:3]
    axes = x[3] if len(x) > 3 else range(len(starts))
    steps = x[4] if len(x) > 4 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        numbers = list(range(data.shape[int(axis)]))
        stop = None if step < 0 and end < -len(numbers) else int(end)
        chosen = torch.tensor(numbers[int(start) : stop : int(step)], dtype=torch.int64)
        data = data.index_select(int(axis), chosen)
    return data


def _reshape(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    shape = [int(size) or x[0].shape[axis] for axis, size in enumerate(x[1])]
    return x[0].reshape(shape)


def _unsqueeze(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    axes, data = _axes(x, a), x[0]
    for axis in sorted(axis % (data.dim() + len(axes)) for axis in axes):
        data = data.unsqueeze(axis)
    return data


def _squeeze(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    given = len(x) > 1 or "axes" in a
    return x[0].squeeze(tuple(_axes(x, a))) if given else x[0].squeeze()


def _softmax(x: list[Tensor], a: dict[str, Any], opset: int) -> Tensor:
    if opset >= 13:
        return torch.softmax(x[0], a.get("axis", -1))
    return torch.softmax(x[0].flatten(a.get("axis", 1)), -1).reshape(x[0].shape)


def _clip(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    low, high = (each.item() if each is not None else None for each in [*x[1:], None, None][:2])
    return x[0].clamp(low, high)


def _batch_norm(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    data, scale, bias, mean, variance = x
    shape = [-1] + [1] * (data.dim() - 2)
    factor = scale / torch.sqrt(variance + a.get("epsilon", 1e-5))
    return (data - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)


def _layer_norm(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    shape = x[0].shape[a.get("axis", -1) :]
    scale, bias = x[1], x[2] if len(x) > 2 else None
    return functional.layer_norm(x[0], shape, scale, bias, a.get("epsilon", 1e-5))


def _gemm(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    left, right = x[0].T if a.get("transA") else x[0], x[1].T if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * x[2] if len(x) > 2 else product


def _cast(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    if a["to"] in FLOATS:
        return x[0].to(torch.get_default_dtype())
    return x[0].to(torch.from_numpy(np.zeros(0, helper.tensor_dtype_to_np_dtype(a["to"]))).dtype)


def _gather(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    data, axis = x[0], a.get("axis", 0) % x[0].dim()
    indices = x[1] % data.shape[axis]
    shape = [*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]]
    return data.index_select(axis, indices.reshape(-1)).reshape(shape)


def _resize(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    if a.get("mode", b"nearest") != b"nearest" or a["coordinate_transformation_mode"] != b"asymmetric":
        raise NotImplementedError(a)
    for axis, scale in enumerate(x[2]):
        x = [x[0].repeat_interleave(int(scale), axis), *x[1:]]
    return x[0]


def _pad(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    pads, mode = x[1].tolist(), a.get("mode", b"constant").decode()
    if mode == "constant":
        return functional.pad(x[0], _pads(pads))
    data, half = x[0], len(pads) // 2
    for axis, size in enumerate(x[0].shape):
        places = np.pad(np.arange(size), (pads[axis], pads[axis + half]), mode=mode)
        data = data.index_select(axis, torch.from_numpy(places))
    return data


def _dequantize(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    data, scale = x[0].to(x[1].dtype), x[1]
    zero = x[2].to(x[1].dtype) if len(x) > 2 else torch.zeros_like(scale)
    axis, block = a.get("axis", 1), a.get("block_size", 0)
    if block:
        scale, zero = (each.repeat_interleave(block, axis) for each in (scale, zero))
    elif scale.dim() == 1:
        shape = [-1 if each == axis % data.dim() else 1 for each in range(data.dim())]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (data - zero) * scale


def _constant_of_shape(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    value = _tensor(numpy_helper.to_array(a["value"])) if "value" in a else torch.zeros(1)
    return value.expand(x[0].tolist()) if len(x[0]) else value[0]


def _triangle(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    return (torch.triu if a.get("upper", 1) else torch.tril)(x[0], int(x[1]) if len(x) > 1 else 0)


def _global_max(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    return x[0].amax(tuple(range(2, x[0].dim())), keepdim=True)


def _global_average(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    return x[0].mean(tuple(range(2, x[0].dim())), keepdim=True)


def _hard_sigmoid(x: list[Tensor], a: dict[str, Any], _: int) -> Tensor:
    return (a.get("alpha", 0.2) * x[0] + a.get("beta", 0.5)).clamp(0, 1)


OPS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda x, a, _: x[0] + x[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda x, a, _: torch.cat(x, a["axis"]),
    "Constant": lambda x, a, _: _tensor(numpy_helper.to_array(a["value"])),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": lambda x, a, _: torch.cos(x[0]),
    "DequantizeLinear": _dequantize,
    "Div": lambda x, a, _: x[0] / x[1] if x[0].is_floating_point() else x[0] // x[1],
    "Equal": lambda x, a, _: x[0] == x[1],
    "Erf": lambda x, a, _: torch.erf(x[0]),
    "Exp": lambda x, a, _: torch.exp(x[0]),
    "Expand": lambda x, a, _: x[0].expand(torch.broadcast_shapes(x[0].shape, tuple(x[1].tolist()))),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda x, a, _: x[0],
    "LayerNormalization": _layer_norm,
    "Log": lambda x, a, _: torch.log(x[0]),
    "MatMul": lambda x, a, _: x[0] @ x[1],
    "Max": lambda x, a, _: torch.maximum(x[0], x[1]),
    "MaxPool": _max_pool,
    "Mul": lambda x, a, _: x[0] * x[1],
    "Neg": lambda x, a, _: -x[0],
    "Pad": _pad,
    "Pow": lambda x, a, _: x[0] ** x[1],
    "Range": lambda x, a, _: torch.arange(*(each.item() for each in x)),
    "Reciprocal": lambda x, a, _: 1 / x[0],
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Relu": lambda x, a, _: torch.relu(x[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda x, a, _: torch.tensor(x[0].shape[a.get("start", 0) : a.get("end")], dtype=torch.int64),
    "Sigmoid": lambda x, a, _: torch.sigmoid(x[0]),
    "Sin": lambda x, a, _: torch.sin(x[0]),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": lambda x, a, _: torch.sqrt(x[0]),
    "Squeeze": _squeeze,
    "Sub": lambda x, a, _: x[0] - x[1],
    "Tanh": lambda x, a, _: torch.tanh(x[0]),
    "Transpose": lambda x, a, _: x[0].permute(a.get("perm", list(reversed(range(x[0].dim()))))),
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
    "Where": lambda x, a, _: torch.where(x[0], x[1], x[2]),
}
