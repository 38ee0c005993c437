"""Folders for the ssh sockets of this process; those that killed processes left are removed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError

_PATH_MAX: Final = 84
"""Longest path of such a folder, in bytes. A socket's may have 107, and ssh makes it under a longer name first."""
_OLD_S: Final = 3600
"""Seconds after which a folder whose process can't be seen counts as left behind."""
_NAME: Final = re.compile(r"seed-([0-9]{1,10})-[a-z0-9_]{8}")


def make_control_dir() -> Path:
    """Make a folder with a short path that only this user can enter.

    Raises:
        UsageError: there is no place for it.
    """
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):
        prefix = f"seed-{os.getpid()}-"
        if base and os.access(base, os.W_OK) and len(os.fsencode(base)) + len(prefix) + 9 <= _PATH_MAX:
            _remove_stale(base)
            return Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    raise UsageError("no folder for ssh's socket; set TMPDIR to a folder that can be written to and has a short path")


def _remove_stale(base: str) -> None:
    """Remove the folders in `base` whose processes have ended."""
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if not match or not entry.is_dir(follow_symlinks=False):
                continue
            status = entry.stat(follow_symlinks=False)
            # Other users write into /tmp, too. The age is for containers that share it: their processes can't be seen.
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _OLD_S and not _runs(int(match[1])):
                shutil.rmtree(entry.path, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
