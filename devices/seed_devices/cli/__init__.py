"""`seed-deploy`: push seeds to devices over SSH, and show what runs there.

This module imports the standard library and the runtime only, so that the command answers on the base install, too.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from seed_runtime.cli import entrypoint

_INSTALL = "seed-deploy: this needs the host's packages; install them: pip install 'seed-runtime[deploy]'"
_INTERRUPTED = "interrupted; each device runs a version that it checked, and the same command continues from here"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after the command's name; those of this process if None.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        import click  # noqa: F401
    except ModuleNotFoundError:
        return entrypoint.run("seed-deploy", lambda: _without_click(words))
    return entrypoint.run("seed-deploy", lambda: _run(words), interrupted=_INTERRUPTED)


def _without_click(words: list[str]) -> int:
    wants_help = words in (["--help"], ["-h"])
    if wants_help:
        print("usage: seed-deploy [--help] push|list|status|run|tune|logs|rollback|remove|doctor ...")
    print(_INSTALL, file=sys.stderr)
    return 0 if wants_help else 2


def _run(words: list[str]) -> int:
    import click

    from seed_devices.cli.commands import group
    from seed_devices.ssh import processes

    # A device may send letters that this terminal's encoding doesn't have.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    processes.allow_starts()
    try:
        return entrypoint.run_click(click, lambda: group.main(words, prog_name="seed-deploy", standalone_mode=False))
    except Exception:
        raise
    except BaseException:
        # The threads that wait for children would not end.
        processes.stop_all()
        raise
