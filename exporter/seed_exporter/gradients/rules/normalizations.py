"""Normalizations over the batch's stored statistics, layers, groups, channels, and by norms.

Source: Ioffe and Szegedy, "Batch normalization" (arXiv 1502.03167), and Ba et al., "Layer normalization" (1607.06450).
"""

from __future__ import annotations

from collections.abc import Sequence

from seed_exporter.gradients.registry import Call, rule


def centred(c: Call, x: str, axes: str, epsilon: float) -> tuple[str, str]:
    """Return a tensor at mean 0 and variance 1 along axes, and the factor that scaled it."""
    e = c.emit
    rest = e("Sub", x, e("ReduceMean", x, axes, keepdims=1))
    return scaled(c, rest, axes, epsilon)


def scaled(c: Call, x: str, axes: str, epsilon: float) -> tuple[str, str]:
    """Return a tensor at mean square 1 along axes, and the factor that scaled it."""
    e = c.emit
    square = e("ReduceMean", e("Mul", x, x), axes, keepdims=1)
    factor = e("Reciprocal", e("Sqrt", e("Add", square, c.scalar(epsilon))))
    return e("Mul", x, factor), factor


def centred_gradient(c: Call, gradient: str, normal: str, factor: str, axes: str) -> str:
    """Return the input's gradient from that of the tensor that `centred` returned."""
    mean = c.emit("ReduceMean", gradient, axes, keepdims=1)
    return scaled_gradient(c, c.emit("Sub", gradient, mean), normal, factor, axes, of=gradient)


def scaled_gradient(c: Call, rest: str, normal: str, factor: str, axes: str, of: str = "") -> str:
    """Return the input's gradient from that of the tensor that `scaled` returned."""
    e = c.emit
    along = e("ReduceMean", e("Mul", of or rest, normal), axes, keepdims=1)
    return e("Mul", factor, e("Sub", rest, e("Mul", normal, along)))


def _per_channel(c: Call, name: str) -> str:
    """Return a vector with one value a channel so that it is broadcast along the first input's second axis."""
    axes = range(1, c.rank(c.x) - 1)
    return c.emit("Unsqueeze", name, c.emit.integers(axes)) if axes else name


def _sum_by_channel(c: Call, name: str) -> str:
    axes = [axis for axis in range(c.rank(c.x)) if axis != 1]
    return c.emit("ReduceSum", name, c.emit.integers(axes), keepdims=0)


@rule("BatchNormalization")
def _batch_normalization(c: Call) -> Sequence[str | None]:
    if c.attribute("training_mode", 0):
        c.refuse("training mode, whose statistics come from the batch")
    e, (x, scale, _, mean, variance) = c.emit, c.node.input
    stable = e("Add", variance, e.scalar(c.attribute("epsilon", 1e-5), e.code(variance)))
    factor = e("Reciprocal", e("Sqrt", stable))
    slope = e("Mul", scale, factor)
    found: list[str | None] = [None] * 5
    if 0 in c.wanted:
        found[0] = e("Mul", c.gradient, _per_channel(c, slope))
    if c.wanted & {2, 3}:
        found[2] = _sum_by_channel(c, c.gradient)
    if c.wanted & {1, 4}:
        normal = e("Mul", e("Sub", x, _per_channel(c, mean)), _per_channel(c, factor))
        found[1] = _sum_by_channel(c, e("Mul", c.gradient, normal))
    if 3 in c.wanted:
        found[3] = e("Neg", e("Mul", found[2] or "", slope))
    if 4 in c.wanted:
        half = e("Mul", e("Mul", slope, factor), c.scalar(-0.5))
        found[4] = e("Mul", found[1] or "", half)
    return found


@rule("InstanceNormalization")
def _instance_normalization(c: Call) -> Sequence[str | None]:
    e = c.emit
    axes = e.integers(range(2, c.rank(c.x)))
    normal, factor = centred(c, c.x, axes, c.attribute("epsilon", 1e-5))
    inner = e("Mul", c.gradient, _per_channel(c, c.input(1)))
    return [
        centred_gradient(c, inner, normal, factor, axes) if 0 in c.wanted else None,
        _sum_by_channel(c, e("Mul", c.gradient, normal)) if 1 in c.wanted else None,
        _sum_by_channel(c, c.gradient) if 2 in c.wanted else None,
    ]


