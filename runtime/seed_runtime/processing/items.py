"""What a model is asked about: a picture, a text, a sound or any file, on the disk or in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from seed_runtime.errors import InputError

PICTURE: Final = "picture"
TEXT: Final = "text"
SOUND: Final = "sound"
FILE: Final = "file"
"""Any file, of which a model takes the bytes."""

SUFFIXES: Final = {".png": PICTURE, ".jpg": PICTURE, ".jpeg": PICTURE, ".wav": SOUND}
"""Medium of files by the ends of their names."""


@dataclass(frozen=True)
class Item:
    """A picture, a text, a sound or a file."""

    medium: str
    """PICTURE, TEXT, SOUND or FILE."""
    name: str
    """Name for messages and results: a path, or such as "text 2"."""
    path: Path | None = None
    data: bytes = b""
    """Bytes of the file, where there is no path."""
    text: str = ""

    def open(self) -> BinaryIO:
        """Open the file for reading.

        Raises:
            InputError: it can't be opened.
        """
        if self.path is None:
            return io.BytesIO(self.data)
        try:
            return self.path.open("rb")
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}; give the path of a {self.medium}") from None
