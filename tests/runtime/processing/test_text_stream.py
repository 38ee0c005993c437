"""Texts of tokens that come one by one."""

from __future__ import annotations

import json

import pytest

from seed_runtime.errors import InputError
from seed_runtime.processing.generation.tokens import TextStream, Tokenizer
from tests.support.decoder_model import tokenizer_json

pytest.importorskip("tokenizers")


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(tokenizer_json())


def test_a_character_is_given_out_once_all_of_its_bytes_are_there(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer.words())
    assert [stream.add(byte) for byte in "aé🌱".encode()] == ["a", "", "é", "", "", "", "🌱"]
    assert stream.end() == ""


def test_what_never_becomes_a_character_is_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer.words())
    assert [stream.add(byte) for byte in b"a\xf0\x9f"] == ["a", "", ""]
    assert set(stream.end()) == {"\ufffd"}
    assert stream.end() == ""


def test_what_never_becomes_a_character_waits_for_64_tokens_at_most(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer.words())
    given = [stream.add(0xFF) for _ in range(128)]
    assert [place for place, text in enumerate(given, 1) if text] == [64, 128]
    assert "".join(given) == 128 * "\ufffd"


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer.words())
    assert [stream.add(token) for token in (ord("a"), 257, ord("b"))] == ["a", "", "b"]


def test_half_of_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode("\udc80", special=False)


def test_words_make_the_text_that_the_tokenizer_makes(tokenizer: Tokenizer) -> None:
    from tokenizers import Tokenizer as Original

    original, words = Original.from_str(tokenizer_json().decode()), tokenizer.words()
    # Unknown, special and ordinary tokens, cut characters among them.
    for ids in ([], [104, 105], [258, 104, 1 << 40], [257, 104, 256], list("é🌱".encode()), [0xF0, 0x9F]):
        assert words.decode(ids) == original.decode([number for number in ids if number < 1 << 32])


def test_words_without_a_decoder_are_joined_by_spaces() -> None:
    settings = json.loads(tokenizer_json()) | {"decoder": None}
    assert Tokenizer(json.dumps(settings).encode()).words().decode([104, 256, 105]) == "h i"
