"""Texts of tokens that come one by one."""

from __future__ import annotations

import pytest

from seed_runtime.errors import InputError
from seed_runtime.processing.generation.tokens import TextStream, Tokenizer
from tests.support.decoder_model import tokenizer_json

pytest.importorskip("tokenizers")


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(tokenizer_json())


def test_a_character_is_given_out_once_all_of_its_bytes_are_there(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    assert [stream.add(byte) for byte in "aé🌱".encode()] == ["a", "", "é", "", "", "", "🌱"]
    assert stream.end() == ""


def test_what_never_becomes_a_character_is_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    assert [stream.add(byte) for byte in b"a\xf0\x9f"] == ["a", "", ""]
    assert set(stream.end()) == {"\ufffd"}
    assert stream.end() == ""


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    assert [stream.add(token) for token in (ord("a"), 257, ord("b"))] == ["a", "", "b"]


def test_half_of_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode("\udc80", special=False)
