"""Install a runtime on a device. Sent there and run by its own python3: standard library only.

    <store>/runtime/.lock                 held by the process that installs, and by its pip
    <store>/runtime/.wheels/              wheels that have arrived; NAME.part is one that is not complete
    <store>/runtime/<version>-<8 hex>.new      a runtime that is being made
    <store>/runtime/<version>-<8 hex>/    a whole one; appears by one rename, tested, with all its bytes on the disk
    <store>/runtime/current               the link to the runtime that is used; replaced by one rename

A kill or a power cut at any moment leaves `current` and what it names as they were. What is left over is removed by the
next installation, and so are runtimes older than the one before the current one, unless something runs from them.

Speaks JSON lines: requests on stdin, answers and progress on stdout. Operations: prepare, place, room, install. Ends
with its input. It travels as one program with installer_answers.py and installer_environment.py, see installer_client.
"""

# Python before 3.11 must get as far as reporting its version.
from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

from seed_devices.remote.installer_answers import RefusalError, beat, explain, progress, send
from seed_devices.remote.installer_environment import (
    clean_environment,
    in_use,
    make_environment,
    pip_failure,
    rename_inside,
    test_failure,
    text_version,
    version,
)

LINE_MAX = 1 << 20
"""Largest size of a request, in bytes."""
MARGIN = 16 << 20
"""Size of the disk space that stays free, in bytes."""
TEST_S = 600
"""Seconds that the first start may take; compiling NumPy takes a minute on the smallest boards."""
RUNTIME = re.compile(r"([0-9][0-9A-Za-z.+!]*)-[0-9a-f]{8}")
WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+!-]{0,250}\.whl")

# Compiles what was imported, under the name that the folder will have: tracebacks then name the right files.
TEST = """
import importlib, os, py_compile, sys
final, names = sys.argv[1], sys.argv[2:]
for name in names:
    importlib.import_module(name)
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None) or ""
    if file.startswith(sys.prefix + os.sep) and file.endswith(".py"):
        py_compile.compile(file, dfile=final + file[len(sys.prefix):], doraise=False, quiet=2)
"""


