"""Generate text: run the model on the prompt, then token by token on what was chosen, with a cache of the past."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Final

import numpy as np

from seed_runtime.backends import Array, Feeds
from seed_runtime.errors import InputError, OutputError
from seed_runtime.processing.generation.description import Generation
from seed_runtime.processing.generation.sampling import Sampling, choose
from seed_runtime.processing.generation.tokens import TextStream, Tokenizer

Model = Callable[[Feeds, Mapping[str, Array], Sequence[str]], dict[str, Array]]
"""Runs the model once: feeds, arrays by the outputs that are written into them, outputs that are returned."""

STOPPED: Final = "stop token"
LENGTH: Final = "max tokens"
CONTEXT: Final = "context"
INTERRUPTED: Final = "interrupted"

_SCORES_BYTES: Final = 4 << 20
"""Scores that a run may compute beyond those of one token [B]; longer prompts take several runs."""
_PROMPT_MAX: Final = 512
"""Most tokens of a prompt in a run."""
_UNKNOWN_RUN: Final = 32
"""As many where the model doesn't say how many tokens it knows."""
_NUMBER_BYTES: Final = 64
"""Memory of a token's number: Python's integer, in two lists, and one more while the next token is chosen [B]."""


class Generator:
    """One answer: iterate over it for its text, piece by piece."""

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        prompt: str,
        *,
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        rng_seed: int | None = None,
    ) -> None:
        """Prepare an answer: no model is needed yet, and nothing large is allocated.

        Args:
            generation: what the seed says.
            tokenizer: of the seed. It isn't held, so that its memory can be freed before the model is opened.
            prompt: what the model is asked.
            sampling: how tokens are chosen; None for the seed's way.
            max_tokens: longest answer; None for the seed's.
            rng_seed: makes the same answer each time; None for another one each time.

        Raises:
            InputError: the prompt has no token, or too many.
        """
        self._generation, self._words = generation, tokenizer.words()
        self._sampling = sampling or generation.sampling
        self.prompt_tokens = [
            *tokenizer.encode(generation.before, special=True),
            *tokenizer.encode(prompt, special=False),
            *tokenizer.encode(generation.after, special=True),
        ]
        self.tokens: list[int] = []
        """Tokens of the answer so far, without the one that ended it."""
        self.stop = INTERRUPTED
        """Why the answer ended."""
        count, context = len(self.prompt_tokens), generation.context
        if not count:
            raise InputError("the prompt is empty; ask the model something: --prompt TEXT")
        if count >= context:
            raise InputError(
                f"the prompt has {count:,} tokens, {count - context + 1:,} more than the model takes with an answer of "
                f"one token ({context:,} in all); shorten it"
            )
        self._room = context - count
        self._wanted = generation.max_tokens if max_tokens is None else max_tokens
        # NumPy imports its random numbers, 2 MB, where they are used.
        self._random = np.random.default_rng(rng_seed) if self._sampling.temperature else None
        # The last token has a run of its own, as only its scores are read.
        self._at_once = min(_PROMPT_MAX, max(1, count - 1), _run_length(generation))

    @property
    def capacity(self) -> int:
        """Most tokens that the cache will hold."""
        # The last token is never fed.
        return len(self.prompt_tokens) + min(self._wanted, self._room) - 1

    def largest_feeds(self) -> Feeds:
        """Return arrays of the sizes of the largest run, for plans; they take no memory."""
        return self._feeds(*self._largest)

    def planned_feeds(self) -> list[Feeds]:
        """Return arrays as `largest_feeds` does, for each run that no other one of the answer is at least as large as.

        Those of the prompt have more new tokens, and the last one has the longest past.
        """
        sizes = [self._largest]
        if self._generation.past and not self._generation.in_place:
            last = len(self.prompt_tokens) - 1
            rest = last % self._at_once
            sizes += [(rest, last - rest)] if rest else []
            sizes.append((1, self.capacity - 1))
        return [self._feeds(*each) for each in dict.fromkeys(sizes)]

    @property
    def _largest(self) -> tuple[int, int]:
        """Most new tokens of a run, and the longest past that they may have."""
        new = self._at_once if self._generation.past else self.capacity
        return new, self.capacity if self._generation.in_place else self.capacity - new

    def _feeds(self, new: int, length: int) -> Feeds:
        """Return arrays of the sizes of a run, which take no memory; `length` is that of the past's arrays."""
        whole = self._generation
        feeds = {whole.ids.name: np.broadcast_to(np.zeros((), whole.ids.dtype), (1, new))}
        if whole.mask is not None:
            total = length if whole.in_place else length + new
            feeds[whole.mask.name] = np.broadcast_to(np.zeros((), whole.mask.dtype), (1, total))
        if whole.positions is not None:
            feeds[whole.positions.name] = np.broadcast_to(np.zeros((), whole.positions.dtype), (1, new))
        for name, each in whole.past.items():
            feeds[name] = np.broadcast_to(np.zeros((), each.dtype), each.sized(length))
        return feeds

    @property
    def held_bytes(self) -> int:
        """Memory that the answer holds between two runs, at its longest [B]."""
        whole = self._generation
        arrays = whole.sets * len(whole.past)
        return self.capacity * (whole.token_bytes + _NUMBER_BYTES) + arrays * mmap.PAGESIZE

    @property
    def is_whole(self) -> bool:
        """Whether the answer ended by itself."""
        return self.stop != INTERRUPTED

    def run(self, model: Model) -> Iterator[str]:
        """Yield the answer's text piece by piece. It may be ended at any time.

        Raises:
            OutputError: the model's scores can't be used.
            InputError: the model can't run on these tokens.
        """
        return filter(None, self.steps(model))

    def steps(self, model: Model) -> Iterator[str]:
        """Yield what each run of the model adds to the text, "" for nothing. Others may use the model in between.

        Raises:
            OutputError: the model's scores can't be used.
            InputError: the model can't run on these tokens.
        """
        cache, text = _Cache(self._generation, model, self.capacity), TextStream(self._words)
        last = len(self.prompt_tokens) - 1 if self._generation.past else 0
        for start in range(0, last, self._at_once):
            cache.fill(self.prompt_tokens[start : min(start + self._at_once, last)])
            yield ""
        fed = self.prompt_tokens[last:]
        while True:
            seen = [*self.prompt_tokens, *self.tokens]
            # No name holds the scores, which would stay until the next run.
            token = choose(cache.run(fed), seen, self._sampling, self._random)
            piece = ""
            if token in self._generation.stop:
                self.stop = STOPPED
            else:
                self.tokens.append(token)
                piece = text.add(token)
                if len(self.tokens) >= min(self._wanted, self._room):
                    self.stop = LENGTH if self._wanted <= self._room else CONTEXT
            if self.is_whole:
                yield piece + text.end()
                return
            fed = [token] if self._generation.past else [*seen, token]
            del seen
            yield piece


