"""Begin and end seed-run, seed-export and seed-deploy: exit codes of errors, signals and closed pipes.

Results go to stdout, everything else to stderr, and the last line there says what went wrong: docs/exit-codes.md is
the contract. Imports the standard library and `errors`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NoReturn

from seed_runtime.errors import SeedError, UsageError

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk."""
_SETTING: Final = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP,
    errno.ENAMETOOLONG,
)  # fmt: skip
"""Errors that another path, or other permissions, would avoid."""


def is_interrupt(error: BaseException) -> bool:
    """Return whether an exception stands for Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, Stopped) and error.number == signal.SIGINT)


def listen_again() -> None:
    """Let the next Ctrl-C interrupt again, for a command that finishes something after the first one."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Stopped(BaseException):
    """A signal that ends the process, as an exception: half-written files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.said = ""
        """What the command says about it; its usual text if there is none."""

    @property
    def exit_code(self) -> int:
        """Exit code with which a shell reports a process that ended by this signal."""
        return 128 + self.number


def space_advice() -> str:
    """Return the advice for a full disk of this machine."""
    return "free some space, or write elsewhere"


def run(name: str, work: Callable[[], int], *, interrupted: str = "", space: Callable[[], str] = space_advice) -> int:
    """Do the work of a command and return the exit code. SystemExit passes: argparse raises it.

    Args:
        name: of the command, for messages.
        work: returns the exit code where nothing goes wrong.
        interrupted: what to say after Ctrl-C, unless the KeyboardInterrupt has a text of its own.
        space: a `space_advice` of the command's own.
    """
    code = 0
    try:
        with _signals() as stopped:
            code = _code(name, work, stopped, space)
        if not stopped:
            return code
        said = stopped[0].said or interrupted
        if said and stopped[0].number == signal.SIGINT:
            # Not behind the terminal's ^C.
            _say(f"{name}: {said}", first="\n" if sys.stderr.isatty() else "")
        return stopped[0].exit_code
    finally:
        for stream in (sys.stdout, sys.stderr):
            _drop_unwritten(stream)


def run_click(click: Any, call: Callable[[], object]) -> int:
    """Call click's `main(..., standalone_mode=False)`; its exceptions become those that `run` knows.

    Args:
        click: the module, which the runtime itself never imports.
        call: calls `main`.

    Returns:
        The exit code.
    """
    try:
        code = call()
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group that was called alone; since click 8.2
            error.show()
            return int(error.exit_code)
        context = getattr(error, "ctx", None)
        advice = "" if context is None else f"; see: {context.command_path} --help"
        raise UsageError(error.format_message().rstrip(".") + advice) from None
    except click.Abort as error:
        # Of a KeyboardInterrupt, and of an EOFError that means something else; click 8.1 hides which.
        raise error.__cause__ or error.__context__ or error from None
    except SystemExit as error:
        # So it leaves after a broken pipe, and after completing a word for the shell.
        if error.code == 1:
            raise BrokenPipeError from None
        raise
    return code if isinstance(code, int) else 0


def explain(error: BaseException, space: Callable[[], str] = space_advice) -> tuple[int, str]:
    """Return the exit code of an error, and its one line."""
    code, line = _explain(error, space)
    # A library's message may have several lines.
    return code, " ".join(line.split())


def _explain(error: BaseException, space: Callable[[], str]) -> tuple[int, str]:
    if isinstance(error, SeedError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return 14, "this machine has no memory left; give a smaller model or input, or end what else runs here"
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        if error.errno in _NO_SPACE:
            # An error of stdout has no name, and "device" alone would read as one that is pushed to.
            return 13, f"{error.filename or 'this machine'}: {error.strerror}; {space()}"
        if error.errno in _SETTING:
            return 2, f"{what}; give another path, or change its permissions"
        return 1, what
    hint = "" if os.environ.get("SEED_DEBUG") else "; run it again with SEED_DEBUG=1 and report the traceback"
    return 1, f"internal error: {type(error).__name__}: {error}{hint}"


def _code(name: str, work: Callable[[], int], stopped: list[Stopped], space: Callable[[], str]) -> int:
    try:
        _open_missing()
        for stream in (sys.stdout, sys.stderr):
            # A name in any script must not fail on a terminal with another encoding.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return _flushed(work)
    except BrokenPipeError:
        return _broken_pipe()
    except KeyboardInterrupt as error:
        # As of a library, or of a command that finished something; the signal itself is a `Stopped`.
        stopped.append(Stopped(signal.SIGINT))
        stopped[0].said = str(error)
        return 130
    except Exception as error:
        # Extension modules turn a signal that interrupts their import into an ImportError.
        if stopped:
            return stopped[0].exit_code
        if os.environ.get("SEED_DEBUG"):
            import traceback

            traceback.print_exc()
        code, line = explain(error, space)
        _say(f"{name}: {line}")
        return code


def _flushed(work: Callable[[], int]) -> int:
    """Do the work and write out what it printed, also where it leaves by SystemExit, as after --help."""
    try:
        code = work()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _say(line: str, first: str = "") -> None:
    """Print a line on stderr. Where that can't be written to either, the exit code says what there is to say."""
    with contextlib.suppress(OSError):
        print(first, line, sep="", file=sys.stderr)


def _drop_unwritten(stream: Any) -> None:
    """Drop what a stream couldn't write: at its end the interpreter would fail on it again, with a code of its own."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:  # closed
        pass


def _open_missing() -> None:
    """Open stdout and stderr to /dev/null where the caller closed them: a file of ours could take their numbers."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _broken_pipe() -> int:
    """End by SIGPIPE, as other commands do whose output nobody reads any more."""
    _drop_unwritten(sys.stdout)
    if hasattr(signal, "SIGPIPE"):
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
    return 1


@contextlib.contextmanager
def _signals() -> Iterator[list[Stopped]]:
    """Turn Ctrl-C, a hangup and a termination into `Stopped`, once: nothing interrupts the cleaning up.

    Yields the list that it will stand in. It is not raised beyond this block.
    """
    stopped: list[Stopped] = []
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        stopped.append(Stopped(number))
        raise stopped[0]

    before = {}
    # Only the main thread may; what was ignored, as under nohup, stays ignored.
    with contextlib.suppress(ValueError):
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield stopped
    except Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
