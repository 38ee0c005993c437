"""Step "text": a text as tokens, by the package tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError, InputError
from seed_runtime.limits import TOKENS_MAX
from seed_runtime.processing.answers import Facts
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.items import TEXT, Item
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import InputStep, Prepared, Specs, check_input, one_call
from seed_runtime.processing.tokenizer_file import call_tokenizer, check_splitting, load_tokenizer

TEXT_MAX: Final = 1 << 18
"""Largest text [B]: normalizing may make it 300 times longer."""
_ROLES: Final = ("mask", "types", "positions")


@dataclass
class Tokens:
    """A tokenizer that is made when it is first needed."""

    data: bytes | memoryview
    where: str
    _made: Any = field(default=None, repr=False)

    def encode(self, text: str, name: str, longest: int, limit: int | None = None) -> tuple[list[int], list[int], int]:
        """Return the numbers of a text's tokens and of their segments, and how many tokens all of it has.

        Args:
            text: the text.
            name: for messages.
            longest: largest number of tokens; a longer text is cut, and keeps the tokens that begin and end it.
            limit: of --max-memory; None for none [B].

        Raises:
            InputError: the text is too long to be split at all, or can't be written in UTF-8.
            MemoryBudgetError: it takes too much memory.
            FormatError: the tokenizer fails, or no token of a text fits beside its own ones.
        """
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InputError(f"{name} holds half of a pair of surrogates; give text in UTF-8") from None
        if size > TEXT_MAX:
            raise InputError(f"{name} has more than {TEXT_MAX:,} bytes; give a shorter one")
        tokenizer = self._opened(limit)
        check_splitting(name, size, limit)
        encoded = call_tokenizer(lambda: tokenizer.encode(text, add_special_tokens=False), self.where)
        own = tokenizer.num_special_tokens_to_add(False)
        count = len(encoded.ids) + own
        if count > longest:
            if own > longest:
                raise FormatError(self.where, f"{longest} tokens are taken, and the tokenizer's own leave none of them")
            encoded.truncate(longest - own)
        encoded = call_tokenizer(lambda: tokenizer.post_process(encoded), self.where)
        return list(encoded.ids), list(encoded.type_ids), count

    def _opened(self, limit: int | None) -> Any:
        """Return the tokenizer of the package tokenizers."""
        if self._made is None:
            self._made = load_tokenizer(self.data, self.where, limit)
        return self._made


@dataclass(frozen=True)
class TextStep:
    """Fills inputs with the tokens of a text."""

    where: str
    fills: Mapping[str, str]
    tokens: Tokens
    max_length: int
    """Largest number of tokens."""
    pad: int
    """Token that fills up where the model's input has a fixed length."""
    kind: str = "text"
    medium: str = TEXT

    def check(self, inputs: Specs) -> None:
        """Raise FormatError if the model takes no tokens (see `InputStep`)."""
        for name in self.fills.values():
            check_input(self.where, inputs[name], ("int32", "int64", "float32"), (1, None))

    def prepare(self, item: Item | None, facts: Facts, inputs: Specs, limit: int | None) -> Prepared:
        """Split a text (see `InputStep`)."""
        assert item is not None
        shape = inputs[self.fills["ids"]].shape
        fixed = shape[1] if shape is not None and isinstance(shape[1], int) else None
        longest = min(self.max_length, fixed or TOKENS_MAX)
        ids, types, count = self.tokens.encode(item.text, item.name, longest, limit)
        if count > len(ids):
            facts.notes.append(f"the text has {count:,} tokens, of which the first {len(ids):,} are used")
        if not ids and fixed is None:
            raise InputError(f"{item.name} holds no token; give a longer text")
        length = fixed or len(ids)
        rows = {
            "ids": _row(ids, length, self.pad),
            "mask": _row([1] * len(ids), length, 0),
            "types": _row(types, length, 0),
            "positions": np.arange(length)[None],
        }
        facts.mask = rows["mask"]
        return one_call({name: rows[role].astype(inputs[name].dtype) for role, name in self.fills.items()})


def _row(values: list[int], length: int, rest: int) -> Array:
    row = np.full((1, length), rest, np.int64)
    row[0, : len(values)] = values
    return row


def read(fields: Fields, sources: Sources) -> InputStep:
    """Read a step of this kind."""
    name = fields.text("tokenizer")
    return TextStep(
        where=fields.where,
        fills=fields.names("fills", ["ids"], _ROLES),
        tokens=Tokens(sources.data(name, fields.where), fields.where),
        max_length=fields.integer("max_length", 1, TOKENS_MAX),
        pad=fields.integer("pad", 0, (1 << 31) - 1, 0),
    )
