"""The golden sample: an input that any machine can make, and the outputs of the model where it was exported.

It shows whether a device computes what the exporter saw (SPEC.md, section GOLDEN). Inputs are recipes for the
generator, or bytes; of each output, a few values at fixed places and the norm are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime import generator
from seed_runtime.backends import Array, Runner, TensorSpec
from seed_runtime.backends.values import ANY
from seed_runtime.backends.workers import Watch, time_limit
from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.format import primitives
from seed_runtime.format.dtypes import BY_CODE, STRING, DType
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import GOLDEN_ELEMENTS_MAX, RANK_MAX
from seed_runtime.skeletons import ValueInfo

VALUES_MAX: Final = 64
"""Largest number of values of one output."""
REPLACED_VALUES_MAX: Final = 16
"""Largest number of values of one output in the sample of other weights: such seeds are small."""
RUN_S: Final = 600.0
"""Longest time that the sample may run [s]: a graph can be made to loop for ever."""
SUPPLIED: Final = 255
"""The kind of an input whose bytes stand in the seed."""
OUTLIER: Final = 2.0**100
"""Magnitude from which an element is no part of the norm: masks, such as the lowest float, would hide all others."""
REPLACED_TOLERANCE: Final = 2e-5
"""Least tolerance in the sample of other weights, as a share of the output's root mean square."""
_RELATIVE: Final = 2.0**-20
"""Share of itself by which a value or a norm may differ: some units in the last place of the float32 that is stored."""
_NOT_COMPARED, _VALUES, _TEXT = 0, 1, 2
"""Kinds of outputs."""
_TEXT_DIGEST: Final = 8
"""Size of the digest of an output of text [B]."""
_TENSORS_MAX: Final = 64
"""Largest number of inputs, and of outputs."""


@dataclass(frozen=True)
class Recipe:
    """One input: the numbers that `generator.fill` makes of `kind`, `a` and `b`, or the bytes in `data`."""

    kind: int
    dtype: DType
    dims: tuple[int, ...]
    a: float = 0.0
    b: float = 1.0
    data: bytes = b""

    def array(self, rng_seed: int) -> Array:
        """Return the input: generated from `rng_seed`, or the bytes that stand in the seed."""
        if self.dtype is STRING:
            return _texts(Cursor(self.data, "header, GOLDEN"), prod(self.dims)).reshape(self.dims)
        if self.kind == SUPPLIED:
            supplied: Array = np.frombuffer(self.data, self.dtype.storage).reshape(self.dims)
            return supplied != 0 if self.dtype.name == "bool" else supplied
        if self.dtype.name == "bool":
            values: Array = generator.fill(self.kind, rng_seed, prod(self.dims), self.a, self.b) != 0
            return values.reshape(self.dims)
        out = np.empty(prod(self.dims), self.dtype.storage)
        generator.fill_into(out, self.kind, rng_seed, self.a, self.b)
        return out.reshape(self.dims)


@dataclass(frozen=True)
class Expected:
    """One output: `size` elements, of which `values` stand at floor(i * size / len(values))."""

    size: int
    tolerance: float
    """Largest absolute difference of a value; the norm's largest difference is this times sqrt(size)."""
    norm: float
    """Norm of the elements below OUTLIER in magnitude."""
    values: npt.NDArray[np.float32]
    outliers: int = 0
    """Number of elements that are no part of the norm."""


@dataclass(frozen=True)
class ExpectedText:
    """One output of text: `size` elements, and the digest of them all."""

    size: int
    digest: bytes


@dataclass(frozen=True)
class Verdict:
    """Result of comparing a device's outputs with the sample."""

    present: bool
    """True if the seed holds a sample, and an output of it was compared."""
    ok: bool
    """True if every difference is within its tolerance."""
    worst: float = 0.0
    """The largest difference as a multiple of its tolerance, up to 1 where it is `ok`."""
    output: str = ""
    """The output in which `worst` was found."""
    skipped: tuple[str, ...] = ()
    """Outputs that were not compared, because noise or rounding decides them."""

    @property
    def problem(self) -> str:
        """Message for a sample that isn't `ok`."""
        far = f"differs by {self.worst:.3g} times its tolerance" if isfinite(self.worst) else "is another one"
        return (
            f"all digests are right, but output {self.output!r} of the golden sample {far}; "
            f"update the library that runs it: pip install -U onnxruntime"
        )


