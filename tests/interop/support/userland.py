"""An arm64 userland behind a real sshd of this machine: commands run in it, emulated process by process."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from tests.devices.support.sshd import Device, Sshd
from tests.interop.support.arm64 import CPUINFO, UnavailableError, made, packages, tool
from tests.interop.support.containers import emulate

PACKAGES = ("base-files", "bash", "coreutils", "dash", "findutils", "grep", "libc-bin", "libstdc++6", "openssh-client",
            "procps", "python3", "python3-venv", "sed")  # fmt: skip
HOME = "/home/pi"
_ENTER = """\
#!/bin/sh
command=$SSH_ORIGINAL_COMMAND
mount -t proc proc {root}/proc &&
mount --bind {cpuinfo} {root}/proc/cpuinfo &&
mount --rbind /dev {root}/dev &&
mount --bind {home} {root}{inner} &&
exec chroot {root} /usr/bin/env -i HOME={inner} PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 USER=pi \\
  sh -c "cd; $command"
"""


def root() -> Path:
    """Return the root file system, which is only read. UnavailableError if arm64 programs can't be run in it here."""
    for name in ("unshare", "chroot", "mount"):
        tool(name)
    if os.geteuid():
        raise UnavailableError("entering another root needs root, and this user isn't")
    emulate()
    folder = made("userland", f"1 {' '.join(PACKAGES)}", _make)
    tried = subprocess.run(["chroot", str(folder), "/usr/bin/uname", "-m"], capture_output=True, text=True, check=False)
    if tried.stdout != "aarch64\n":
        raise UnavailableError(f"arm64 programs don't start in it: {tried.stderr.strip() or tried.stdout.strip()}")
    return folder


def device(sshd: Sshd, alias: str, root: Path) -> Device:
    """Make a device without a runtime whose commands run in the userland. Its home is `home` here and HOME there."""
    folder = sshd.folder / f"userland-{alias}"
    (folder / "home").mkdir(parents=True)
    (folder / "cpuinfo").write_text(CPUINFO)
    enter = folder / "enter"
    names = {"root": root, "cpuinfo": folder / "cpuinfo", "home": folder / "home"}
    quoted = {name: shlex.quote(str(path)) for name, path in names.items()}
    enter.write_text(_ENTER.format(inner=HOME, **quoted))
    enter.chmod(0o755)
    # Mounts of its own for each login: they end with it.
    made = sshd.device(alias, runtime=False, command=f"exec unshare --mount --propagation private {enter}")
    return Device(made.alias, made.config, folder / "home")


def _make(folder: Path) -> None:
    packages(folder, "arm64", PACKAGES)
    for name in ("proc", "dev", "tmp", "home/pi"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc" / "passwd").write_text(f"root:x:0:0:root:{HOME}:/bin/sh\n")
    (folder / "etc" / "group").write_text("root:x:0:\n")
