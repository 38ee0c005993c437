"""Reads a seed that can be read only once, and still hands out parts before their turn."""

from __future__ import annotations

from typing import BinaryIO

from seed_runtime.format.header import Part
from seed_runtime.format.parts import KINDS, file_of
from seed_runtime.format.reader import SeedReader


class PipeReader(SeedReader):
    """Reads parts ahead of their turn, holds them, and hands them out once more when their turn has come."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        super().__init__(source, name)
        self._ahead: list[bytes | memoryview | None] = []
        """Parts that were read, from the first on; None where one was only checked, or has been handed out."""

    def read_ahead(self, index: int) -> bytes | memoryview:
        """Return the unpacked bytes of part `index`; it and the parts before it are read if they weren't.

        Args:
            index: of the skeleton (0), or of a part that is assembled to a file or read before the weights.
        """
        for part in self.header.parts[len(self._ahead) : index + 1]:
            kind = KINDS.get(part.kind)
            is_early = kind is not None and kind.is_early
            if part is self.header.skeleton or is_early or file_of(part.kind) is not None:
                self._ahead.append(super().part_bytes(part))
            else:
                super().skip_part(part)
                self._ahead.append(None)
        data = self._ahead[index]
        if data is None:
            raise ValueError(f"part {index} isn't held")
        return data

    def part_bytes(self, part: Part) -> bytes | memoryview:
        """Return the unpacked bytes of the next part. One that was read ahead is handed out and no longer held."""
        index = self.header.parts.index(part)
        if index >= len(self._ahead):
            return super().part_bytes(part)
        data, self._ahead[index] = self.read_ahead(index), None
        return data

    def skip_part(self, part: Part) -> None:
        """Check the next part without unpacking it, unless it was read ahead: it has been checked then."""
        if self.header.parts.index(part) >= len(self._ahead):
            super().skip_part(part)
