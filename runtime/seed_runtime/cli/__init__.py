"""`seed-run`: look into a seed, check it, assemble it, run it.

Here: what every command has in common, which is how it ends. Results go to stdout, everything else to stderr,
and the last line there says what went wrong (docs/exit-codes.md).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from seed_runtime.errors import SeedError

_MODULES = {"inspect": "view", "verify": "check", "assemble": "check", "bench": "bench", "serve": "serve", "run": "run"}
"""Where the function of each action is: only what an action needs is imported."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SETTING = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG
)  # fmt: skip


class _Stopped(BaseException):
    """A signal that ends the process, as an exception: half-written files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        return 128 + self.number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. argparse leaves by SystemExit (0 and 2)."""
    with _signals() as stopped:
        try:
            for stream in (sys.stdout, sys.stderr):
                # Names in any script must not fail on a terminal that has another.
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
            code = _dispatch(argv)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            return _broken_pipe()
        except _Stopped as signalled:
            return signalled.exit_code
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            if stopped:
                # Extension modules turn what interrupts their import into an ImportError.
                return stopped[0].exit_code
            if os.environ.get("SEED_DEBUG"):
                import traceback

                traceback.print_exc()
            code, line = _explain(error)
            # One line, whatever a library put into its message.
            print("seed-run:", " ".join(line.split()), file=sys.stderr)
            return code


def _dispatch(argv: Sequence[str] | None) -> int:
    from seed_runtime.cli.arguments import parse

    job = parse(argv)
    command = getattr(importlib.import_module(f"seed_runtime.cli.{_MODULES[job.action]}"), job.action)

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


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code and what to tell."""
    if isinstance(error, SeedError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return (
            14,
            "this machine has no memory left; give a smaller input, or ask for a plan with --max-memory",
        )
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        if error.errno in _NO_SPACE:
            return 13, f"{what}; free some space, or write elsewhere"
        if error.errno in _SETTING:
            return 2, f"{what}; give another path, or change its permissions"
        return 1, what
    hint = "" if os.environ.get("SEED_DEBUG") else "; run it again with SEED_DEBUG=1 and report the traceback"
    return 1, f"internal error: {type(error).__name__}: {error}{hint}"


def _broken_pipe() -> int:
    """End as other commands do whose reader left, such as `head`: by SIGPIPE."""
    # What is still buffered would fail once more when the interpreter ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if hasattr(signal, "SIGPIPE"):
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
    return 1


@contextlib.contextmanager
def _signals() -> Iterator[list[_Stopped]]:
    """Turn Ctrl-C, a hangup and a termination into `_Stopped`, once: nothing interrupts the tidying up.

    Gives the list that it will stand in.
    """
    stopped: list[_Stopped] = []
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        stopped.append(_Stopped(number))
        raise stopped[0]

    before = {}
    # Only the main thread may; what was ignored, as under nohup, stays ignored.
    with contextlib.suppress(ValueError):
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
