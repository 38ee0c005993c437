"""Decide what a device should hold and multiply by the instructions of its processor."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from seed_runtime.agent import facts
from seed_runtime.errors import UsageError

_MACHINES: Final = {"aarch64": "arm64", "arm64": "arm64", "x86_64": "x86-64", "amd64": "x86-64"}
"""Our words for what `uname -m` says."""
_DOT_PRODUCTS: Final = frozenset({"asimddp", "i8mm", "avx_vnni", "avx512_vnni"})
"""Instructions that multiply four bytes or more and add them up in 32 bits at once."""
_MEASURED: Final = "avx2"
"""Instructions without dot products of bytes with which int8 was measured to be faster than floats."""


@dataclass(frozen=True)
class Processor:
    """A kind of processor, written as in `arm64+asimddp`.

    Attributes:
        machine: `arm64` or `x86-64`; another one by the name that its system has for it.
        instructions: those of `facts.INSTRUCTIONS` that it has, in their order.
    """

    machine: str
    instructions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join((self.machine, *self.instructions))

    @property
    def dtype(self) -> str:
        """Word of `seed-export --dtype` for models that run there."""
        return "int8" if _DOT_PRODUCTS & {*self.instructions} or _MEASURED in self.instructions else "fp32"

    @property
    def reason(self) -> str:
        """Why it is this word."""
        if found := [name for name in self.instructions if name in _DOT_PRODUCTS]:
            return f"it has dot products of bytes ({', '.join(found)})"
        if _MEASURED in self.instructions:
            return "with AVX2 bytes are multiplied faster than floats"
        return "no instruction is known of it that makes bytes faster than floats"


BOARDS: Final[Mapping[str, Processor]] = {
    "pi3": Processor("arm64"),
    "pi4": Processor("arm64"),
    "pi5": Processor("arm64", ("asimddp",)),
    "zero2": Processor("arm64"),
}
"""Processors of boards: Cortex-A53, Cortex-A72, Cortex-A76, Cortex-A53."""


def processor_of(machine: str, instructions: Iterable[str] | None) -> Processor:
    """Return the processor of what a device reports; instructions that such a machine can't have are left out.

    Args:
        machine: as `uname -m` names it.
        instructions: that it has; None where they can't be found out, which counts as none.
    """
    given = {*(instructions or ())}
    word = _MACHINES.get(machine.lower(), machine)
    known = (name for name in facts.INSTRUCTIONS if name.startswith("avx") == (word == "x86-64"))
    return Processor(word, tuple(name for name in known if name in given))


def this_processor() -> Processor:
    """Return the processor of this machine."""
    return processor_of(platform.machine(), facts.read_instructions())


def parse_processor(text: str) -> Processor:
    """Return the processor of a board, such as `pi5`, or one that is written as `str` writes it.

    Raises:
        UsageError: there is no such board, machine or instruction.
    """
    if text in BOARDS:
        return BOARDS[text]
    machine, *instructions = text.split("+")
    found = processor_of(machine, instructions)
    if machine not in _MACHINES.values() or {*found.instructions} != {*instructions}:
        raise UsageError(
            f"no device is called {text!r}; use {', '.join(BOARDS)}, or what seed-deploy doctor says of a device: "
            f"{' or '.join(dict.fromkeys(_MACHINES.values()))}, with + and each of {', '.join(facts.INSTRUCTIONS)} "
            "that it has"
        )
    return found
