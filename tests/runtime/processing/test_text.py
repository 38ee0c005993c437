"""Texts as tokens: three ways of splitting, texts that are too long, and tokenizers that would never end."""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import io
import json
import operator
import re
import sys
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto

import seed_runtime
from seed_runtime.backends import TensorSpec
from seed_runtime.errors import FormatError, InputError, LimitError, MemoryBudgetError, SeedError, UnsupportedError
from seed_runtime.format.parts import processing as part
from seed_runtime.memory.process import baseline
from seed_runtime.processing import TEXT, Item, parse, prepare
from seed_runtime.processing.answers import Facts
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.text import TEXT_MAX, Tokens, read
from seed_runtime.processing.tokenizer_file import expanded, load_tokenizer, parse_tokenizer
from tests.support.described_models import described, typed_input
from tests.support.tokenizers_by_hand import bpe, json_of, unigram, word_piece

pytest.importorskip("tokenizers")


def feeds_of(text: str, length: int | str = "length", code: int = TensorProto.INT64, **fields: Any) -> Any:
    """Return the input `x` and the facts of a text."""
    step = {"kind": "text", "fills": {"ids": "x"}, "tokenizer": "tokenizer.txt", "max_length": 8, **fields}
    data = described(typed_input([1, length], code), {"inputs": [step]}, tokenizer=json_of(word_piece()))
    processing = seed_runtime.open(io.BytesIO(data)).processing()
    assert processing is not None
    sample = prepare(processing, (Item(TEXT, "text 1", text=text),))
    return sample.first["x"], sample.facts


def test_a_text_becomes_the_numbers_of_its_tokens() -> None:
    found, facts = feeds_of("A dog barks")
    assert (found.tolist(), found.dtype) == ([[2, 4, 5, 7, 8, 3]], np.int64)
    assert (facts.mask.tolist(), facts.notes) == ([[1] * 6], [])
    assert feeds_of("a wolf", code=TensorProto.INT32)[0].dtype == np.int32


def test_a_longer_text_is_cut_and_says_so() -> None:
    found, facts = feeds_of("a dog barks " * 3, max_length=5)
    assert found.tolist() == [[2, 4, 5, 7, 3]]
    assert facts.notes == ["the text has 14 tokens, of which the first 5 are used"]


@pytest.mark.parametrize("made", [word_piece, bpe, unigram])
def test_a_longer_text_is_split_once_and_cut_as_the_package_cuts_it(made: Any) -> None:
    text, longest = "a dog barks abc ab " * 3, 5
    tokens, package = Tokens(json_of(made()), "here"), load_tokenizer(json_of(made()), "here")
    whole = package.encode(text)
    package.enable_truncation(longest)
    cut = package.encode(text)
    opened = tokens._opened(None)
    calls: list[str] = []

    class Counted:
        """The tokenizer, whose calls are listed."""

        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(opened, name)

    tokens._made = Counted()
    assert tokens.encode(text, "it", longest) == (cut.ids, cut.type_ids, len(whole.ids))
    assert tokens.encode(text, "it", 1000) == (whole.ids, whole.type_ids, len(whole.ids))
    assert calls.count("encode") == 2


def test_a_text_has_no_room_beside_the_tokens_that_every_text_gets() -> None:
    with pytest.raises(FormatError, match="1 tokens are taken, and the tokenizer's own leave none"):
        Tokens(json_of(word_piece()), "here").encode("a dog", "it", 1)


def test_a_tokenizer_that_takes_more_memory_than_there_is_is_not_read() -> None:
    large = unigram()
    large["model"]["vocab"] += [[f"{number:064}", -9.0] for number in range(10_000)]
    # 218 MB of a tree, and 24 times the file.
    with pytest.raises(MemoryBudgetError, match="reading the tokenizer"):
        load_tokenizer(json_of(large), "here", baseline().resident + (200 << 20))
    with pytest.raises(MemoryBudgetError, match="reading the tokenizer"):
        load_tokenizer(json_of(bpe()), "here", 1 << 20)


def test_where_the_model_has_a_fixed_length_it_is_filled_up() -> None:
    found, facts = feeds_of("a cat", 8, pad=0)
    assert found.tolist() == [[2, 4, 6, 3, 0, 0, 0, 0]]
    assert facts.mask.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]
    assert feeds_of("a dog barks " * 9, 4, max_length=100)[0].shape == (1, 4)


def test_every_role_gets_its_row() -> None:
    names = {"ids": "i", "mask": "m", "types": "t", "positions": "p"}
    fields = Fields({"fills": names, "tokenizer": "t", "max_length": 9}, "here")
    step = read(fields, Sources({"t": json_of(word_piece())}, dict))
    inputs = {name: TensorSpec(name, "int64", (1, None)) for name in "imtp"}
    first = step.prepare(Item(TEXT, "it", text="dog"), Facts("it"), inputs, None).first
    assert {name: array.tolist() for name, array in first.items()} == {
        "i": [[2, 5, 3]], "m": [[1, 1, 1]], "t": [[0, 0, 0]], "p": [[0, 1, 2]],
    }  # fmt: skip


