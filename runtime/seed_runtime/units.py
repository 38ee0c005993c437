"""Sizes in bytes and times in seconds, read from what a user writes and written for people."""

from __future__ import annotations

import re
from typing import Final

from seed_runtime.errors import UsageError

_UNITS: Final = {"": 1, "B": 1} | {
    unit: size
    for power, letter in enumerate("KMG", start=1)
    for unit, size in ((f"{letter}B", 1000**power), (f"{letter}IB", 1024**power))
}


_TIMES: Final = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
"""Units of time, in seconds."""
TIME_MIN_S, TIME_MAX_S = 1, 7 * 86400
"""Shortest and longest time that can be waited for, in seconds."""
MEMORY_MIN: Final = 1_000_000
"""Smallest limit of a process's memory that is taken as meant, in bytes: Python alone takes more."""
MEMORY_USUAL: Final = 16_000_000
"""Smallest usual limit of a process's memory, in bytes."""
CACHE_MIN: Final = 1_000_000
"""Smallest limit of the cache that is taken as meant, in bytes: no assembled model of any use is smaller."""
CACHE_USUAL: Final = 100_000_000
"""Smallest usual limit of the cache, in bytes."""


def parse_size(text: str | int, *, least: int = 1, usual: int = 1) -> int:
    """Return the bytes of "64MB", "64 MiB", "1.5GiB" or "65536".

    Args:
        text: what the user wrote.
        least: the smallest size that makes sense, in bytes: whoever writes less has forgotten the unit.
        usual: the smallest usual size, in bytes: the smallest unit that makes this of the number was forgotten then.

    Raises:
        UsageError: it is anything else, or less than `least`.
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", str(text).strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UsageError(f"{text!r} is not a size; write it like 64MB (millions of bytes) or 64MiB")
    if match and size < least:
        number = float(match[1])
        unit_text = next((unit for unit in ("KB", "MB") if number * _UNITS[unit] >= max(least, usual)), "GB")
        bytes_text = "1 byte" if size == 1 else f"{size} bytes"
        raise UsageError(
            f"{text!r} is {bytes_text}, and less than {size_text(least)} makes no sense here; "
            f"did you mean {match[1]}{unit_text}?"
        )
    return size


def parse_time(text: str) -> float:
    """Return the seconds of "30s", "10min" or "1h".

    Raises:
        UsageError: it is anything else, or not between TIME_MIN_S and TIME_MAX_S.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in ("", *_TIMES):
        raise UsageError(f"{text!r} is not a time; write it like 30s, 10min or 1h")
    if not match[2]:
        raise UsageError(f"{text!r} has no unit; did you mean {match[1]}s or {match[1]}min?")
    seconds = float(match[1]) * _TIMES[match[2]]
    if not TIME_MIN_S <= seconds <= TIME_MAX_S:
        raise UsageError(f"{text!r} is not between 1s and {TIME_MAX_S // 86400}d; give another time")
    return seconds


def size_text(size: float) -> str:
    """Write a number of bytes in powers of 1000 with three digits, such as "64.2 MB"."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.3g} {unit}"


def mib(size: int | None) -> float | None:
    """Return a number of bytes in MiB with two decimals; None stays None."""
    return None if size is None else round(size / (1 << 20), 2)
