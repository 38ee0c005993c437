"""Initializers that a seed leaves out, against bytes written by hand from SPEC.md."""

from __future__ import annotations

from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole
from seed_runtime.format.parts.onnx_skeleton import initializers, number_name

RAW = """
2a 3f                                          initializer, 63 bytes:
08 04                                            dims 4
10 01                                            data_type 1
42 01 30                                         name "0"
6a 19 0a 08 6c 6f 63 61 74 69 6f 6e              external_data, key "location"
12 0d 6d 6f 64 65 6c 2e 77 65 69 67 68 74 73       value "model.weights"
6a 0b 0a 06 6f 66 66 73 65 74 12 01 30           "offset": "0"
6a 0c 0a 06 6c 65 6e 67 74 68 12 02 31 36        "length": "16"
70 01                                            data_location 1
"""
GRID = """
2a 45                                          initializer, 69 bytes:
08 03 08 ac 02                                   dims 3, 300
10 0a                                            data_type 10
42 01 31                                         name "1"
6a 19 0a 08 6c 6f 63 61 74 69 6f 6e
12 0d 6d 6f 64 65 6c 2e 77 65 69 67 68 74 73
6a 0c 0a 06 6f 66 66 73 65 74 12 02 36 34        "offset": "64"
6a 0e 0a 06 6c 65 6e 67 74 68 12 04 31 38 30 30  "length": "1800"
70 01
"""
HOLES = (Hole(BY_NAME["float32"], (4,), 0, 0), Hole(BY_NAME["float16"], (3, 300), 48, 64))


def by_hand(text: str) -> bytes:
    return b"".join(bytes.fromhex(line[:48].split("   ")[0]) for line in text.splitlines())


def test_initializers_are_the_bytes_of_the_specification() -> None:
    assert list(initializers("", HOLES)) == [by_hand(RAW), by_hand(GRID)]


def test_names_begin_with_what_the_seed_says() -> None:
    (first,) = initializers("_w", HOLES[:1])
    assert first == by_hand(RAW).replace(b"\x2a\x3f", b"\x2a\x41").replace(b"\x42\x010", b"\x42\x03_w0")


def test_numbers_have_one_digit_then_two_then_three() -> None:
    places = {0: "0", 9: "9", 10: "a", 35: "z", 36: "A", 61: "Z", 62: "00", 63: "01", 62 + 62**2 - 1: "ZZ"}
    assert {number: number_name(number) for number in places} == places
    assert number_name(62 + 62**2) == "000"
    assert len({number_name(number) for number in range(10_000)}) == 10_000
