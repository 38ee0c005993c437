"""`seed-deploy`: carry seeds to devices over SSH and keep track of them.

Here: what all commands have in common, which is how they end. Results go to stdout, everything else to stderr, and
the last line there says what went wrong (docs/exit-codes.md). This module imports nothing beyond the standard
library, so that the command answers on the base install, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from seed_runtime.errors import SeedError

_INSTALL = "seed-deploy: this needs the host's packages; install them: pip install 'seed-runtime[deploy]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        import click  # noqa: F401
    except ModuleNotFoundError:
        wants_help = words in (["--help"], ["-h"])
        if wants_help:
            print("usage: seed-deploy [--help] push|list|status|run|logs|rollback|remove|doctor ...")
        print(_INSTALL, file=sys.stderr)
        return 0 if wants_help else 2
    with _signals() as stopped:
        code = _code(words)
    return 128 + stopped[0] if stopped else code


def _code(words: list[str]) -> int:
    import click

    from seed_devices import children
    from seed_devices.cli.commands import group

    children.begin()
    try:
        returned = group.main(words, prog_name="seed-deploy", standalone_mode=False)
        sys.stdout.flush()
        return returned if isinstance(returned, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Its reader left, as `head` does. What is still buffered would fail once more at the end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (click.Abort, KeyboardInterrupt):
        children.end_all()
        return _say("interrupted; the devices run what they ran before, and the same command goes on from here", 130)
    except Exception as error:
        if os.environ.get("SEED_DEBUG"):
            traceback.print_exc()
        return _say(*explain(error))


def explain(error: BaseException) -> tuple[str, int]:
    """What to tell of an error, and the exit code."""
    if isinstance(error, SeedError):
        return " ".join(str(error).split()), error.exit_code
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return f"{what}; check the path and its permissions", 2
    hint = "" if os.environ.get("SEED_DEBUG") else "; run again with SEED_DEBUG=1 and report it"
    return f"internal error: {error!r}{hint}", 1


def _say(line: str, code: int) -> int:
    print("seed-deploy:", line, file=sys.stderr)
    return code


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Turn a termination and a hangup into SystemExit, once: nothing interrupts the tidying up.

    Gives the list that the signal's number will stand in.
    """
    stopped: list[int] = []
    numbers: list[int] = [signal.SIGTERM, signal.SIGHUP]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in (*numbers, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        stopped.append(number)
        raise SystemExit(128 + number)

    before: dict[int, Any] = {}
    # Only the main thread may; what was ignored, as under nohup, stays ignored.
    with contextlib.suppress(ValueError):
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield stopped
    except SystemExit:
        if not stopped:
            raise
        from seed_devices import children

        children.end_all()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