def test_the_three_ways_of_splitting() -> None:
    assert load_tokenizer(json_of(word_piece()), "here").encode("meows").ids == [2, 9, 8, 3]
    assert load_tokenizer(json_of(bpe()), "here").encode("abc ab").ids == [6, 7]
    assert load_tokenizer(json_of(unigram()), "here").encode("ab   c").ids == [2, 1, 3]


def test_a_vocabulary_may_be_a_list_with_runs_of_merges() -> None:
    short = bpe()
    short["model"]["vocab"] = ["<|end|>", "a", "b", "c", "Ġ", 3]
    assert expanded(short, "here")["model"]["vocab"] == bpe()["model"]["vocab"]
    holes = word_piece()
    holes["model"]["vocab"] = ["x", None, "y"]
    assert expanded(holes, "here")["model"]["vocab"] == {"x": 0, "y": 2}
    for wrong, error in ((4, FormatError), (1 << 40, LimitError), (-1, LimitError)):
        short["model"]["vocab"] = [wrong]
        with pytest.raises(error):
            expanded(short, "here")


def test_a_text_that_is_far_too_long_or_empty_is_refused() -> None:
    with pytest.raises(InputError, match="text 1 has more than 262,144 bytes"):
        feeds_of("a" * (TEXT_MAX + 1))
    with pytest.raises(InputError, match="half of a pair of surrogates"):
        feeds_of("\ud800")
    step = read(
        Fields({"fills": {"ids": "x"}, "tokenizer": "t", "max_length": 9}, "here"),
        Sources({"t": json_of(bpe())}, dict),
    )
    with pytest.raises(InputError, match="it holds no token"):
        step.prepare(Item(TEXT, "it"), Facts("it"), {"x": TensorSpec("x", "int64", (1, None))}, None)


def test_the_memory_of_splitting_is_planned() -> None:
    step = read(
        Fields({"fills": {"ids": "x"}, "tokenizer": "t", "max_length": 9}, "here"),
        Sources({"t": json_of(bpe())}, dict),
    )
    item, inputs = Item(TEXT, "it", text="a" * TEXT_MAX), {"x": TensorSpec("x", "int64", (1, None))}
    with pytest.raises(MemoryBudgetError, match="splitting it needs"):
        step.prepare(item, Facts("it"), inputs, baseline().resident + (64 << 20))


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'seed-runtime\[text\]'"):
        feeds_of("a dog")