@dataclass(frozen=True)
class Golden:
    """The whole sample. Input i draws from `rng_seed` + i."""

    rng_seed: int
    inputs: tuple[Recipe, ...]
    """Recipes of the inputs, in the order of the model's inputs."""
    outputs: tuple[Expected | ExpectedText | None, ...]
    """None for an output that is not compared, because noise or rounding decides it."""

    def pack(self) -> bytes:
        """Return the payload of section GOLDEN."""
        out = [primitives.varint(self.rng_seed), primitives.varint(len(self.inputs))]
        for recipe in self.inputs:
            out += [
                primitives.uint(recipe.kind, 1),
                primitives.uint(recipe.dtype.code, 1),
                primitives.varint(len(recipe.dims)),
            ]
            out += [primitives.varint(dim) for dim in recipe.dims]
            out += [recipe.data] if recipe.kind == SUPPLIED else [primitives.f32(recipe.a), primitives.f32(recipe.b)]
        out.append(primitives.varint(len(self.outputs)))
        for output in self.outputs:
            out.append(_pack_output(output))
        return b"".join(out)

    @classmethod
    def unpack(cls, data: bytes) -> Golden:
        """Read the payload of section GOLDEN.

        Raises:
            FormatError: it is anything that `pack` would not write.
        """
        cursor = Cursor(data, "header, GOLDEN")
        rng_seed = cursor.varint("seed", limit=(1 << 63) - 1)
        inputs = tuple(_recipe(cursor) for _ in range(cursor.varint("inputs", limit=_TENSORS_MAX)))
        if (elements := sum(prod(recipe.dims) for recipe in inputs)) > GOLDEN_ELEMENTS_MAX:
            raise LimitError(f"{cursor.where}: elements of all inputs", elements, GOLDEN_ELEMENTS_MAX)
        outputs = tuple(_expected(cursor) for _ in range(cursor.varint("outputs", limit=_TENSORS_MAX)))
        cursor.end()
        return cls(rng_seed, inputs, outputs)

    def check(self, inputs: Sequence[ValueInfo]) -> None:
        """Raise FormatError unless its inputs have the types and shapes of the skeleton's inputs without defaults."""
        for recipe, value in zip(self.inputs, inputs, strict=False):
            dims = recipe.dims if value.dims is None else value.dims
            stated = [(want, size) for want, size in zip(dims, recipe.dims, strict=False) if isinstance(want, int)]
            if (
                recipe.dtype.code != value.elem_type
                or len(dims) != len(recipe.dims)
                or any(want != size for want, size in stated)
            ):
                raise FormatError("header, GOLDEN", f"its inputs are not the model's: {value.name[:80]!r} differs")
        if len(self.inputs) != len(inputs):
            raise FormatError("header, GOLDEN", f"it has {len(self.inputs)} inputs, the model {len(inputs)}")

    def shapes(self, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
        """Return arrays of the inputs' shapes and types that take no memory, for plans.

        Raises:
            FormatError: the sample has not as many inputs as the model.
        """
        self._check_count(specs)
        return {
            spec.name: np.broadcast_to(np.empty((), recipe.dtype.storage), recipe.dims)
            for spec, recipe in zip(specs, self.inputs, strict=True)
        }

    def feeds(self, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
        """Return the inputs by name; each draws from a sequence of its own.

        Raises:
            FormatError: the sample has not as many inputs as the model.
        """
        self._check_count(specs)
        return {
            spec.name: recipe.array(self.rng_seed + index)
            for index, (spec, recipe) in enumerate(zip(specs, self.inputs, strict=True))
        }

    def _check_count(self, specs: tuple[TensorSpec, ...]) -> None:
        if len(self.inputs) != len(specs):
            raise FormatError("header, GOLDEN", f"it has {len(self.inputs)} inputs, the model {len(specs)}")


def sample(output: Array, count: int, tolerance: float = 0.0) -> Expected:
    """Describe an output of numbers: at most `count` values at floor(i * size / count), and the norm."""
    flat = output.reshape(-1).astype(np.float64)
    count = min(count, flat.size)
    places = np.arange(count, dtype=np.int64) * flat.size // max(count, 1)
    with np.errstate(over="ignore"):
        values = flat[places].astype(np.float32)
    # In place: an output may have millions of elements.
    outliers = ~(np.abs(flat, out=flat) < OUTLIER)
    flat[outliers] = 0
    norm = float(np.sqrt(np.square(flat, out=flat).sum()))
    return Expected(flat.size, tolerance, norm, values, int(np.count_nonzero(outliers)))


def with_outputs(golden: Golden, outputs: Sequence[Array]) -> Golden | None:
    """Return the sample of the same graph with other weights.

    Tolerances grow with the outputs: what they cover is how far sums are apart that are added in another order. Where
    the first weights gave 0, which tells nothing of that, they are REPLACED_TOLERANCE of the outputs.

    Args:
        golden: of the weights that it was made with.
        outputs: all outputs for its inputs, in the model's order.

    Returns:
        The sample; None where there are not as many outputs as it has.
    """
    if len(outputs) != len(golden.outputs):
        return None
    pairs = zip(golden.outputs, outputs, strict=True)
    return replace(golden, outputs=tuple(_with_output(expected, output) for expected, output in pairs))


def _with_output(expected: Expected | ExpectedText | None, output: Array) -> Expected | ExpectedText | None:
    if expected is None or (output.dtype.kind == "O") is not isinstance(expected, ExpectedText):
        return None
    if isinstance(expected, ExpectedText):
        return sample_text(output)
    found = sample(output, min(len(expected.values), REPLACED_VALUES_MAX))
    growth = max(1.0, found.norm / expected.norm) if expected.norm > 0 else 1.0
    if found.size != expected.size or not isfinite(found.norm):
        return None
    least = REPLACED_TOLERANCE * found.norm / max(1, found.size) ** 0.5 if output.dtype.kind == "f" else 0.0
    return replace(found, tolerance=min(max(expected.tolerance * growth, least), float(np.finfo(np.float32).max)))


def sample_text(output: Array) -> ExpectedText:
    """Describe an output of text."""
    digest = hashlib.sha256()
    for text in output.reshape(-1):
        raw = str(text).encode()
        digest.update(primitives.varint(len(raw)) + raw)
    return ExpectedText(output.size, digest.digest()[:_TEXT_DIGEST])


def verify(section: bytes | None, runner: Runner, watch: Watch | None = None) -> Verdict:
    """Run the sample and compare.

    Args:
        section: payload of section GOLDEN, None where the seed holds none.
        runner: the open model.
        watch: called about once a second meanwhile.

    Raises:
        FormatError: the sample can't be read, or is not of this model.
        UnsupportedError: it runs for longer than RUN_S.
    """
    if section is None:
        return Verdict(present=False, ok=True)
    golden = Golden.unpack(section)
    try:
        outputs = runner.run(golden.feeds(runner.inputs), watch=time_limit(RUN_S, "its golden sample runs", watch))
    except InputError:
        raise FormatError("header, GOLDEN", "its inputs are not the model's") from None
    if len(outputs) != len(golden.outputs):
        for spec in runner.outputs:
            if spec.name.endswith(ANY):
                return Verdict(True, False, float("inf"), spec.name)
        raise FormatError("header, GOLDEN", f"it has {len(golden.outputs)} outputs, the model {len(outputs)}")
    worst, where = 0.0, ""
    skipped = []
    for (name, output), expected in zip(outputs.items(), golden.outputs, strict=True):
        if expected is None:
            skipped.append(name)
            continue
        distance = _distance(output, expected)
        if not distance <= worst:
            worst, where = distance, name
    return Verdict(len(skipped) < len(outputs), worst <= 1.0, worst, where, tuple(skipped))


def _distance(output: Array, expected: Expected | ExpectedText) -> float:
    """Return the largest difference as a multiple of what is allowed."""
    if isinstance(expected, ExpectedText):
        return 0.0 if output.dtype.kind == "O" and sample_text(output) == expected else float("inf")
    if output.size != expected.size or output.dtype.kind not in "biuf":
        return float("inf")
    found = sample(output, len(expected.values))
    if found.outliers != expected.outliers:
        return float("inf")
    values = found.values
    tolerance = max(expected.tolerance, float(np.finfo(np.float32).tiny))
    equal = (values == expected.values) | (np.isnan(values) & np.isnan(expected.values))
    with np.errstate(invalid="ignore"):
        # Where one is infinite or NaN and the other isn't, this is NaN, or infinite.
        gaps = np.abs(values.astype(np.float64) - expected.values)
        gaps /= np.maximum(tolerance, _RELATIVE * np.abs(expected.values.astype(np.float64)))
    gaps = np.where(equal, 0, np.where(np.isfinite(gaps), gaps, np.inf))
    allowed = max(tolerance * max(1.0, expected.size) ** 0.5, _RELATIVE * expected.norm)
    return float(max(np.max(gaps, initial=0), abs(float(np.float32(found.norm)) - expected.norm) / allowed))


def _recipe(cursor: Cursor) -> Recipe:
    kind, code = cursor.uint(1, "kind of input"), cursor.uint(1, "dtype of input")
    dtype = STRING if code == STRING.code and kind == SUPPLIED else BY_CODE.get(code)
    if (kind != SUPPLIED and kind not in generator.KINDS) or dtype is None or dtype.bits < 8:
        raise FormatError(cursor.where, f"an input of kind {kind} and dtype {code} is unknown")
    dims = []
    for _ in range(cursor.varint("rank", limit=RANK_MAX)):
        dims.append(cursor.varint("dimension", limit=GOLDEN_ELEMENTS_MAX))
        # An axis of 0 counts as 1: NumPy multiplies the others as well.
        if (elements := prod(max(dim, 1) for dim in dims)) > GOLDEN_ELEMENTS_MAX:
            raise LimitError(f"{cursor.where}: elements of an input", elements, GOLDEN_ELEMENTS_MAX)
    if dtype is STRING:
        return Recipe(kind, dtype, tuple(dims), data=pack_texts(_texts(cursor, prod(dims))))
    if kind == SUPPLIED:
        return Recipe(kind, dtype, tuple(dims), data=bytes(cursor.take(dtype.size(prod(dims)), "input")))
    a, b = cursor.f32("a"), cursor.f32("b")
    if not generator.valid(kind, a, b) or not _suits(dtype, kind, a, b):
        raise FormatError(cursor.where, f"an input of kind {kind} from {a} to {b} can't be made")
    return Recipe(kind, dtype, tuple(dims), a, b)


def _texts(cursor: Cursor, count: int) -> Array:
    """Read that many texts."""
    # Each takes a byte at least, so that a number that is only claimed takes no memory.
    texts = [cursor.string("text of an input") for _ in range(count)]
    out: Array = np.empty(count, object)
    out[:] = texts
    return out


def pack_texts(array: Array) -> bytes:
    """Return the bytes of an input of text in a recipe; ValueError for a text that no seed can hold."""
    return b"".join(primitives.string(str(text)) for text in array.reshape(-1))


def _suits(dtype: DType, kind: int, a: float, b: float) -> bool:
    """Return whether every machine converts the generator's numbers to `dtype` alike: overflows differ."""
    if kind == generator.INTEGERS:
        if not dtype.name.startswith(("int", "uint", "bool")):
            return False
        info = np.iinfo(dtype.storage.str)
        return a.is_integer() and b.is_integer() and info.min <= int(a) and int(b) <= int(info.max) + 1
    return kind == generator.ZEROS or dtype.name in ("float16", "float32", "float64")


def _pack_output(output: Expected | ExpectedText | None) -> bytes:
    if output is None:
        return primitives.uint(_NOT_COMPARED, 1)
    if isinstance(output, ExpectedText):
        return primitives.uint(_TEXT, 1) + primitives.varint(output.size) + output.digest
    out = [primitives.uint(_VALUES, 1), primitives.varint(output.size), primitives.f32(output.tolerance)]
    out += [primitives.f32(output.norm), primitives.varint(output.outliers), primitives.varint(len(output.values))]
    return b"".join([*out, output.values.astype("<f4").tobytes()])


def _expected(cursor: Cursor) -> Expected | ExpectedText | None:
    kind = cursor.uint(1, "kind of output")
    if kind == _NOT_COMPARED:
        return None
    if kind not in (_VALUES, _TEXT):
        raise FormatError(cursor.where, f"an output of kind {kind} is unknown")
    size = cursor.varint("elements of an output", limit=1 << 40)
    if kind == _TEXT:
        return ExpectedText(size, bytes(cursor.take(_TEXT_DIGEST, "digest of an output")))
    tolerance, norm = cursor.f32("tolerance"), cursor.f32("norm")
    if not 0 <= tolerance < float("inf"):
        raise FormatError(cursor.where, f"a tolerance of {tolerance} is not valid")
    if not 0 <= norm < float("inf"):
        raise FormatError(cursor.where, f"a norm of {norm} is not valid")
    outliers, count = cursor.varint("outliers", limit=1 << 40), cursor.varint("values", limit=VALUES_MAX)
    if outliers > size or count > size:
        raise FormatError(cursor.where, f"{count} values and {outliers} outliers of an output with {size}")
    values = np.frombuffer(cursor.take(4 * count, "values"), "<f4").copy()
    return Expected(size, tolerance, norm, values, outliers)
