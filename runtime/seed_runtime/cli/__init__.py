"""`seed-run`: look into a seed, check it, assemble it, run it. How it ends is in entrypoint.py."""

from __future__ import annotations

import importlib
import os
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

    # Before ONNX Runtime is loaded: 1.32 otherwise writes a device id and a database into the user's cache, opens
    # connections, and takes 2 MiB and a thread for it. disable_telemetry_events() comes too late for that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    terminal = Terminal(quiet=job.quiet)
    try:
        code: int = command(job, terminal)
        return code
    finally:
        terminal.clear()
