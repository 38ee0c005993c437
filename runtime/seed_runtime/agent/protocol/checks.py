"""Checks of JSON values that come from outside.

A check takes a value and returns it as it is to be used. It raises ValueError for any value of another kind, with a
text that shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from seed_runtime.agent.names import NAME
from seed_runtime.format.preamble import DIGEST

Check = Callable[[Any], Any]
"""A check of one value."""

_COUNT_MAX: Final = (1 << 64) - 1
"""Largest whole number. systemd reports this one for memory that isn't accounted."""
_CLOCK_MAX: Final = 1 << 36
"""Latest time in seconds since 1970: about the year 4147."""
_SHOWN: Final = 40
"""Characters of a wrong value that an error's text shows."""


def text(value: Any) -> str:
    """Check that `value` is a string."""
    if not isinstance(value, str):
        raise _mismatch(value)
    return value


def boolean(value: Any) -> bool:
    """Check that `value` is true or false."""
    if not isinstance(value, bool):
        raise _mismatch(value)
    return value


def count(value: Any) -> int:
    """Check that `value` is a whole number from 0 to 2**64 - 1."""
    # True is an int to Python.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT_MAX:
        raise _mismatch(value)
    return value


def number(value: Any) -> float:
    """Check that `value` is a float or a count."""
    return value if isinstance(value, float) else count(value)


def dimension(value: Any) -> int | str | None:
    """Check that `value` is a dimension of a tensor: a count, or a name or None for one that is free."""
    return value if isinstance(value, str) or value is None else count(value)


def timestamp(value: Any) -> int:
    """Check that `value` is a time in whole seconds since 1970."""
    if count(value) > _CLOCK_MAX:
        raise _mismatch(value)
    return count(value)


def name(value: Any) -> str:
    """Check that `value` can name a model."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise _mismatch(value)
    return value


def digest(value: Any) -> str:
    """Check that `value` is the digest of a version."""
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise _mismatch(value)
    return value


def anything(value: Any) -> Any:
    """Return any value as it is."""
    return value


def ignored(value: Any) -> None:
    """Return None for any value."""
    return


def optional(check: Check) -> Check:
    """Return a check of values that may be None."""
    return lambda value: None if value is None else check(value)


def list_of(check: Check) -> Check:
    """Return a check of lists, each element of which passes `check`."""

    def check_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _mismatch(value)
        return [check(element) for element in value]

    return check_list


def pair_of(check: Check) -> Check:
    """Return a check of lists of two elements."""

    def check_pair(value: Any) -> list[Any]:
        found: list[Any] = list_of(check)(value)
        if len(found) != 2:
            raise _mismatch(value)
        return found

    return check_pair


def mapping_of(key: Check, check: Check) -> Check:
    """Return a check of objects with any keys, each of which passes `key`."""

    def check_mapping(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise _mismatch(value)
        return {key(each): check(held) for each, held in value.items()}

    return check_mapping


def record(**fields: Check) -> Check:
    """Return a check of objects with these fields; all others are left out.

    A field whose check admits None may be missing, and is missing in the result then. The text of an error begins with
    the name of the field.
    """

    def check_record(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _mismatch(value)
        found = {}
        for key, check in fields.items():
            try:
                checked = check(value.get(key))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
            if key in value:
                found[key] = checked
        return found

    return check_record


def lenient_record(**fields: Check) -> Check:
    """Return a check of objects that leaves out fields with wrong values as well as unknown ones."""

    def check_record(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _mismatch(value)
        found = {}
        for key, check in fields.items():
            if key in value:
                try:
                    found[key] = optional(check)(value[key])
                except ValueError:
                    continue
        return found

    return check_record


def _mismatch(value: Any) -> ValueError:
    shown = json.dumps(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return ValueError(shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}...")
