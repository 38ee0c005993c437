"""Convolutions and transposed ones, in groups, with strides, pads and dilations, in any number of dimensions.

Each is the other's gradient. The gradient of a kernel is a convolution too: of the input with the output's gradient as
the kernel, batch and channels swapped, strides and dilations swapped.
Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (arXiv 1603.07285).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seed_exporter.gradients.emitter import Size
from seed_exporter.gradients.registry import Call, rule


@dataclass(frozen=True)
class Window:
    """How a kernel moves over a tensor; one number for each spatial axis.

    Attributes:
        kernel: sizes of the kernel.
        strides: steps between two positions.
        dilations: steps between two elements of the kernel.
        begins: pads before the tensor.
        ends: pads behind it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def pads(self) -> list[int]:
        """Pads as attributes hold them."""
        return [*self.begins, *self.ends]

    @property
    def extents(self) -> list[int]:
        """Sizes of the kernel with its dilations."""
        return [dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]

    @property
    def steps_by_one(self) -> bool:
        """Whether all strides are 1."""
        return all(stride == 1 for stride in self.strides)


def window_of(c: Call, kernel: Sequence[int | str | None], name: str) -> Window:
    """Return how a node's kernel moves over its tensor.

    Args:
        c: the call.
        kernel: sizes of the kernel.
        name: the tensor that it moves over.
    """
    sizes = tuple(size for size in kernel if isinstance(size, int))
    if len(sizes) < len(kernel):
        c.refuse("a kernel of unknown size")
    ones = (1,) * len(sizes)
    strides, dilations = tuple(c.attribute("strides", ones)), tuple(c.attribute("dilations", ones))
    auto, pads = c.attribute("auto_pad", "NOTSET"), tuple(c.attribute("pads", (0,) * 2 * len(sizes)))
    if auto == "VALID":
        pads = (0,) * 2 * len(sizes)
    window = Window(sizes, strides, dilations, pads[: len(sizes)], pads[len(sizes) :])
    if not auto.startswith("SAME"):
        return window
    totals = []
    for size, stride, extent in zip(c.shape(name)[2:], strides, window.extents, strict=True):
        if isinstance(size, int):
            totals.append(max((-(-size // stride) - 1) * stride + extent - size, 0))
        elif stride == 1:
            totals.append(extent - 1)
        else:
            c.refuse(f"auto_pad {auto} with strides over axes of unknown size")
    less, more = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return Window(sizes, strides, dilations, *((less, more) if auto == "SAME_UPPER" else (more, less)))


def rests(c: Call, window: Window, name: str) -> list[int] | None:
    """Return how many elements of a padded tensor no position of the window reaches; None where it isn't known."""
    if window.steps_by_one:
        return [0] * len(window.kernel)
    sizes = [size for size in c.shape(name)[2:] if isinstance(size, int)]
    if len(sizes) < len(window.kernel):
        return None
    padded = [sum(each) for each in zip(sizes, window.begins, window.ends, strict=True)]
    parts = zip(padded, window.extents, window.strides, strict=True)
    return [(size - extent) % stride for size, extent, stride in parts]


def spread(c: Call, gradient: str, kernel: str, window: Window, group: int, name: str) -> str:
    """Carry gradients at the window's positions back to the tensor that it moved over.

    Args:
        c: the call.
        gradient: gradients by position.
        kernel: the kernel.
        window: how it moved.
        group: number of groups.
        name: the value of the graph that it moved over.
    """
    e, spatial = c.emit, len(window.kernel)
    attributes: dict[str, Any] = {"strides": window.strides, "dilations": window.dilations, "group": group}
    left = rests(c, window, name)
    if left is not None:
        if any(left):
            attributes["output_padding"] = left
        return e("ConvTranspose", gradient, kernel, **attributes, pads=window.pads)
    # Pads of both signs cut the full result to the tensor's size.
    full = e("ConvTranspose", gradient, kernel, **attributes)
    axes = e.integers(range(2, 2 + spatial))
    missing = e("Sub", e("Gather", e("Shape", name), axes), e("Gather", e("Shape", full), axes))
    begins = e.integers(-begin for begin in window.begins)
    return e("Pad", full, e("Concat", begins, e("Sub", missing, begins), axis=0), "", axes)


def kernel_gradient(c: Call, tensor: str, gradient: str, window: Window, group: int, names: tuple[str, str]) -> str:
    """Return the gradient of a kernel `(out, in / group, ...)`.

    Args:
        c: the call.
        tensor: what the kernel moved over, `(N, in, ...)`.
        gradient: gradients at its positions, `(N, out, ...)`.
        window: how it moved.
        group: number of groups.
        names: the values of the graph that have the shapes of `tensor` and `gradient`.
    """
    e, spatial = c.emit, len(window.kernel)
    plain = window.steps_by_one and not any(window.pads) and group == 1
    if plain and all(size == 1 for size in window.kernel):
        flat = e.integers([0, 0, -1])
        columns = e("Transpose", e("Reshape", tensor, flat), perm=[0, 2, 1])
        product = e("ReduceSum", e("MatMul", e("Reshape", gradient, flat), columns), e.integers([0]), keepdims=0)
        return e("Unsqueeze", product, e.integers(range(2, 2 + spatial)))
    rest = range(2, 2 + spatial)
    if group == 1:
        source = e("Transpose", tensor, perm=[1, 0, *rest])
    else:
        # The kernel's second axis, for either operator.
        inner = e.size(c.input(1), 1)
        sizes: list[Size] = [e.size(names[0], axis) for axis in rest]
        source = e("Reshape", tensor, e.vector([0, group, inner, *sizes]))
        source = e("Transpose", source, perm=[2, 1, 0, *range(3, 3 + spatial)])
        source = e("Reshape", source, e.vector([inner, -1, *sizes]))
    moved = e("Transpose", gradient, perm=[1, 0, *rest])
    found = e(
        "Conv",
        source,
        moved,
        strides=window.dilations,
        dilations=window.strides,
        pads=window.pads,
        group=group,
    )
    if any(rests(c, window, names[0]) or [not window.steps_by_one]):
        axes = e.integers(rest)
        found = e("Slice", found, e.integers([0] * spatial), e.integers(window.kernel), axes)
    return e("Transpose", found, perm=[1, 0, *rest])


def _bias_gradient(c: Call) -> str | None:
    if 2 not in c.wanted:
        return None
    axes = [0, *range(2, c.rank(c.input(1)))]
    return c.emit("ReduceSum", c.gradient, c.emit.integers(axes), keepdims=0)


@rule("Conv")
def _conv(c: Call) -> Sequence[str | None]:
    x, kernel = c.node.input[:2]
    window, group = window_of(c, c.shape(kernel)[2:], x), c.attribute("group", 1)
    return [
        spread(c, c.gradient, kernel, window, group, x) if 0 in c.wanted else None,
        kernel_gradient(c, x, c.gradient, window, group, (x, c.y)) if 1 in c.wanted else None,
        _bias_gradient(c),
    ]


@rule("ConvTranspose")
def _conv_transpose(c: Call) -> Sequence[str | None]:
    e, (x, kernel) = c.emit, c.node.input[:2]
    if c.attribute("output_shape") or c.attribute("auto_pad", "NOTSET").startswith("SAME"):
        c.refuse("pads that follow from the output's shape")
    window, group = window_of(c, c.shape(kernel)[2:], c.y), c.attribute("group", 1)
    added = c.attribute("output_padding", [0] * len(window.kernel))
    if any(more >= stride for more, stride in zip(added, window.strides, strict=True)):
        c.refuse("an output_padding of a stride or more")
    back = {"strides": window.strides, "dilations": window.dilations, "pads": window.pads, "group": group}
    return [
        e("Conv", c.gradient, kernel, **back) if 0 in c.wanted else None,
        kernel_gradient(c, c.gradient, x, window, group, (c.y, x)) if 1 in c.wanted else None,
        _bias_gradient(c),
    ]
