"""Quantized weights: integers have no gradient, their scales do."""

from __future__ import annotations

from collections.abc import Sequence

from seed_exporter.gradients.registry import Call, rule


@rule("DequantizeLinear")
def _dequantize(c: Call) -> Sequence[str | None]:
    if 1 not in c.wanted:
        return []
    e, (x, scale) = c.emit, c.node.input[:2]
    rank, own = c.rank(x), c.rank(scale)
    axis = c.attribute("axis", 1) % rank if rank else 0
    block = c.attribute("block_size", 0)
    # y / scale is x without its zero point; a scale isn't 0.
    if own == 0 or c.shape(scale) == (1,):
        plain = e("Mul", c.gradient, e("Div", c.y, scale))
        return [None, e("Reshape", e("ReduceSum", plain, keepdims=0), e.shape_vector(scale))]
    if not block:
        trailing = range(1, rank - axis)
        wide = e("Unsqueeze", scale, e.integers(trailing)) if trailing else scale
        others = [each for each in range(rank) if each != axis]
        plain = e("Mul", c.gradient, e("Div", c.y, wide))
        return [None, e("ReduceSum", plain, e.integers(others), keepdims=0) if others else plain]
    sizes = [e.size(scale, each) for each in range(rank)]
    split = e.vector([*sizes[: axis + 1], block, *sizes[axis + 1 :]])
    blocks = [e("Reshape", each, split) for each in (c.gradient, c.y)]
    inner = e.integers([axis + 1])
    plain = e("Mul", blocks[0], e("Div", blocks[1], e("Unsqueeze", scale, inner)))
    return [None, e("ReduceSum", plain, inner, keepdims=0)]
