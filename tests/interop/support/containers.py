"""buildah and podman for arm64 images, with a storage of their own in the user's cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.interop.support.arm64 import CACHE, CPUINFO, UnavailableError, call, locked, made, packages, required, tool
from tests.support.project import ROOT

BASE = "localhost/seed-base"
BASE_PACKAGES = ("?essential", "?priority(required)", "apt", "python3", "python3-venv", "libstdc++6", "openssh-client")
"""The packages of debian:bookworm-slim, and those that the build would install."""
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
"""Folders of Debian's packages that are left out, as in debian:bookworm-slim."""
BINFMT = Path("/proc/sys/fs/binfmt_misc")


class Engine:
    """Builds and runs images for arm64. UnavailableError if that can't be done here."""

    def __init__(self) -> None:
        required()
        for name in ("buildah", "podman", "runc"):
            tool(name)
        if os.geteuid():
            raise UnavailableError("building under emulation needs root, and this user isn't")
        emulate()
        folder = CACHE / "containers"
        folder.mkdir(exist_ok=True)
        driver = "overlay" if "\toverlay\n" in Path("/proc/filesystems").read_text() else "vfs"
        self._options = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", driver]
        self._cpuinfo = folder / "cpuinfo"
        self._cpuinfo.write_text(CPUINFO)

    def import_base(self) -> None:
        """Make the image BASE, which stands for debian:bookworm-slim with Python."""
        base = made("base", f"3 {' '.join(BASE_PACKAGES)}", _make_base)
        made("base-image", str((base / "base.tar").stat().st_mtime_ns), lambda _: self._import(base / "base.tar"))

    def build(self, context: Path, image: str, *options: str) -> str:
        """Build `context` from its Dockerfile.arm64, from nothing that an earlier build left. Returns its digest."""
        command = ["buildah", *self._options, "build", "--isolation", "chroot", "--platform", "linux/arm64"]
        command += ["--pull=never", "--no-cache", "--build-arg", f"BASE={BASE}", *options]
        call([*command, "-f", str(context / "Dockerfile.arm64"), "-t", image, str(context)], timeout=900)
        return self.inspect(image, "{{.Digest}}")

    def inspect(self, image: str, template: str) -> str:
        """Return what a template of podman's says about an image."""
        return call(["podman", *self._options, "image", "inspect", "--format", template, image]).strip()

    def run(self, image: str, words: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        """Run an image without network. Any exit code is accepted."""
        command = self._run(image, words, *options)
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )

    @contextlib.contextmanager
    def started(self, image: str, words: Sequence[str], *options: str) -> Iterator[str]:
        """Run an image in the background. Yields the container's name."""
        name = call(self._run(image, words, "--detach", *options)).strip()
        try:
            yield name
        finally:
            call(["podman", *self._options, "rm", "--force", "--time", "2", name])

    def healthy(self, name: str) -> bool:
        """Return whether a container's healthcheck passes, a second from now."""
        time.sleep(1)
        command = ["podman", *self._options, "healthcheck", "run", name]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    def _run(self, image: str, words: Sequence[str], *options: str) -> list[str]:
        command = ["podman", *self._options, "run", "--rm", "--runtime", "runc", "--network", "none", "--pull", "never"]
        command += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        return [*command, "-v", f"{self._cpuinfo}:/proc/cpuinfo:ro", *options, image, *words]

    def remove(self, *images: str) -> None:
        """Remove images."""
        call(["podman", *self._options, "rmi", "--force", *images])

    def _import(self, tar: Path) -> None:
        call(["podman", *self._options, "import", "--os", "linux", "--arch", "arm64", str(tar), BASE], timeout=300)


def context(folder: Path, wheelhouse: Path) -> Path:
    """Copy what the image is built from, with wheels for a build that has no network."""
    folder.mkdir()
    for name in ("Dockerfile.arm64", ".dockerignore", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("devices", "exporter", "runtime"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(wheelhouse, folder / "wheelhouse")
    return folder


def emulate(name: str = "qemu-aarch64") -> None:
    """Let the kernel start arm64 programs in any root, or with `qemu-arm` those of 32-bit ARM."""
    with locked("binfmt.lock"):  # one registration serves the whole machine
        if not (BINFMT / "register").exists():
            call([tool("mount"), "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
        if not (BINFMT / name).exists():
            call([tool("update-binfmts"), "--import"])
            call([tool("update-binfmts"), "--enable", name])
        if not (BINFMT / name).exists():
            raise UnavailableError(f"the kernel doesn't run programs by {name}; see update-binfmts(8)")


def _make_base(folder: Path) -> None:
    root = folder / "root"
    root.mkdir()
    packages(root, "arm64", BASE_PACKAGES)
    for name in LEFT_OUT:
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    call(["tar", "-C", str(root), "-c", "-f", str(folder / "base.tar"), "--numeric-owner", "."])
    shutil.rmtree(root)