@rule("GroupNormalization")
def _group_normalization(c: Call) -> Sequence[str | None]:
    if c.opset < 21:
        c.refuse("opset 18 to 20, where scales are those of groups")
    e, split = c.emit, c.emit.integers([0, c.attribute("num_groups"), -1])
    axes, shape = e.integers([2]), e.shape_vector(c.x)
    normal, factor = centred(c, e("Reshape", c.x, split), axes, c.attribute("epsilon", 1e-5))
    inner = e("Reshape", e("Mul", c.gradient, _per_channel(c, c.input(1))), split)
    by_channel = e("Mul", c.gradient, e("Reshape", normal, shape))
    return [
        e("Reshape", centred_gradient(c, inner, normal, factor, axes), shape) if 0 in c.wanted else None,
        _sum_by_channel(c, by_channel) if 1 in c.wanted else None,
        _sum_by_channel(c, c.gradient) if 2 in c.wanted else None,
    ]


def trailing_axes(c: Call) -> str:
    """Return the axes from a node's `axis` on."""
    axis = c.attribute("axis", -1)
    return c.emit.integers(range(axis, 0) if axis < 0 else range(axis, c.rank(c.x)))


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_normalization(c: Call) -> Sequence[str | None]:
    is_centred = c.node.op_type == "LayerNormalization"
    forward, backward = (centred, centred_gradient) if is_centred else (scaled, scaled_gradient)
    e, axes = c.emit, trailing_axes(c)
    normal, factor = forward(c, c.x, axes, c.attribute("epsilon", 1e-5))
    inner = e("Mul", c.gradient, c.input(1))
    return [
        backward(c, inner, normal, factor, axes) if 0 in c.wanted else None,
        c.reduced(e("Mul", c.gradient, normal), 1) if 1 in c.wanted else None,
        c.reduced(c.gradient, 2),
    ]


@rule("LpNormalization")
def _lp_normalization(c: Call) -> Sequence[str | None]:
    e, axes, order = c.emit, c.emit.integers([c.attribute("axis", -1)]), c.attribute("p", 2)
    norm = e("ReduceL1" if order == 1 else "ReduceL2", c.x, axes, keepdims=1)
    along = e("ReduceSum", e("Mul", c.gradient, c.y), axes, keepdims=1)
    back = e("Mul", e("Sign", c.x) if order == 1 else c.y, along)
    return [e("Div", e("Sub", c.gradient, back), norm)]


@rule("MeanVarianceNormalization")
def _mean_variance_normalization(c: Call) -> Sequence[str | None]:
    axes = c.emit.integers(c.attribute("axes", [0, 2, 3]))
    normal, factor = centred(c, c.x, axes, 0)
    return [centred_gradient(c, c.gradient, normal, factor, axes)]


@rule("LRN")
def _local_response(c: Call) -> Sequence[str | None]:
    """Divide by a power of the squares of some channels; a channel is among those of its neighbours as well."""
    e, size, beta = c.emit, c.attribute("size"), c.attribute("beta", 0.75)
    share = c.attribute("alpha", 1e-4) / size
    base = e(
        "Add",
        e("Mul", _channel_sums(c, e("Mul", c.x, c.x), (size - 1) // 2), c.scalar(share)),
        c.scalar(c.attribute("bias", 1.0)),
    )
    factor = e("Pow", base, c.scalar(-beta))
    scaled_back = e("Div", e("Mul", e("Mul", c.gradient, c.x), factor), base)
    others = _channel_sums(c, scaled_back, size - 1 - (size - 1) // 2)
    return [e("Sub", e("Mul", c.gradient, factor), e("Mul", e("Mul", c.x, others), c.scalar(2 * share * beta)))]


def _channel_sums(c: Call, name: str, before: int) -> str:
    """Return for each channel the sum over `size` channels that begin `before` channels earlier."""
    e, size, rest = c.emit, c.attribute("size"), [0] * (c.rank(c.x) - 2)
    pads = [before, *rest, size - 1 - before, *rest]
    image = e("Unsqueeze", name, e.integers([1]))
    kernel = [size, *(1 for _ in rest)]
    means = e("AveragePool", image, kernel_shape=kernel, pads=pads, count_include_pad=1)
    return e("Mul", e("Squeeze", means, e.integers([1])), c.scalar(size))
