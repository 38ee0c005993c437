"""Debian's packages, wheels and emulators for tests on arm64, in folders of the user's cache.

Each folder is made once for its key and then only read; processes that want it at once take turns.
All of it comes from this machine's own package sources and pip's index; none of it needs root to be unpacked.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seed-arm64"
"""The cache, found when this is imported: tests have cache folders of their own."""
DEBIAN = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WHEELS = tuple(f"{name}=={version(name)}" for name in ("numpy", "onnxruntime"))
OPTIONAL = ("ai-edge-litert", "pillow", "tokenizers")
"""What seeds of other kinds need; none of it needs more than NumPy for what is used here."""
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
CPU = "cortex-a72"
"""Core of a Raspberry Pi 4. QEMU's own choice has every extension, and with SME int8 products are wrong there
(docs/arm64.md)."""
# Without it ONNX Runtime reads this machine's, which says nothing of an arm64 core, and crashes. QEMU looks for
# whatever an emulated process opens under its root first.
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


class UnavailableError(Exception):
    """Something can't be had on this machine; the text says why."""


def required() -> None:
    """Raise UnavailableError unless arm64 is foreign and can be emulated here."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UnavailableError(
            f"arm64 is emulated on Linux on x86-64; this is {platform.system()}, {platform.machine()}"
        )
    CACHE.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock that all tests on this machine share."""
    required()
    with (CACHE / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache, made again unless it is whole and was made for `key`.

    Processes that want the same folder at once take turns; different ones are made side by side.
    """
    folder, made_for = CACHE / name, CACHE / f"{name}.made-for"
    with locked(f"{name}.lock"):
        if not folder.is_dir() or not made_for.exists() or made_for.read_text() != key:
            made_for.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made_for.write_text(key)
    return folder


def tool(name: str) -> str:
    """Return the path of a program, which may stand where only root looks. UnavailableError if it is missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not found:
        raise UnavailableError(f"{name} is missing")
    return found


def call(command: Sequence[str], cwd: Path | None = None, timeout: float = 150) -> str:
    """Return what a command printed that must succeed. UnavailableError if it doesn't."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{command[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} took over {error.timeout:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "silent").splitlines()[-1]
        raise UnavailableError(f"{command[0]} returned {done.returncode}: {last}")
    return done.stdout


def packages(folder: Path, architecture: str, names: Sequence[str]) -> None:
    """Unpack packages of this machine's sources, and what they depend on, into `folder`; touches no state of apt's.

    Nothing in them is run. `/bin`, `/lib` and `/sbin` become links into `/usr`.
    """
    for name in ("bin", "lib", "sbin"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        state = Path(scratch)
        for part in ("state/lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True)
        (state / "status").touch()  # nothing is installed, so whatever is needed is fetched
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "Dir::State": state / "state",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "",
            "APT::Update::Post-Invoke": "",
            "Debug::NoLocking": "true",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        apt = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in settings.items())]
        call([*apt, "update"])
        call([*apt, "--no-install-recommends", "--download-only", "install", *names])
        for package in sorted((state / "cache" / "archives").glob("*.deb")):
            # Not `dpkg-deb -x`, which makes folders of those links.
            unpack = 'dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink -p -C "$1"'
            call(["bash", "-o", "pipefail", "-c", unpack, str(package), str(folder)])


def python_of(root: Path) -> Path:
    (python,) = (root / "usr" / "bin").glob("python3.*[0-9]")
    return python


def platforms() -> list[str]:
    # By pip's rules a wheel for an older glibc suits a newer one; given platforms, it wants them all listed.
    return [*(f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 37)), "--platform=manylinux2014_aarch64"]


def site(folder: Path, python: str, wheels: Sequence[str] = WHEELS) -> None:
    """Install wheels for arm64 and `python`, such as python3.11, into `folder`, without what they depend on."""
    call(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--no-compile"),
            *platforms(),
            f"--python-version={python.removeprefix('python')}",
            *("--target", str(folder), "--upgrade", *wheels),
        ]
    )


def wheelhouse(python: str = "3.11", extra: Sequence[str] = ()) -> Path:
    """Return a folder of arm64 wheels: NumPy, ONNX Runtime, what they depend on, and `extra`."""
    wanted = [*WHEELS, *extra]

    def make(folder: Path) -> None:
        call(
            [
                *(sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", *platforms()),
                *(f"--python-version={python}", "-d", str(folder), *wanted),
            ]
        )

    return made(f"wheelhouse-{python}", " ".join(wanted), make)


def emulator() -> Path:
    """Return the path of QEMU: this machine's, else one from its package sources."""
    installed = next(filter(None, map(shutil.which, EMULATORS)), None)
    if installed:
        return Path(installed)
    folder = made("qemu", "qemu-user-static", lambda folder: packages(folder, "amd64", ["qemu-user-static"]))
    for name in EMULATORS:
        if (folder / "usr" / "bin" / name).exists():
            return folder / "usr" / "bin" / name
    raise UnavailableError("the package qemu-user-static holds no qemu-aarch64")


class Processes:
    """Runs arm64 Python as processes of this machine, without root and without mounts."""

    def __init__(self) -> None:
        required()
        self._root = made("root", f"2 {' '.join(DEBIAN)}", _make_root)
        self._python = python_of(self._root)
        self._emulator = emulator()
        wheels = (*WHEELS, *(f"{name}=={version(name)}" for name in OPTIONAL))
        key = " ".join((self._python.name, *wheels))
        self.site = made("site", key, lambda folder: site(folder, self._python.name, wheels))

    def python(self, *arguments: str, paths: Sequence[Path], cpu: str = CPU, timeout: float = 240) -> str:
        """Return what it printed; its modules come from `paths`, WHEELS and OPTIONAL from the cache."""
        environment = {
            "HOME": os.environ.get("HOME", ""),
            "PATH": os.environ["PATH"],
            "PYTHONHOME": str(self._root / "usr"),
            "PYTHONPATH": ":".join(map(str, (self.site, *paths))),
            "PYTHONPYCACHEPREFIX": str(CACHE / "bytecode"),
            **{name: value for name, value in os.environ.items() if name.startswith("XDG_")},
        }
        done = subprocess.run(
            [str(self._emulator), "-cpu", cpu, "-L", str(self._root), str(self._python), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{arguments} returned {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def _make_root(folder: Path) -> None:
    packages(folder, "arm64", DEBIAN)
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc" / "cpuinfo").write_text(CPUINFO)
