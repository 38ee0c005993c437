"""What a seed says of text generation: the field `generation` of its description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from seed_runtime.backends import TensorSpec
from seed_runtime.errors import FormatError, LimitError
from seed_runtime.limits import (
    PAST_BYTES_MAX,
    PROMPT_PART_MAX,
    STOP_TOKENS_MAX,
    TOKENS_MAX,
    VOCABULARY_MAX,
)
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.generation.sampling import PENALTY_MAX, TEMPERATURE_MAX, Sampling
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Specs

_WHERE: Final = "processing, generation"
_INTEGERS: Final = ("int32", "int64")
_FLOATS: Final = ("float16", "float32")
MAX_TOKENS: Final = 256
"""Longest answer where nothing says otherwise [token]."""


@dataclass(frozen=True)
class Past:
    """An input that gets the keys or the values of all tokens before, and the output that gives those of all."""

    source: str
    """Name of the output."""
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    """Shape for a single token."""
    axis: int
    """Axis of the tokens."""

    @property
    def token_bytes(self) -> int:
        """Memory of one token [B]."""
        return prod(self.shape) * self.dtype.itemsize

    def sized(self, length: int) -> tuple[int, ...]:
        """Return the shape for so many tokens."""
        return (*self.shape[: self.axis], length, *self.shape[self.axis + 1 :])


@dataclass(frozen=True)
class Generation:
    """How a model is asked for text, checked against its inputs and outputs."""

    ids: TensorSpec
    mask: TensorSpec | None
    """Input that is 1 for each token, past ones included; None where the model needs none."""
    positions: TensorSpec | None
    """Input of the positions of the new tokens; None where the model needs none."""
    scores: TensorSpec
    past: dict[str, Past]
    """By the names of inputs; empty for a model that sees the whole text each time."""
    in_place: bool
    """True if the model adds new tokens to the arrays of its past, and their length is that of the mask."""
    context: int
    """Most tokens of prompt and answer."""
    tokenizer: bytes | memoryview
    """A `tokenizer.json`."""
    before: str
    """Text in front of each prompt, with special tokens."""
    after: str
    stop: frozenset[int]
    """Tokens that end an answer."""
    sampling: Sampling
    max_tokens: int
    """Longest answer where the user doesn't say [token]."""

    @property
    def sets(self) -> int:
        """Number of sets of arrays in the cache: two where a run reads one and writes the other."""
        return 1 if self.in_place else 2

    @property
    def token_bytes(self) -> int:
        """Memory that a token takes in the cache [B]."""
        return self.sets * sum(past.token_bytes for past in self.past.values())


