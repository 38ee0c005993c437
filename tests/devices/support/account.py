"""Give a server an account of its own for the user who runs the tests: another home, login shell and password.

The server runs in a mount namespace in which /etc/passwd and /etc/shadow are other files; this needs root.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

PASSWORD = "open sesame"
_HASH = "$6$seedseed$9FyrRpgot2GctZZH2XtyFQ/dJyXAtm1DUMvByHteXszT2V2R2GLfYlYSUJlsZe1BOVgwSRLXhqxSAOKvcZmRW0"
"""PASSWORD as `openssl passwd -6` hashes it."""


def make_home(folder: Path) -> Path:
    """Make the home of an account, with the store in its usual place, and return it."""
    home = folder / "account"
    # A server takes keys from folders that nobody else can write to.
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    (home / "store").mkdir()
    (home / ".local" / "share").mkdir(parents=True)
    (home / ".local" / "share" / "seed").symlink_to(home / "store")
    return home


def own_account(folder: Path, home: Path, command: list[str], *, shell: str = "/bin/sh") -> list[str]:
    """Return the command line that runs a server with the account. Skips the test where that can't be.

    Args:
        folder: for the files of the account.
        home: the user's home, see `make_home`.
        command: the server, which stays in the foreground.
        shell: the user's login shell.
    """
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("a mount namespace needs root, and a system that allows it")
    user = pwd.getpwuid(os.geteuid())
    lines = {
        "passwd": f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}::{home}:{shell}\n",
        "shadow": f"{user.pw_name}:{_HASH}:20000:0:99999:7:::\n",
    }
    script = ""
    for name, line in lines.items():
        others = Path("/etc", name).read_text().splitlines(keepends=True)
        path = folder / name
        path.write_text(line + "".join(each for each in others if not each.startswith(f"{user.pw_name}:")))
        path.chmod(0o644 if name == "passwd" else 0o600)
        script += f"mount --bind {shlex.quote(str(path))} /etc/{name} && "
    return [unshare, "-m", "sh", "-c", f"{script}exec {shlex.join(command)}"]