class Installer:
    """The runtime folder of one store, locked from `prepare` on."""

    def __init__(self) -> None:
        self.root = ""
        self.lock = -1
        self.wheels: dict[str, dict[str, Any]] = {}

    def prepare(
        self,
        store: str,
        known: str | None,
        wanted: list[int],
        wheels: list[dict[str, Any]],
        unpacked: int,
        wait_s: float,
    ) -> dict[str, Any]:
        """Take the lock, remove leftovers, and find out which wheels are missing.

        Args:
            store: the folder of the device's store.
            known: the runtime that the host knows of.
            wanted: the numbers of the version that is to be installed.
            wheels: name, SHA-256 and size of each wheel.
            unpacked: bytes that the wheels take when installed, and what comes after them.
            wait_s: seconds that another installation may take.

        Returns:
            State "there" if another host has installed what is wanted, else "send" and the missing wheels.
        """
        self.root = os.path.join(store, "runtime")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._take_lock(wait_s)
        current = self._current()
        if current and current != known and version(current) >= tuple(wanted):
            return {"state": "there", "path": current, "version": text_version(current)}
        self._clean()
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self.wheels = {wheel["name"]: wheel for wheel in wheels if WHEEL.fullmatch(wheel["name"])}
        known_names = {part for wheel in self.wheels for part in (wheel, self._part(wheel))}
        for name in set(os.listdir(self.folder)) - known_names:
            os.unlink(os.path.join(self.folder, name))
        missing = {}
        for name, wheel in self.wheels.items():
            path = os.path.join(self.folder, name)
            if not os.path.exists(path) or sha256(path) != wheel["sha256"]:
                missing[name] = {"path": self._begin(name), "have": os.path.getsize(self._begin(name))}
        needed = sum(self.wheels[name]["size"] - missing[name]["have"] for name in missing) + unpacked + MARGIN
        free = free_bytes(self.root)
        if needed > free:
            shutil.rmtree(self.folder, ignore_errors=True)
            text = f"{self.root}: the push needs {needed:,} bytes and {free:,} are free; free some space"
            raise RefusalError(13, text)
        return {"state": "send", "missing": missing}

    def store_wheel(self, name: str) -> dict[str, Any]:
        """Store a wheel that has arrived if its digest is right; otherwise empty its file, to be sent again."""
        part = self._begin(name)
        good = sha256(part) == self.wheels[name]["sha256"]
        if good:
            os.replace(part, os.path.join(self.folder, name))
        else:
            os.truncate(part, 0)
        return {"good": good, "path": part}

    def make_room(self) -> dict[str, Any]:
        """Remove the wheels that have arrived if the disk is full; returns the bytes that were free before."""
        free = free_bytes(self.root)
        if free < MARGIN:
            shutil.rmtree(self.folder, ignore_errors=True)
        return {"free": free}

    def install(
        self,
        version: str,
        own: str,
        pip: str,
        modules: list[str],
        online: bool,
        dependencies: bool,
        system: bool,
        extras: list[str],
    ) -> dict[str, Any]:
        """Make a runtime of the wheels, test it, and switch to it.

        Args:
            version: of the runtime.
            own: the name of seed-runtime's wheel.
            pip: the name of pip's wheel.
            modules: what the runtime must be able to import.
            online: let pip use its index.
            dependencies: install what seed-runtime needs.
            system: let the runtime use the packages of the device's Python.
            extras: of seed-runtime, whose packages are installed as well.
        """
        name = f"{version}-{secrets.token_hex(4)}"
        final = os.path.join(self.root, name)
        new = f"{final}.new"
        try:
            progress("environment", 0, 4)
            make_environment(new, system)
            progress("install", 1, 4)
            options = [] if online else ["--no-index"]
            options += ["--find-links", self.folder] if dependencies else ["--no-deps"]
            self._pip(new, pip, own + (f"[{','.join(extras)}]" if extras else ""), options, online)
            rename_inside(os.path.join(new, "bin"), new, final)
            progress("test", 2, 4)
            self._test(new, final, modules)
            progress("switch", 3, 4)
            os.sync()
            os.rename(new, final)
            sync_folder(self.root)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        before = self._current()
        self._switch(name)
        shutil.rmtree(self.folder, ignore_errors=True)
        keep = {name, os.path.basename(before or ""), *in_use(self.root)}
        for entry in os.listdir(self.root):
            if RUNTIME.fullmatch(entry) and entry not in keep:
                # Renamed first: a kill in between leaves nothing that looks like a runtime.
                gone = os.path.join(self.root, f".gone-{secrets.token_hex(4)}")
                os.rename(os.path.join(self.root, entry), gone)
                shutil.rmtree(gone, ignore_errors=True)
        progress("switch", 4, 4)
        return {"path": final, "version": version}

    @property
    def folder(self) -> str:
        """Return the folder of the wheels that have arrived."""
        return os.path.join(self.root, ".wheels")

    def _take_lock(self, wait_s: float) -> None:
        self.lock = os.open(os.path.join(self.root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    text = "another seed-deploy is installing the runtime there; wait for it, or run this again"
                    raise RefusalError(2, text) from None
                progress("wait", 0, 0)
                time.sleep(0.5)

    def _current(self) -> str | None:
        """Return the runtime that is used, if the link leads to a whole one."""
        try:
            name = os.readlink(os.path.join(self.root, "current"))
        except OSError:
            return None
        path = os.path.join(self.root, name)
        whole = RUNTIME.fullmatch(name) and os.access(os.path.join(path, "bin", "python"), os.X_OK)
        return path if whole else None

    def _clean(self) -> None:
        for entry in os.listdir(self.root):
            path = os.path.join(self.root, entry)
            if entry.startswith(".current-"):
                os.unlink(path)
            elif entry.startswith(".gone-") or entry.endswith(".new"):
                shutil.rmtree(path, ignore_errors=True)

    def _part(self, name: str) -> str:
        # Named by its digest as well: the rest of another build of the same version never goes behind it.
        return f"{name}.{self.wheels[name]['sha256'][:16]}.part"

    def _begin(self, name: str) -> str:
        path = os.path.join(self.folder, self._part(name))
        with open(path, "ab") as file:
            if file.tell() > self.wheels[name]["size"]:
                file.truncate(0)
        return path

    def _pip(self, new: str, pip: str, own: str, options: list[str], online: bool) -> None:
        command = [os.path.join(new, "bin", "python"), os.path.join(self.folder, pip, "pip"), "install", "--quiet"]
        command += ["--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--no-warn-script-location"]
        command += ["--no-input", "--only-binary=:all:", *options, os.path.join(self.folder, own)]
        code, output = self._run(command, clean_environment(keep_pip=online), None)
        if code:
            raise RefusalError(*pip_failure(output, online))

    def _test(self, new: str, final: str, modules: list[str]) -> None:
        environment = clean_environment(keep_pip=False) | {"PYTHONDONTWRITEBYTECODE": "1"}
        environment["ORT_DISABLE_TELEMETRY"] = "1"
        command = [os.path.join(new, "bin", "python"), "-P", "-c", TEST, final, *modules]
        code, output = self._run(command, environment, TEST_S)
        if code:
            raise RefusalError(12, test_failure(code, output))

    def _run(self, command: list[str], environment: dict[str, str], timeout: float | None) -> tuple[int, str]:
        # The lock goes along: if this process is killed, the next one waits for what it started.
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.root,
                pass_fds=(self.lock,),
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 1, f"it did not end within {timeout:.0f} s"
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def _switch(self, name: str) -> None:
        link = os.path.join(self.root, f".current-{secrets.token_hex(4)}")
        os.symlink(name, link)
        os.replace(link, os.path.join(self.root, "current"))
        sync_folder(self.root)


def sha256(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: str) -> int:
    """Return the free bytes of the disk that holds `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def sync_folder(path: str) -> None:
    """Bring the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """Answer requests until the input ends."""
    installer = Installer()
    operations: dict[str, Any] = {
        "prepare": installer.prepare,
        "place": installer.store_wheel,
        "room": installer.make_room,
        "install": installer.install,
    }
    # Once the host is gone there is nobody to answer; what was begun is finished, or removed by the next installation.
    with contextlib.suppress(BrokenPipeError):
        send({"installer": 1, "python": platform.python_version()})
        while line := sys.stdin.buffer.readline(LINE_MAX):
            request = json.loads(line)
            over = threading.Event()
            threading.Thread(target=beat, args=(over,), daemon=True).start()
            try:
                answer = {"ok": True, **operations[request.pop("op")](**request)}
            except BrokenPipeError:
                raise
            except Exception as error:
                answer = explain(error)
            over.set()
            send(answer)


if __name__ == "__main__":
    main()