def read(fields: Fields, sources: Sources, inputs: Specs, needed: Sequence[str], outputs: Specs) -> Generation:
    """Read and check the object `generation`.

    Args:
        fields: of the object.
        sources: of the tokenizer.
        inputs: of the model, by name.
        needed: names of those without a default.
        outputs: of the model, by name.

    Raises:
        FormatError: it breaks a rule, or is of another model.
        LimitError: the cache of a whole context would take more than PAST_BYTES_MAX. Nothing was allocated.
    """
    fills = fields.names("fills", ("ids",), ("mask", "positions"))
    reads = fields.names("reads", ("scores",))
    pairs = fields.pairs("past")
    axis = fields.integer("past_axis", 1, 7, 2)
    in_place = fields.flag("in_place", False)
    context = fields.integer("context", 2, TOKENS_MAX)
    tokenizer = sources.data(fields.text("tokenizer"), _WHERE)
    before, after = (fields.passage(name, PROMPT_PART_MAX) for name in ("before", "after"))
    stop = fields.integers("stop", (0, STOP_TOKENS_MAX), 0, VOCABULARY_MAX - 1, ())
    sampling = Sampling(
        fields.number("temperature", 0, TEMPERATURE_MAX, 0.0),
        fields.integer("top_k", 0, VOCABULARY_MAX, 0),
        fields.number("top_p", 0, 1, 1.0),
        fields.number("repetition_penalty", 1 / PENALTY_MAX, PENALTY_MAX, 1.0),
    )
    longest = fields.integer("max_tokens", 1, TOKENS_MAX, MAX_TOKENS)
    fields.end()
    filled = [*fills.values(), *pairs]
    for name in filled:
        if name not in inputs:
            raise FormatError(_WHERE, f"the model has no input {name!r}")
        if filled.count(name) > 1:
            raise FormatError(_WHERE, f"input {name!r} is filled twice")
    for name in needed:
        if name not in filled:
            raise FormatError(_WHERE, f"nothing fills input {name!r}")
    for name in (*reads.values(), *pairs.values()):
        if name not in outputs:
            raise FormatError(_WHERE, f"the model has no output {name!r}")
    if len(set(pairs.values())) < len(pairs):
        raise FormatError(_WHERE, "an output is the past of two inputs")
    past = {name: _past(inputs[name], outputs[source], axis) for name, source in pairs.items()}
    if in_place and not (past and "mask" in fills):
        raise FormatError(_WHERE, "in_place needs a past, and a mask, which says how many tokens there are")
    whole = {role: _whole(inputs[name]) for role, name in fills.items()}
    generation = Generation(
        whole["ids"],
        whole.get("mask"),
        whole.get("positions"),
        _scores(outputs[reads["scores"]]),
        past,
        in_place,
        context,
        tokenizer,
        before,
        after,
        frozenset(stop),
        sampling,
        longest,
    )
    if (size := context * generation.token_bytes) > PAST_BYTES_MAX:
        raise LimitError(f"{_WHERE}: bytes of the cache of {context:,} tokens", size, PAST_BYTES_MAX)
    return generation


def _past(spec: TensorSpec, source: TensorSpec, axis: int) -> Past:
    """Return a pair of past and present that fit each other."""
    shape, made = spec.shape, source.shape
    if spec.dtype not in _FLOATS or shape is None or len(shape) <= axis or isinstance(shape[axis], int):
        raise FormatError(_WHERE, f"{spec} can't be a past whose axis {axis} counts tokens")
    if source.dtype != spec.dtype or (made is not None and len(made) != len(shape)):
        raise FormatError(_WHERE, f"output {source} is of another form than input {spec}, whose past it is")
    sizes = [1 if place in (0, axis) else size for place, size in enumerate(shape)]
    if shape[0] != 1 and isinstance(shape[0], int):
        raise FormatError(_WHERE, f"{spec} takes {shape[0]} texts at once, and one is given")
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if len(fixed) < len(sizes) or not all(fixed):
        raise FormatError(_WHERE, f"{spec} has free or empty dimensions beside those of texts and tokens")
    # One by one, as the product of sizes that a file states may be any number.
    size = np.dtype(spec.dtype).itemsize
    for each in fixed:
        size *= each
        if size > PAST_BYTES_MAX:
            raise LimitError(f"{_WHERE}: bytes of a token in {spec.name}", size, PAST_BYTES_MAX)
    return Past(source.name, np.dtype(spec.dtype), fixed, axis)


def _whole(spec: TensorSpec) -> TensorSpec:
    """Return an input of a number for each token."""
    shape = spec.shape
    fits = shape is None or (len(shape) == 2 and not isinstance(shape[1], int) and shape[0] in (1, *_free(shape[0])))
    if spec.dtype not in _INTEGERS or not fits:
        raise FormatError(_WHERE, f"{spec} can't take an integer for each token: [1, tokens]")
    return spec


def _free(size: int | str | None) -> tuple[str | None, ...]:
    return () if isinstance(size, int) else (size,)


def _scores(spec: TensorSpec) -> TensorSpec:
    if spec.dtype not in (*_FLOATS, "float64") or (spec.shape is not None and len(spec.shape) != 3):
        raise FormatError(_WHERE, f"output {spec} can't hold a score of each token: [1, tokens, vocabulary]")
    return spec
