"""Requests that are small beside their strings, and those that would grow in a parser."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from seed_runtime.errors import InputError
from seed_runtime.serve import limits
from seed_runtime.serve.objects import read_object


def read(body: bytes) -> dict[str, object]:
    return read_object(memoryview(body), "question", ("a", "text", "more"))


@pytest.mark.parametrize("text", ["", "[[],[]", 'a "quoted\\\\" one', "\\", '\\"', "€\n" * 100_000, "{" * 100_000])
def test_texts_of_any_size_and_content_are_read(text: str) -> None:
    for is_ascii in (True, False):
        value = {"text": text, "more": [text, 1.5, None]}
        assert read(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[" + b"[]," * 400_000 + b"0]", "bytes beside its strings, and 65,536 are allowed"),
        (b'{"a": ' + b"{}," * 400_000, "bytes beside its strings, and 65,536 are allowed"),
        (b'{"a": [' + b'"a",' * 400_000 + b"0]}", "more than 4,096 strings"),
        # A quote in UTF-16 is none where the low byte of another character is 34.
        (('{"a": "\u2222' + "[]," * 60_000 + '"}').encode("utf-16"), "no JSON|beside its strings"),
        (b'"' + b"\\" * 1_000_001, "no JSON"),
        (b'"' * 8001, "no JSON"),
        (b"[" * 60_000, "no JSON"),
        (b'{"a": "\xff"}', "no JSON"),
        (b"7", "with a, text, more"),
        (b'{"b": 7}', "with a, text, more"),
    ],
)
def test_a_request_that_would_grow_in_a_parser_is_refused_in_little_memory(body: bytes, problem: str) -> None:
    tracemalloc.start()
    with pytest.raises(InputError, match=f"(the|a) question .*({problem})"):
        read(body)
    assert tracemalloc.get_traced_memory()[1] < 2 * len(body) + (64 << 10)
    tracemalloc.stop()


def test_what_stands_beside_the_strings_may_be_as_large_as_an_envelope() -> None:
    spaces = limits.ENVELOPE_MAX - len("{:}")
    assert read(b'{"a":"b"' + b" " * spaces + b"}") == {"a": "b"}
    with pytest.raises(InputError, match="65,537 bytes beside its strings"):
        read(b'{"a":"b"' + b" " * (spaces + 1) + b"}")
