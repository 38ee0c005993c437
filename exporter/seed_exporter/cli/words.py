"""Words after `seed-export` that are no file of a model: its other commands, and recipes."""

from __future__ import annotations

from typing import Final

COMMANDS: Final[tuple[str, ...]] = ("archive", "batch", "compare", "zoo")
"""Commands beside the export of a model; each is the click command `command` of the module of this name."""
RECIPE: Final = "zoo:"
"""What the name of a recipe begins with that stands in place of a model; a file of such a name is written ./zoo:..."""

INTERRUPTED: Final = {
    "archive": "interrupted; the checkpoints that are in the archive are whole",
    "batch": "interrupted; the seeds that are made are whole, the same command again makes the others",
    "compare": "interrupted; what was measured so far, if anything, is above",
}
"""What there is to say of Ctrl-C, by command, where something may have been written."""
