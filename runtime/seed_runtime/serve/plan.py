"""Plan what a server will hold, and the largest input that it can take, before anything is allocated.

Under --max-memory that is the largest input that fits, in the fastest mode that can run it. Larger inputs are refused
when they arrive, with the memory that they would need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np

from seed_runtime.backends import Array, TensorSpec, array_type
from seed_runtime.errors import MemoryBudgetError, UnsupportedError
from seed_runtime.memory.cgroup import CgroupLimit
from seed_runtime.memory.footprint import Footprint
from seed_runtime.seed import Seed
from seed_runtime.serve.limits import (
    ASKED_BODY,
    ASKED_COPIES,
    ASKED_TEXT,
    BODIES_SPARE,
    BODY_BESIDE_TEXTS,
    BODY_FREE,
    BODY_MAX,
    CONNECTION_BYTES,
    CONNECTIONS_MAX,
    CONVERSION_BYTES,
    ENVELOPE_MAX,
    PROMPT_BODY,
    TEXT_BYTES,
    TEXT_COPIES,
)

if TYPE_CHECKING:
    from seed_runtime.processing import Processing
    from seed_runtime.processing.generation import Generation, Tokenizer

_DIGITS: Final = {"bool": 7, "int8": 6, "uint8": 5, "int16": 8, "uint16": 7, "int32": 13, "uint32": 12}
"""Characters of a number in JSON with a comma and a space; 26, as a float64 has, for types that aren't listed."""
_BETWEEN_PROCESSES: Final = 3 << 20
"""By how much the server's process may hold more than the one that planned it [B].

How much of the shared libraries is resident depends on what the page cache holds. On x86-64 it was .5 MB; on an
emulated machine with 512 MB it once was 1.3 MB beyond the plan's own slack.
"""


@dataclass(frozen=True)
class ServePlan:
    """The largest input, and what follows from it."""

    feeds: dict[str, Array] | None
    """The input that the session is planned for, as arrays without memory; None if nothing was measured."""
    body_max: int
    """Largest body of a request, in bytes."""
    asked_max: int = 0
    """Largest body of a question about pictures, texts or sound [B]; 0 for a model that can't be asked."""
    has_text: bool = False
    """True if an input is text, which takes several times the size of its request."""

    @property
    def bodies_max(self) -> int:
        """Largest size of all bodies held at once, in bytes."""
        return max(self.body_max, self.asked_max) + BODIES_SPARE

    @property
    def extra_bytes(self) -> int:
        """Memory that the server holds beside the session, its feeds and its outputs, in bytes."""
        texts = TEXT_COPIES * self.body_max if self.has_text else 0
        asked = ASKED_COPIES * self.asked_max
        return CONNECTIONS_MAX * CONNECTION_BYTES + self.bodies_max + CONVERSION_BYTES + max(texts, asked)


def plan_server(
    seed: Seed, limit: int | None = None, threads: int | None = None, cgroup: CgroupLimit | None = None
) -> ServePlan:
    """Return the plan for the largest input that fits into a memory limit.

    Args:
        seed: the model.
        limit: --max-memory [B]; None for no limit.
        threads: --threads; None for the default.
        cgroup: limit of this process's control groups; None to plan without it.

    Raises:
        MemoryBudgetError: not even the smallest input fits.
    """
    specs, optional, footprint = seed.inputs(), seed.optional_inputs(), seed.footprint()
    has_text, asked = _has_text((*specs, *optional)), _asked_max(seed)
    if footprint is None:
        return ServePlan(None, _body_max(specs, None, optional), asked, has_text)
    refused: MemoryBudgetError | None = None
    for place, feeds in enumerate(_candidates(specs, footprint)):
        size = _body_max(specs, feeds, optional)
        if limit is not None:
            size = _beside_texts(size, asked)
        if limit is None and place == 0 and not _have_fixed_sizes(specs):
            # Inputs larger than those that were measured are run as well.
            size = min(BODY_MAX, max(size, BODY_FREE))
        found = ServePlan(feeds, size, asked, has_text)
        try:
            seed.plan_session(footprint.dims(feeds), limit, threads=threads, beside=found.extra_bytes, cgroup=cgroup)
        except MemoryBudgetError as error:
            if refused is None or error.needed < refused.needed:
                refused = error
            continue
        return found
    raise refused or MemoryBudgetError("the server", 0, limit or 0)


def planned_bytes(seed: Seed, most: int | None = None, threads: int | None = None) -> int | None:
    """Return the --max-memory with which a server can take the largest input that was measured, in bytes.

    Args:
        seed: the model.
        most: upper bound of the result [B]; None for none.
        threads: --threads; None for the default.

    Returns:
        The limit, which another process can be given; None if the seed holds no measurements.

    Raises:
        MemoryBudgetError: `most` isn't enough for any input.
    """
    footprint = seed.footprint()
    if footprint is None:
        return None
    feeds = next(iter(_candidates(seed.inputs(), footprint)))
    specs = seed.inputs()
    asked = _asked_max(seed)
    size = _beside_texts(_body_max(specs, feeds, seed.optional_inputs()), asked)
    wanted = ServePlan(feeds, size, asked, _has_text(specs))
    needed = seed.plan_session(footprint.dims(feeds), threads=threads, beside=wanted.extra_bytes).needed_bytes or 0
    needed = max(needed, seed.plan_assembly(cores=1).needed_bytes or 0) + _BETWEEN_PROCESSES
    if most is None or needed <= most:
        return needed
    plan_server(seed, most, threads)  # raises MemoryBudgetError
    return most


