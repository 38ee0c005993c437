"""Texts to tokens and back, by the package tokenizers, for prompts and answers that aren't trusted."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from seed_runtime.errors import InputError
from seed_runtime.limits import PROMPT_MAX
from seed_runtime.memory.process import release_heap
from seed_runtime.processing.tokenizer_file import call_tokenizer, check_splitting, load_tokenizer

_WHERE: Final = "processing, generation"
_INCOMPLETE: Final = "\ufffd"
"""What decoders write for bytes that aren't UTF-8, or not yet."""
_WAITING_MAX: Final = 64
"""Number of tokens that wait for the rest of a character, which has 4 bytes at most: more of them are no text."""


class Tokenizer:
    """A tokenizer, open."""

    def __init__(self, data: bytes | memoryview, limit: int | None = None) -> None:
        """Read a `tokenizer.json`.

        Args:
            data: the file.
            limit: of --max-memory, for reading it and for splitting texts; None for none [B].

        Raises:
            MemoryBudgetError: reading it takes too much memory.
            FormatError: it is none.
            UnsupportedError: the package is missing, or the tokenizer has a part that isn't known.
        """
        self._limit = limit
        self._tokenizer: Any = load_tokenizer(data, _WHERE, limit)
        self._words: Words | None = None
        release_heap()

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the tokens of a text.

        Args:
            text: of at most PROMPT_MAX bytes.
            special: whether names of special tokens in it are these tokens; else they are read as any other text, so
                that a prompt can't end itself and speak for the model.

        Raises:
            InputError: it is too long, or no text.
            MemoryBudgetError: splitting it takes too much memory.
            FormatError: the tokenizer fails.
        """
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InputError("the prompt is no text: it has half of a surrogate pair; give it in UTF-8") from None
        if size > PROMPT_MAX:
            raise InputError(f"the prompt has {size:,} bytes, and {PROMPT_MAX:,} are allowed; shorten it")
        if not text:
            return []
        check_splitting("the prompt", size, self._limit)
        self._tokenizer.encode_special_tokens = not special
        found = call_tokenizer(lambda: self._tokenizer.encode(text, add_special_tokens=False), _WHERE)
        return list(found.ids)

    def words(self) -> Words:
        """Return what makes a text of tokens, made once; it needs a twentieth of the tokenizer's memory."""
        if self._words is None:
            self._words = call_tokenizer(lambda: Words(self._tokenizer), _WHERE)
        return self._words


class Words:
    """The tokens' texts, and how they are joined."""

    def __init__(self, tokenizer: Any) -> None:
        """Copy the vocabulary of a tokenizer of package tokenizers, which isn't held."""
        self._decoder = tokenizer.decoder
        special = {each.content for each in tokenizer.get_added_tokens_decoder().values() if each.special}
        ids = sorted(set(tokenizer.get_vocab(with_added_tokens=True).values()))
        self._ids = np.array(ids, np.int64)
        texts = [tokenizer.id_to_token(number).encode() for number in ids]
        self._is_special = np.array([text.decode() in special for text in texts], np.bool_)
        self._ends = np.cumsum([0, *map(len, texts)])
        self._texts = b"".join(texts)

    def decode(self, ids: list[int]) -> str:
        """Return the text of tokens, special ones left out; U+FFFD stands for bytes that aren't UTF-8."""
        known = np.searchsorted(self._ids, ids)
        places = [place for place, number in zip(known, ids, strict=True) if self._names(place, number)]
        tokens = [self._texts[self._ends[place] : self._ends[place + 1]].decode() for place in places]
        if self._decoder is None:
            return " ".join(tokens)
        return str(call_tokenizer(lambda: self._decoder.decode(tokens), _WHERE))

    def _names(self, place: np.intp, number: int) -> bool:
        """Return whether a token is one of the vocabulary, and an ordinary one."""
        return bool(place < len(self._ids) and self._ids[place] == number and not self._is_special[place])


class TextStream:
    """The text of tokens that come one by one: characters are given out once all of their bytes are there."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._ids: list[int] = []
        self._start = 0
        """First token that the next text is decoded with: decoders treat the first one in another way."""
        self._given = 0
        """Number of tokens whose text was given out."""

    def add(self, token: int) -> str:
        """Return the text that one more token completes; "" where a character is cut, but not for long."""
        self._ids.append(token)
        text = self._new_text()
        if text.endswith(_INCOMPLETE) and len(self._ids) - self._given < _WAITING_MAX:
            return ""
        self._start, self._given = self._given, len(self._ids)
        return text

    def end(self) -> str:
        """Return what is left: what never became a character."""
        text = self._new_text()
        self._given = len(self._ids)
        return text

    def _new_text(self) -> str:
        before = self._words.decode(self._ids[self._start : self._given])
        return self._words.decode(self._ids[self._start :])[len(before) :]
