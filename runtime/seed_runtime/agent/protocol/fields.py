"""Fields of a request, checked before anything is done."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from seed_runtime.errors import UsageError

_REQUIRED: Final = object()
"""The default of a field that a request must have."""


@dataclass(frozen=True)
class Field:
    """Rule for the value of one field of a request: text, a whole number, a number or a truth value."""

    kind: type
    """`str`, `int`, `float` (whole numbers as well) or `bool`."""
    default: Any = _REQUIRED
    """The value of a field that is missing or null."""
    pattern: re.Pattern[str] | None = None
    """Pattern that the whole of a text must match."""
    most: int = 0
    """Largest value of a number."""
    least: int = 0
    """Smallest value of a number."""
    text: str = ""
    """Description of the expected value in messages; empty to name the range of a number."""

    @property
    def required(self) -> bool:
        """True if a request must have this field."""
        return self.default is _REQUIRED

    def check(self, name: str, value: Any) -> Any:
        """Return `value`, or the default for None.

        Args:
            name: the field's name, for messages.
            value: the value from a request; None where it is missing.

        Raises:
            UsageError: the value is not what this field may be.
        """
        if value is None and not self.required:
            return self.default
        # True is an int to Python.
        is_right = isinstance(value, self.kind) and isinstance(value, bool) == (self.kind is bool)
        if self.kind is float:
            is_right = isinstance(value, int | float) and not isinstance(value, bool)
        if is_right and self.pattern:
            is_right = self.pattern.fullmatch(value) is not None
        elif is_right and self.kind is not bool:
            is_right = self.least <= value <= self.most
        if not is_right:
            raise UsageError(f"{name} is {json.dumps(value)[:80]}; give {self.text or f'{self.least} to {self.most}'}")
        return value

    def parse(self, name: str, text: str) -> Any:
        """Return the value of `text` as people write it on a command line, checked.

        Raises:
            UsageError: the value is not what this field may be.
        """
        value: Any = text
        if text == "null":
            value = None
        elif self.kind is bool:
            value = {"true": True, "false": False}.get(text, text)
        elif self.kind in (int, float) and re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,9})?", text):
            value = float(text) if "." in text else int(text)
        return self.check(name, value)
