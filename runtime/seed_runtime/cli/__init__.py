"""`seed-run`: look into a seed, check it, assemble it, run it. How it ends is in entrypoint.py."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from seed_runtime.cli import entrypoint


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; argparse raises SystemExit (0 and 2)."""
    return entrypoint.run("seed-run", lambda: _dispatch(argv))


def _dispatch(argv: Sequence[str] | None) -> int:
    from seed_runtime.cli.arguments import parse

    job = parse(argv)
    # Each action is a module of its name with a function of its name, so that only what it needs is imported.
    command = getattr(importlib.import_module(f"seed_runtime.cli.{job.action}"), job.action)

    from seed_runtime.cli.terminal import Terminal
    from seed_runtime.system.scratch import scratch_parents, sweep

    sweep(scratch_parents())
    terminal = Terminal(quiet=job.quiet)
    try:
        code: int = command(job, terminal)
        return code
    finally:
        terminal.clear()
