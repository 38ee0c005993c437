"""Signs seeds with the system's ssh-keygen: `-Y sign` in the namespace "seed" (SPEC.md, "Signatures").

The key is any that ssh-keygen takes: a private key's file, or a public one whose private half is in the agent or in
hardware. No cryptography of our own, and no secret passes through this process.
"""

from __future__ import annotations

import base64
import binascii
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from seed_runtime.errors import TrustError, UsageError
from seed_runtime.limits import SIGNATURE_MAX
from seed_runtime.trust import sshsig

TRIAL: Final = b"seed-export: a trial, which signs nothing"
SIZE_SLACK: Final = 4
"""Bytes by which two signatures of one key may differ: ECDSA drops leading zeros of its two numbers."""


def signature_of(data: bytes, key: Path) -> bytes:
    """An SSHSIG blob over `data`, checked. UsageError if the key can't sign.

    ssh-keygen asks for a passphrase or a touch by itself, where there is a terminal.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError(f"--sign needs ssh-keygen, which is not there; {sshsig.INSTALL}")
    if not key.is_file():
        raise UsageError(f"--sign {key}: there is no such key; make one: ssh-keygen -t ed25519 -f {key}")
    with tempfile.TemporaryDirectory(prefix="seed-sign-") as folder:
        message = Path(folder) / "header"
        message.write_bytes(data)
        # A file, as ssh-keygen asks for no passphrase where the message comes through stdin. Its requests to touch a
        # hardware key go to stderr, which a terminal must therefore see.
        done = subprocess.run(
            [program, "-q", "-Y", "sign", "-n", sshsig.NAMESPACE, "-f", str(key), str(message)],
            stdin=None if sys.stdin is not None and sys.stdin.isatty() else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if sys.stderr is not None and sys.stderr.isatty() else subprocess.PIPE,
            check=False,
        )
        armoured = message.with_suffix(".sig")
        if done.returncode or not armoured.is_file():
            raise UsageError(f"--sign {key}: {_reason(done.stderr)}; load it into the agent (ssh-add), or give another")
        blob = _unarmoured(armoured.read_bytes())
    if len(blob) > SIGNATURE_MAX:
        raise UsageError(f"--sign {key}: its signatures have {len(blob):,} bytes, {SIGNATURE_MAX:,} is the limit")
    try:
        sshsig.check_bytes(blob, data)
    except TrustError as error:
        raise UsageError(f"--sign {key}: ssh-keygen doesn't agree with its own signature: {error}") from None
    return blob


def _unarmoured(text: bytes) -> bytes:
    lines = text.split()
    # BEGIN SSH SIGNATURE and END SSH SIGNATURE are three words each.
    try:
        return base64.b64decode(b"".join(lines[3:-3]), validate=True)
    except binascii.Error as error:
        raise UsageError(f"ssh-keygen wrote no signature: {error}; update OpenSSH") from None


def _reason(complaints: bytes | None) -> str:
    lines = (complaints or b"").decode("utf-8", "replace").splitlines()
    # The prompt for a passphrase stands before the first complaint, on the same line.
    return next((line.rpartition("passphrase: ")[2].strip() for line in lines if line.strip()), "it can't sign")