class _Cache:
    """Keys and values of the tokens so far, in buffers that are taken once.

    A run adds to them in place, or reads one set and writes another one. Only pages that were written are resident, so
    a long context costs nothing before it is used.
    """

    def __init__(self, generation: Generation, model: Model, capacity: int) -> None:
        self._generation, self._model = generation, model
        self._length, self._capacity = 0, capacity
        self._sets = [
            {name: np.zeros(prod(each.sized(capacity)), each.dtype) for name, each in generation.past.items()}
            for _ in range(generation.sets)
        ]

    def fill(self, tokens: Sequence[int]) -> None:
        """Run the model on new tokens for their keys and values; their scores aren't copied."""
        self._run(tokens, [])

    def run(self, tokens: Sequence[int]) -> Array:
        """Run the model on new tokens; return the scores of what follows the last one."""
        scores = self._run(tokens, [self._generation.scores.name])[self._generation.scores.name]
        if scores.ndim != 3 or scores.shape[:2] != (1, len(tokens)):
            raise OutputError(
                "processing, generation",
                f"scores of {len(tokens)} tokens are needed, the model gave {list(scores.shape)}",
            )
        row: Array = scores[0, -1]
        return row

    def _run(self, tokens: Sequence[int], outputs: Sequence[str]) -> dict[str, Array]:
        whole, total = self._generation, self._length + len(tokens)
        feeds: dict[str, Array] = {whole.ids.name: np.array([tokens], whole.ids.dtype)}
        if whole.mask is not None:
            feeds[whole.mask.name] = np.ones((1, total), whole.mask.dtype)
        if whole.positions is not None:
            feeds[whole.positions.name] = np.arange(self._length, total, dtype=whole.positions.dtype)[None]
        read, written, into = self._sets[0], self._sets[-1], {}
        for name, past in whole.past.items():
            if whole.in_place:
                feeds[name] = into[past.source] = read[name].reshape(past.sized(self._capacity))
            else:
                feeds[name] = _front(read[name], past.sized(self._length))
                into[past.source] = _front(written[name], past.sized(total))
        found = self._model(feeds, into, outputs)
        if whole.past:
            self._length = total
            self._sets.reverse()
        return found


def _front(buffer: Array, shape: tuple[int, ...]) -> Array:
    return buffer[: prod(shape)].reshape(shape)


def _run_length(generation: Generation) -> int:
    """Return how many tokens of a prompt a run may take."""
    shape, item = generation.scores.shape, np.dtype(generation.scores.dtype).itemsize
    vocabulary = None if shape is None else shape[2]
    if not isinstance(vocabulary, int) or vocabulary < 1:
        return _UNKNOWN_RUN
    return max(1, _SCORES_BYTES // (vocabulary * item))
