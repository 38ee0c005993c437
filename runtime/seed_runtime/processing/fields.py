"""The fields of one JSON object, each read once with its type and its limits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from seed_runtime.errors import FormatError, LimitError, too_new
from seed_runtime.format.primitives import printable
from seed_runtime.limits import STRING_MAX

_NEEDED: Final = object()


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Read one JSON object (RFC 8259) whose names differ within each object.

    Raises:
        FormatError: it is anything else.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(where, f"the description is no JSON that can be used ({error})") from None
    if not isinstance(value, dict):
        raise FormatError(where, "the description is no JSON object")
    return value


class Fields:
    """Reads the fields of an object; `end` refuses those that nobody asked for."""

    def __init__(self, value: object, where: str) -> None:
        """Begin with none of the fields read.

        Args:
            value: the object.
            where: names the place in error messages.
        """
        self.where = where
        if not isinstance(value, Mapping):
            self.refuse(f"it is {_kind(value)}, an object is needed")
        self._left = dict(value)

    def refuse(self, problem: str) -> NoReturn:
        """Raise FormatError for this object."""
        raise FormatError(self.where, problem)

    def has(self, name: str) -> bool:
        """Return whether a field is there and wasn't read yet."""
        return name in self._left

    def value(self, name: str, default: Any = _NEEDED) -> Any:
        """Read a field of any type."""
        if name not in self._left:
            if default is _NEEDED:
                self.refuse(f"the field {name!r} is missing")
            return default
        return self._left.pop(name)

    def integer(self, name: str, least: int, most: int, default: Any = _NEEDED) -> Any:
        """Read an integer from `least` to `most`."""
        return self._checked(name, default, lambda value: self._integer(name, value, least, most))

    def number(self, name: str, least: float, most: float, default: Any = _NEEDED) -> Any:
        """Read a number from `least` to `most` as a float."""
        return self._checked(name, default, lambda value: self._number(name, value, least, most))

    def flag(self, name: str, default: bool) -> bool:
        """Read true or false."""
        value = self.value(name, default)
        if not isinstance(value, bool):
            self.refuse(f"{name!r} is {_kind(value)}, true or false is needed")
        return value

    def text(self, name: str, default: Any = _NEEDED) -> Any:
        """Read a printable text of at most STRING_MAX bytes."""
        return self._checked(name, default, lambda value: self._text(name, value))

    def passage(self, name: str, most: int) -> str:
        """Read a text of any characters and of at most `most` bytes in UTF-8; "" where it is left out."""
        value = self.value(name, "")
        if not isinstance(value, str):
            self.refuse(f"{name!r} is {_kind(value)}, a text is needed")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            self.refuse(f"{name!r} has half of a surrogate pair")
        if size > most:
            raise LimitError(f"{self.where}: bytes of {name}", size, most)
        return value

    def word(self, name: str, words: Sequence[str], default: Any = _NEEDED) -> Any:
        """Read one of a few words; any other one is newer than this runtime."""
        word = self.text(name, default)
        if word is not default and word not in words:
            raise too_new(self.where, f"{name} {word!r}")
        return word

    def integers(self, name: str, count: tuple[int, int], least: int, most: int, default: Any = _NEEDED) -> Any:
        """Read a list of integers from `least` to `most`, of a length between the two of `count`."""

        def check(value: Any) -> tuple[int, ...]:
            values = self._list(name, value, *count)
            return tuple(self._integer(name, each, least, most) for each in values)

        return self._checked(name, default, check)

    def numbers(self, name: str, least_count: int, most_count: int, default: Any = _NEEDED) -> Any:
        """Read a list of finite numbers as floats."""

        def check(value: Any) -> tuple[float, ...]:
            values = self._list(name, value, least_count, most_count)
            return tuple(self._number(name, each, -math.inf, math.inf) for each in values)

        return self._checked(name, default, check)

    def objects(self, name: str, most_count: int) -> list[Any]:
        """Read a list of at most `most_count` values; none where it is left out."""
        return self._list(name, self.value(name, []), 0, most_count)

    def names(self, name: str, needed: Sequence[str] = (), optional: Sequence[str] = ()) -> dict[str, str]:
        """Read an object that gives each of some roles the name of a tensor.

        Args:
            name: of the field.
            needed: roles that must be there.
            optional: roles that may be; others are newer than this runtime.
        """
        fields = Fields(self.value(name), f"{self.where}, {name}")
        found = {role: str(fields.text(role)) for role in needed}
        found |= {role: str(fields.text(role)) for role in optional if fields.has(role)}
        fields.end()
        if len(set(found.values())) < len(found):
            self.refuse(f"{name!r} has one name for two roles")
        return found

    def pairs(self, name: str) -> dict[str, str]:
        """Read an object of texts under any names; empty where it is left out."""
        fields = Fields(self.value(name, {}), f"{self.where}, {name}")
        return {fields._text(name, key): fields.text(key) for key in list(fields._left)}

    def end(self) -> None:
        """Refuse fields that weren't read: a later runtime may know them."""
        for name in self._left:
            raise too_new(self.where, f"the field {name[:80]!r}")

    def _checked(self, name: str, default: Any, check: Callable[[Any], Any]) -> Any:
        value = self.value(name, default)
        return default if value is default else check(value)

    def _integer(self, name: str, value: object, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(f"{name!r} holds {_kind(value)}, an integer is needed")
        if value > most:
            raise LimitError(f"{self.where}: {name}", min(value, 1 << 62), most)
        if value < least:
            self.refuse(f"{name!r} is {value}, at least {least} is needed")
        return value

    def _number(self, name: str, value: object, least: float, most: float) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e30:
            self.refuse(f"{name!r} holds {_kind(value)}, a finite number is needed")
        if not least <= value <= most:
            self.refuse(f"{name!r} is {value:g}, and {least:g} to {most:g} is allowed")
        return float(value)

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str) or not _is_string(value):
            self.refuse(f"{name[:80]!r} is no printable text of at most {STRING_MAX} bytes")
        return value

    def _list(self, name: str, value: object, least: int, most: int) -> list[Any]:
        if not isinstance(value, list):
            self.refuse(f"{name!r} is {_kind(value)}, a list is needed")
        if len(value) > most:
            raise LimitError(f"{self.where}: length of {name}", len(value), most)
        if len(value) < least:
            self.refuse(f"{name!r} has {len(value)} elements, at least {least} are needed")
        return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _is_string(text: str) -> bool:
    """Return whether a text can be written as a string of SPEC.md; half of a surrogate pair can't."""
    try:
        return len(text.encode()) <= STRING_MAX and printable(text)
    except UnicodeEncodeError:
        return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
