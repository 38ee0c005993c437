"""Products of matrices and of whole tensors."""

from __future__ import annotations

from collections.abc import Sequence

from seed_exporter.gradients.registry import Call, rule


def transposed(c: Call, name: str, rank: int) -> str:
    """Return a value with its last two axes swapped."""
    return c.emit("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


@rule("MatMul")
def _matmul(c: Call) -> Sequence[str | None]:
    e, (a, b), gradient = c.emit, c.node.input, c.gradient
    a_shape, b_shape = c.shape(a), c.shape(b)
    left, right, axes = a, b, []
    # A vector is a matrix of one row on the left, of one column on the right.
    if len(a_shape) == 1:
        left, a_shape, axes = e("Unsqueeze", a, e.integers([0])), (1, *a_shape), [-2]
    if len(b_shape) == 1:
        right, b_shape, axes = e("Unsqueeze", b, e.integers([1])), (*b_shape, 1), [*axes, -1]
    if axes:
        gradient = e("Unsqueeze", gradient, e.integers(axes))
    batch = c.emit.shape(c.y)
    rank = max(len(a_shape), len(b_shape))
    lead = None if batch is None else tuple(batch[: rank - 2])
    found: list[str | None] = [None, None]
    if 0 in c.wanted:
        back = e("MatMul", gradient, transposed(c, right, len(b_shape)))
        full = None if lead is None else (*lead, a_shape[-2], a_shape[-1])
        found[0] = _as_operand(c, back, full, a, vector=left != a)
    if 1 in c.wanted and len(b_shape) == 2 and len(a_shape) > 2:
        # One product over all rows instead of one a batch.
        rows, back = e("Flatten", left, axis=-1), e("Flatten", gradient, axis=-1)
        found[1] = _as_operand(c, e("Gemm", rows, back, transA=1), b_shape, b, vector=right != b)
    elif 1 in c.wanted:
        back = e("MatMul", transposed(c, left, len(a_shape)), gradient)
        full = None if lead is None else (*lead, b_shape[-2], b_shape[-1])
        found[1] = _as_operand(c, back, full, b, vector=right != b)
    return found


def _as_operand(c: Call, gradient: str, shape: Sequence[int | str | None] | None, name: str, *, vector: bool) -> str:
    if not vector:
        return c.emit.reduce_to(gradient, shape, name)
    batch = list(range(len(shape or ()) - 2))
    if shape is None:
        c.refuse("a vector times matrices of unknown shape")
    if batch:
        gradient = c.emit("ReduceSum", gradient, c.emit.integers(batch), keepdims=0)
    return c.emit("Reshape", gradient, c.emit.integers([-1]))


@rule("Gemm")
def _gemm(c: Call) -> Sequence[str | None]:
    e, (a, b), gradient = c.emit, c.node.input[:2], c.gradient
    alpha, beta = c.attribute("alpha", 1.0), c.attribute("beta", 1.0)
    trans_a, trans_b = c.attribute("transA", 0), c.attribute("transB", 0)
    found: list[str | None] = [None, None, None]
    if 0 in c.wanted and trans_a:
        found[0] = e("Gemm", b, gradient, transA=trans_b, transB=1, alpha=alpha)
    elif 0 in c.wanted:
        found[0] = e("Gemm", gradient, b, transB=1 - trans_b, alpha=alpha)
    if 1 in c.wanted and trans_b:
        found[1] = e("Gemm", gradient, a, transA=1, transB=trans_a, alpha=alpha)
    elif 1 in c.wanted:
        found[1] = e("Gemm", a, gradient, transA=1 - trans_a, alpha=alpha)
    if 2 in c.wanted:
        bias = c.reduced(gradient, 2) or gradient
        found[2] = bias if beta == 1 else e("Mul", bias, c.scalar(beta))
    return found


@rule("Einsum")
def _einsum(c: Call) -> Sequence[str | None]:
    equation = c.attribute("equation").replace(" ", "")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        c.refuse(f"the equation {equation!r}: an ellipsis, or a label twice in one term")
    if not arrow:
        output = "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
    return [_einsum_term(c, index, terms, output) if index in c.wanted else None for index in range(len(terms))]


def _einsum_term(c: Call, index: int, terms: Sequence[str], output: str) -> str:
    e, term = c.emit, terms[index]
    others = [(each, name) for at, (each, name) in enumerate(zip(terms, c.node.input, strict=True)) if at != index]
    present = set(output).union(*(each for each, _ in others))
    reached = "".join(label for label in term if label in present)
    equation = ",".join([output, *(each for each, _ in others)]) + "->" + reached
    gradient = e("Einsum", c.gradient, *(name for _, name in others), equation=equation)
    # Labels of this term alone were summed over.
    lost = [axis for axis, label in enumerate(term) if label not in present]
    if lost:
        gradient = e("Unsqueeze", gradient, e.integers(lost))
        gradient = e("Expand", gradient, e.shape_vector(c.node.input[index]))
    return gradient
