"""Errors as answers: exit code, class and one line (docs/exit-codes.md)."""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from seed_runtime.errors import DiskSpaceError, SeedError, TrustError

_SETTING: Final = (
    errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG
)  # fmt: skip
"""Errors of the system that another setting of the device avoids."""
_FREE_SOME: Final = "free some space on the device, such as with: seed-deploy remove HOST:NAME"
"""The next step on a full disk. The host writes its own name for the device in place of HOST."""


def failure_answer(error: Exception) -> dict[str, Any]:
    """Return the answer to a request that failed with `error`."""
    kind, code, text = _describe(error)
    return {"ok": False, "exit": code, "kind": kind, "error": " ".join(text.split())}


def _describe(error: Exception) -> tuple[str, int, str]:
    """Return the name of the error's class, its exit code and its text."""
    if isinstance(error, DiskSpaceError):
        # Its own text names flags of seed-run.
        short = f"{error.needed:,} bytes are needed in {error.folder} and {error.free:,} are free"
        return "DiskSpaceError", 13, f"{short}; {_FREE_SOME}"
    if isinstance(error, TrustError) and _is_full(error.__context__):
        return "DiskSpaceError", 13, f"{error.__context__}; {_FREE_SOME}"
    if isinstance(error, SeedError):
        return type(error).__name__, error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return (
            "MemoryBudgetError",
            14,
            "this device has no memory left; stop other programs on it, or use a smaller model",
        )
    if isinstance(error, OSError):
        return _describe_system_error(error)
    return (
        "SeedError",
        1,
        f"internal error: {type(error).__name__}: {error}; run it with SEED_DEBUG=1 and report the traceback",
    )


def _describe_system_error(error: OSError) -> tuple[str, int, str]:
    what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
    if _is_full(error):
        return "DiskSpaceError", 13, f"{what}; {_FREE_SOME}"
    if error.errno == errno.EROFS:
        return "UsageError", 2, f"{what}; make it writable: sudo mount -o remount,rw {_mount_point(error.filename)}"
    if error.errno in _SETTING:
        return "UsageError", 2, f"{what}; change its permissions, or set SEED_HOME to a folder that can be written to"
    return "SeedError", 1, what


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _mount_point(path: Any) -> str:
    """Return where the file system of `path`, or of the home folder, is mounted."""
    found = os.path.abspath(path) if isinstance(path, str | os.PathLike) else os.path.expanduser("~")
    while not os.path.ismount(found):
        found = os.path.dirname(found)
    return str(found)
