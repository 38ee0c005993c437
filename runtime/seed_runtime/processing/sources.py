"""The files that a description names: attachments, or texts among the model's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.limits import LABELS_MAX

METADATA: Final = "metadata:"
"""What a name begins with that stands for a text among the model's metadata."""


@dataclass(frozen=True)
class Sources:
    """Attachments by name, and the model's metadata, which is read when a description first refers to it."""

    attachments: Mapping[str, bytes | memoryview]
    metadata: Callable[[], Mapping[str, str]]

    def data(self, name: str, where: str) -> bytes | memoryview:
        """Return the bytes that a description calls `name`.

        Raises:
            FormatError: there are none.
        """
        if name.startswith(METADATA):
            text = self.metadata().get(name.removeprefix(METADATA))
            if text is None:
                raise FormatError(where, f"the model's metadata has no {name.removeprefix(METADATA)!r}")
            return text.encode()
        if name not in self.attachments:
            raise FormatError(where, f"no attachment is called {name!r}")
        return self.attachments[name]

    def lines(self, name: str, where: str) -> tuple[str, ...]:
        """Return the lines of a text in UTF-8; the last one may end with a line feed or not."""
        data = bytes(self.data(name, where))
        if (count := data.count(b"\n") + 1) > LABELS_MAX + 1:
            raise LimitError(f"{where}: lines of {name}", count, LABELS_MAX)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise FormatError(where, f"{name!r} is not UTF-8") from None
        return tuple(text.removesuffix("\n").split("\n"))