def split(pattern: dict[str, str], **fields: Any) -> dict[str, Any]:
    return bpe(pre_tokenizer={"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False, **fields})


def replaces(*contents: tuple[str, str]) -> dict[str, Any]:
    parts = [{"type": "Replace", "pattern": {"String": text}, "content": content} for text, content in contents]
    return bpe(normalizer={"type": "Sequence", "normalizers": parts})


def sequence(*parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(parts)}


def precompiled(replacements: bytes, size: int = 0) -> dict[str, Any]:
    table = size.to_bytes(4, "little") + replacements
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def template(**fields: Any) -> dict[str, Any]:
    whole = word_piece()
    return {**whole, "post_processor": {**whole["post_processor"], **fields}}


def model(**fields: Any) -> dict[str, Any]:
    whole = word_piece()
    return {**whole, "model": {**whole["model"], **fields}}


@pytest.mark.parametrize(
    ("tokenizer", "error", "problem"),
    [
        (split({"Regex": "(a+)+b"}), UnsupportedError, "the tokenizer's regular expression '(a+)+b' isn't among those"),
        (split({"Regex": r"\s+|(x|xx)*y"}), UnsupportedError, "isn't among those that are known to end"),
        (split({"String": ""}), FormatError, "a pattern of the tokenizer is empty"),
        (split({}), FormatError, "a pattern of the tokenizer is no object"),
        (replaces(("a", "aa"), *[("a", "aa")] * 4), FormatError, "would make a text too long"),
        (replaces(("a", "a" * 1000)), FormatError, "would make a text too long"),
        (bpe(normalizer={"type": "Prepend", "prepend": "a" * 1000}), FormatError, "would make a text too long"),
        (bpe(normalizer=sequence(*[{"type": "NFC"}] * 17)), FormatError, "more than 16 components as normalizer"),
        (bpe(normalizer=sequence(*[sequence(*[{"type": "NFC"}] * 8)] * 2)), FormatError, "more than 16 components"),
        (bpe(normalizer=sequence(*[{"type": "ByteLevel"}] * 5)), FormatError, "would make a text too long"),
        (bpe(normalizer=sequence(precompiled(b"a"), precompiled(b"a"))), FormatError, "would make a text too long"),
        (bpe(normalizer=precompiled(b"short\0" + b"a" * 65)), FormatError, "would make a text too long"),
        (bpe(normalizer={"type": "Precompiled"}), FormatError, "table of replacements is damaged"),
        (bpe(normalizer=precompiled(b"", size=5)), FormatError, "table of replacements is damaged"),
        (bpe(normalizer={"type": "Sequence"}), FormatError, "is no list"),
        (bpe(normalizer=[1]), FormatError, "a component of the tokenizer is no object"),
        (bpe(normalizer={"type": "Python"}), UnsupportedError, "normalizer 'Python' is unknown"),
        (bpe(pre_tokenizer={"type": "Magic"}), UnsupportedError, "pre_tokenizer 'Magic' is unknown"),
        (bpe(decoder={"type": None}), UnsupportedError, "decoder 'None' is unknown"),
        (template(single=[{}] * 65), FormatError, "more than 64 parts"),
        (template(single=[{"Sequence": {"id": "A", "type_id": 0}}] * 2), FormatError, "repeats the text"),
        (template(special_tokens={"x": {"ids": [1] * 65}}), FormatError, "more than 64 parts"),
        (model(type="Neural"), UnsupportedError, "a tokenizer's model 'Neural' is unknown"),
        (model(vocab=7), FormatError, "the tokenizer has no vocabulary"),
        (model(max_input_chars_per_word=10**9), LimitError, "exceeds the limit of 200"),
        (model(max_input_chars_per_word="x" * 201), LimitError, "exceeds the limit of 200"),
        (model(max_input_chars_per_word=[]), FormatError, "max_input_chars_per_word can't be used"),
        (model(continuing_subword_prefix="#" * 17), LimitError, "continuing_subword_prefix: 17 exceeds"),
        (model(type="Unigram", vocab=[["a" * 65, 0.0]]), LimitError, "characters of a piece: 65 exceeds"),
        (model(type="Unigram", vocab=[["a" * 64, 0.0]] * 98_305), LimitError, "characters of pieces: 6,291,520"),
        (model(vocab=["a"] * ((1 << 20) + 1)), LimitError, "tokens: 1,048,577 exceeds"),
        ({"model": 1}, FormatError, "the tokenizer has no model"),
        (word_piece(added_tokens=7), FormatError, "adds no list"),
        (word_piece(added_tokens=[{"content": "a" * (1 << 20)}, {"content": "b"}]), FormatError, "more than 1,048,576"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_could_run_or_grow_without_end_is_refused(
    tokenizer: Any, error: type[SeedError], problem: str
) -> None:
    with pytest.raises(error, match=re.escape(problem)):
        parse_tokenizer(json_of(tokenizer), "here")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{" * 50_000, b"[" * 50_000])
def test_what_is_no_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        load_tokenizer(data, "here")


def test_what_the_package_itself_refuses_is_damage() -> None:
    broken = bpe()
    broken["model"]["merges"] = ["q q"]
    with pytest.raises(FormatError, match="the tokenizer can't be read"):
        load_tokenizer(json_of(broken), "here")


ODD: tuple[Any, ...] = (None, True, -1, 1.5, "", "x", [], [[1]], {}, {"type": ["x"]}, "\ud800", 1 << 70)
"""Values that a field may have in place of its own."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value within a value, of lists to the first two."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("whole", [word_piece(), unigram(), replaces(("a", "b")), split({"Regex": r"\s+"})])
def test_a_tokenizer_with_any_value_changed_works_or_is_refused(whole: dict[str, Any]) -> None:
    for path in places(whole):
        for odd in ODD:
            changed = copy.deepcopy({"": whole})
            *way, last = ("", *path)
            functools.reduce(operator.getitem, way, cast(Any, changed))[last] = odd
            with contextlib.suppress(FormatError, UnsupportedError):
                Tokens(json.dumps(changed[""]).encode(), "here").encode("a dog", "it", 8)


def test_merges_are_never_left_out_at_random() -> None:
    shaken = bpe()
    shaken["model"]["dropout"] = 0.9
    assert all(load_tokenizer(json_of(shaken), "here").encode("abc ab").ids == [6, 7] for _ in range(20))


def test_where_the_tokenizers_own_tokens_leave_no_room_the_description_is_refused() -> None:
    with pytest.raises(FormatError, match="1 tokens are taken, and the tokenizer's own leave none of them"):
        feeds_of("a dog", max_length=1)


@pytest.mark.parametrize("text", ["a", " ", "'", "\n ", " a", "ﷺ"])
def test_long_texts_of_one_kind_end(text: str) -> None:
    # Each takes about a second at TEXT_MAX; a tenth is enough to see that time doesn't grow with the square.
    for tokenizer in (word_piece(), bpe(), unigram()):
        long = text * (TEXT_MAX // 10 // len(text.encode()))
        load_tokenizer(json_of(tokenizer), "here").encode(long)


def test_tokens_of_other_types_are_refused() -> None:
    data = json.dumps({"inputs": [{"kind": "text", "fills": {"ids": "x"}, "tokenizer": "t", "max_length": 1 << 20}]})
    with pytest.raises(LimitError, match="max_length: 1,048,576 exceeds the limit of 32,768"):
        parse(part.pack(data.encode(), {"t": b"{}"}), [], [], dict)
    with pytest.raises(FormatError, match=r"it can't make input x: uint8"):
        feeds_of("a", code=TensorProto.UINT8)
