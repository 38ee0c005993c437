"""How an attack case is written: fields that are replaced, and the error that must follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seed_runtime.errors import FormatError, SeedError
from tests.support.delta_builder import build_delta
from tests.support.seed_builder import Replacement, build_seed
from tests.support.spec_bytes import (
    f32,
    varint,
)

HUGE = varint(1 << 62)
LONG = b"\xff" * 9 + b"\x01"
"""A varint of 64 bits, one more than the format allows."""
PADDED = b"\x81\x00"
"""The number one as a varint that is not in its shortest form."""
NAN, INF = f32(float("nan")), f32(float("inf"))


@dataclass(frozen=True)
class Attack:
    """A seed with these fields `replaced`; its error has the class `error`, and its message matches `text`."""

    field: str
    replaced: Mapping[str, Replacement]
    error: type[SeedError]
    text: str
    has_base: bool = False
    """Whether it is the seed of `delta_builder`, which has the other one as its base."""

    def seed(self) -> bytes:
        """Return the seed."""
        return build_delta(self.replaced) if self.has_base else build_seed(self.replaced)


ATTACKS: list[Attack] = []


def attack(
    field: str, value: Replacement, text: str, error: type[SeedError] = FormatError, **more: Replacement
) -> None:
    """Add an attack on `field`, which may have a scope or a number. `more` replaces other fields: `section__field`."""
    name = field.rpartition("/")[2].partition("#")[0]
    replaced = {field: value} | {key.replace("__", "."): other for key, other in more.items()}
    ATTACKS.append(Attack(name, replaced, error, text))


def add(data: bytes) -> Replacement:
    """Return a replacement that appends `data` to the valid bytes."""
    return lambda original: original + data


def one_more(original: bytes) -> bytes:
    return bytes([original[0] + 1])


def cut(original: bytes) -> bytes:
    return original[:-1]