def processing_of(seed: Seed) -> Processing | None:
    """Return what stands before and behind the model; None where this runtime is too old for it, or it writes text."""
    try:
        steps = seed.processing()
    except UnsupportedError:
        return None
    return None if steps is None or steps.generation is not None else steps


def generation_of(seed: Seed, limit: int | None = None) -> tuple[Generation, Tokenizer] | None:
    """Return what a seed says of text generation, and its tokenizer, which takes tens of megabytes.

    Args:
        seed: the model.
        limit: --max-memory [B]; None for no limit.

    Returns:
        None where it says nothing.

    Raises:
        UnsupportedError: this runtime is too old for what it says, or lacks the package tokenizers.
        MemoryBudgetError: reading the tokenizer takes too much memory.
    """
    steps = seed.processing()
    if steps is None or steps.generation is None:
        return None
    from seed_runtime.processing.generation import Tokenizer

    tokenizer = Tokenizer(steps.generation.tokenizer, limit)
    tokenizer.words()  # which all texts share, and the plan counts
    return replace(steps.generation, tokenizer=b""), tokenizer


def _asked_max(seed: Seed) -> int:
    try:
        steps = seed.processing()
    except UnsupportedError:
        return 0
    if steps is None:
        return 0
    if steps.generation is not None:
        return PROMPT_BODY
    return ASKED_TEXT if steps.media == ("text",) else ASKED_BODY


def _beside_texts(size: int, asked_max: int) -> int:
    """Return the largest body of tensors [B], of `size` where the model writes no texts."""
    return min(size, BODY_BESIDE_TEXTS) if asked_max == PROMPT_BODY else size


def _candidates(specs: Sequence[TensorSpec], footprint: Footprint) -> list[dict[str, Array]]:
    """Return inputs to plan for, the largest first: all that were measured, and the largest halved again and again."""
    points = {tuple(point) for point in footprint.points}
    largest = max(points, key=lambda point: (math.prod(point), point))
    for power in count(1):
        point = tuple(max(min(1, size), size >> power) for size in largest)
        points.add(point)
        if max(point, default=1) <= 1:
            break
    feeds = [_feeds(specs, footprint, point) for point in points]
    return sorted(feeds, key=lambda each: sum(array.nbytes for array in each.values()), reverse=True)


def _feeds(specs: Sequence[TensorSpec], footprint: Footprint, point: Sequence[int]) -> dict[str, Array]:
    """Return arrays of these sizes that take no memory."""
    sizes = dict(zip(footprint.axes, point, strict=True))
    named: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    for spec in specs:
        shape = []
        for axis, want in enumerate(spec.shape or ()):
            size = want if isinstance(want, int) else sizes.get((spec.name, axis), named.get(want or "", 1))
            if isinstance(want, str):
                named.setdefault(want, size)
            shape.append(size)
        feeds[spec.name] = np.broadcast_to(np.empty((), array_type(spec.dtype)), shape)
    return feeds


def _has_text(specs: Sequence[TensorSpec]) -> bool:
    return any(spec.dtype == "string" for spec in specs)


def _have_fixed_sizes(specs: Sequence[TensorSpec]) -> bool:
    return not _has_text(specs) and all(
        spec.shape is not None and all(isinstance(size, int) for size in spec.shape) for spec in specs
    )


def _body_max(
    specs: Sequence[TensorSpec], feeds: Mapping[str, Array] | None, optional: Sequence[TensorSpec] = ()
) -> int:
    """Return the size of a request as JSON, which is larger than with binary data, in bytes.

    Args:
        specs: the model's inputs.
        feeds: the request's inputs; None for any that the model can take.
        optional: inputs that have a default; a free size of theirs counts as 1.
    """
    if feeds is None and not _have_fixed_sizes(specs):
        return BODY_FREE
    size = ENVELOPE_MAX
    for spec in (*specs, *optional):
        shape = (spec.shape or ()) if feeds is None or spec.name not in feeds else feeds[spec.name].shape
        elements = math.prod(int(length) for length in shape if isinstance(length, int))
        # Brackets of nested lists: at most two for each row, and two for each list around rows.
        size += elements * (
            TEXT_BYTES if spec.dtype == "string" else _DIGITS.get(spec.dtype, 26)
        ) + 4 * elements // max(1, _last(shape))
    return min(BODY_MAX, size)


def _last(shape: Sequence[int | str | None]) -> int:
    return shape[-1] if shape and isinstance(shape[-1], int) else 1
