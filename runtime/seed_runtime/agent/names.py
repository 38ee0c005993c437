"""Names of models, as they stand in the protocol and in the store."""

from __future__ import annotations

import re
from typing import Final

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The name of a model on a device. It is safe as a file name, a unit's name and a word of a shell."""
