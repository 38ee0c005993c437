"""`seed-export`: one file a command. This module answers on the device's install as well, by what to install."""

from __future__ import annotations

import importlib
import sys
import tempfile
from typing import NoReturn

from seed_exporter.cli.words import COMMANDS, INTERRUPTED
from seed_runtime.cli import entrypoint
from seed_runtime.system.scratch import scratch_parents, sweep

try:
    import click
except ModuleNotFoundError:  # the device's install
    print(
        "seed-export: this needs the exporter's packages; install them: pip install 'seed-runtime[export]'",
        file=sys.stderr,
    )
    sys.exit(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    words = sys.argv[1:] if arguments is None else arguments
    text = INTERRUPTED.get(words[0] if words else "", "interrupted, nothing was written")
    sys.exit(entrypoint.run("seed-export", lambda: _run(words), interrupted=text, space=_space_advice))


def _run(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words and words[0] in COMMANDS else ("export", words)
    command = importlib.import_module(f"{__name__}.{name}").command
    program = "seed-export" if name == "export" else f"seed-export {name}"
    sweep(scratch_parents())
    return entrypoint.run_click(click, lambda: command.main(rest, prog_name=program, standalone_mode=False))


def _space_advice() -> str:
    return f"free some, write elsewhere with -o, or let TMPDIR name a larger folder than {tempfile.gettempdir()}"
