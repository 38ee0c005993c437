"""Words after `seed-export` that are no model: its other commands, and those that are to come."""

from __future__ import annotations

from typing import Final

COMMANDS: Final[tuple[str, ...]] = ()
"""Commands beside the export of a model; each is the click command `command` of the module of this name."""
RESERVED: Final = ("compare", "batch", "zoo")
"""Words that commands to come will have; a model file of such a name is written ./zoo."""
