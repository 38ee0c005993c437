"""Names of free dimensions: those that say nothing, and those that are sums of others, such as "past_length + 1".

Converters write names for people, and ONNX Runtime checks none of them. That a name stands twice is taken to mean one
size; what a sum says is used where sizes must be chosen or a failure be explained, because sums are often wrong: the
attention mask of decoders is called "past_sequence_length + 1" although any number of new tokens may be given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

# Paddle writes "?", scikit-learn's converter "None", TensorFlow's and ONNX's shape inference "unk__12".
_UNKNOWN: Final = re.compile(
    r"[?*]*|-1|\.\.\.|n/a|none|null|nan|any|dyn|dynamic|undefined|unspecified|unk(?:nown)?(?:_*(?:dim)?_*\d+)?",
    re.IGNORECASE,
)
# A hyphen before a letter belongs to the name ("batch-size"), before a number or a space it is a minus.
_NAME: Final = r"[^\W\d][\w.]*(?:-[^\W\d][\w.]*)*"
_FACTOR: Final = re.compile(rf"\s*({_NAME}|\d{{1,9}})\s*")
_TERMS_MAX: Final = 64


def is_unknown(name: str) -> bool:
    """Return whether a dimension's name means that nothing is known of it: it shares its size with no other."""
    return _UNKNOWN.fullmatch(name.strip()) is not None


@dataclass(frozen=True)
class Expression:
    """A sum of products of whole numbers and names of dimensions."""

    terms: tuple[tuple[int, tuple[str, ...]], ...]
    """Number and names of each product."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names in it, each once, in order."""
        return tuple(dict.fromkeys(name for _, names in self.terms for name in names))

    def value(self, sizes: Mapping[str, int]) -> int:
        """Return the size for these sizes of its names; KeyError where one is missing."""
        return sum(number * prod(sizes[name] for name in names) for number, names in self.terms)


def expression(name: str) -> Expression | None:
    """Read a dimension's name as a sum; None for a plain name, and for what is no sum of products."""
    terms: list[tuple[int, tuple[str, ...]]] = []
    place, sign, factors = 0, 1, list[str]()
    while len(terms) < _TERMS_MAX:
        match = _FACTOR.match(name, place)
        if match is None:
            return None
        factors.append(match[1])
        place = match.end()
        operator = name[place : place + 1]
        if operator != "*":
            numbers = [int(factor) for factor in factors if factor.isdecimal()]
            terms.append((sign * prod(numbers), tuple(factor for factor in factors if not factor.isdecimal())))
            factors = []
        if not operator:
            is_plain = len(terms) == 1 and (not terms[0][1] or name.strip() == terms[0][1][0])
            return None if is_plain else Expression(tuple(terms))
        if operator not in "*+-":
            return None
        sign = -1 if operator == "-" else 1 if operator == "+" else sign
        place += 1
    return None
