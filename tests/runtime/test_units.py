"""Sizes in bytes, read and written."""

from __future__ import annotations

import pytest

from seed_runtime.errors import UsageError
from seed_runtime.units import mib, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64_000_000),
        ("64MiB", 64 << 20),
        ("1.5 GiB", 3 << 29),
        ("160KB", 160_000),
        ("2kib", 2048),
        ("65536", 65536),
        (65536, 65536),
        (" 7 B ", 7),
        ("1GB", 10**9),
    ],
)
def test_sizes_are_read(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MB", "-1MB", "64M", "64 mega", "1e9", "0", "0.0001KB", "nan", "1,000", -5, "9" * 99]
)
def test_what_is_not_a_size_is_refused(text: str | int) -> None:
    with pytest.raises(UsageError, match="64MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "usual", "says"),
    [
        ("1", 20_000, "'1' is 1 byte, and less than 1 KB makes no sense here; did you mean 1MB?"),
        ("500", 20_000, "did you mean 500KB?"),
        ("64", 16_000_000, "did you mean 64MB?"),
        ("2", 16_000_000, "did you mean 2GB?"),
        ("0.5KB", 1, "is 500 bytes, .* did you mean 0.5MB?"),
        (200, 1, "200 is 200 bytes, .* did you mean 200KB?"),
    ],
)
def test_a_size_that_makes_no_sense_lacks_its_unit(text: str | int, usual: int, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("?", r"\?")):
        parse_size(text, least=1000, usual=usual)
    assert parse_size("1KB", least=1000) == 1000


def test_sizes_are_written_with_three_digits() -> None:
    assert [size_text(size) for size in (0, 999, 1000, 64_200_000, 123_456, 5 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1 KB",
        "64.2 MB",
        "123 KB",
        "5000 GB",
    ]
    assert (mib(None), mib(1 << 20), mib(1_500_000)) == (None, 1.0, 1.43)
