"""Sign seeds with the system's ssh-keygen: `-Y sign` in the namespace "seed" (SPEC.md, "Signatures").

The key is any that ssh-keygen takes: a private key's file, or a public key whose private half is in the agent or in
hardware. There is no cryptography here, and no secret passes through this process.
"""

from __future__ import annotations

import base64
import binascii
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from seed_runtime.errors import TrustError, UsageError
from seed_runtime.limits import SIGNATURE_MAX
from seed_runtime.system.scratch import scratch_folder
from seed_runtime.trust import sshsig

TEST_MESSAGE: Final = b"seed-export: a test of the key, which signs no seed"
"""Message that is signed before an export, to find out whether the key works and how long its signatures are."""
SIZE_SLACK: Final = 4
"""Bytes by which two signatures of one key may differ [B]: ECDSA drops leading zeros of its two numbers."""


def size_of_signatures(key: Path) -> int:
    """Sign a message with the key, to see that it works, and return the most bytes that its signatures take.

    Raises:
        UsageError: ssh-keygen is missing, or the key can't sign.
    """
    return len(make_signature(TEST_MESSAGE, key)) + SIZE_SLACK


def make_signature(data: bytes, key: Path) -> bytes:
    """Sign `data` with `key` and check the signature.

    ssh-keygen asks for a passphrase or a touch by itself, where there is a terminal.

    Returns:
        An SSHSIG blob.

    Raises:
        UsageError: ssh-keygen is missing, or the key can't sign.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError(f"--sign needs ssh-keygen, which is not there; {sshsig.INSTALL}")
    if not key.is_file():
        raise UsageError(f"--sign {key}: there is no such key; make one: ssh-keygen -t ed25519 -f {key}")
    with scratch_folder() as folder:
        message = folder / "header"
        message.write_bytes(data)
        # A file, because ssh-keygen asks for no passphrase where the message comes through stdin. Its requests to
        # touch a hardware key go to stderr, which a terminal must therefore show.
        done = subprocess.run(
            [program, "-q", "-Y", "sign", "-n", sshsig.NAMESPACE, "-f", str(key), str(message)],
            stdin=None if sys.stdin is not None and sys.stdin.isatty() else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if sys.stderr is not None and sys.stderr.isatty() else subprocess.PIPE,
            check=False,
        )
        armoured = message.with_suffix(".sig")
        if done.returncode or not armoured.is_file():
            raise UsageError(
                f"--sign {key}: {_first_line(done.stderr)}; add the key to the agent (ssh-add), or use another key"
            )
        blob = _without_armour(armoured.read_bytes())
    if len(blob) > SIGNATURE_MAX:
        raise UsageError(
            f"--sign {key}: its signatures have {len(blob):,} bytes and the limit is {SIGNATURE_MAX:,}; "
            f"use another key, such as one of ssh-keygen -t ed25519"
        )
    try:
        sshsig.check_signature(blob, data)
    except TrustError as error:
        raise UsageError(
            f"--sign {key}: ssh-keygen rejects the signature that it made: {error}; use another key"
        ) from None
    return blob


def _without_armour(text: bytes) -> bytes:
    """Decode the bytes between the BEGIN and END lines."""
    words = text.split()
    # BEGIN SSH SIGNATURE and END SSH SIGNATURE are three words each.
    try:
        return base64.b64decode(b"".join(words[3:-3]), validate=True)
    except binascii.Error as error:
        raise UsageError(f"ssh-keygen wrote no signature: {error}; update OpenSSH") from None


def _first_line(stderr: bytes | None) -> str:
    """Return the first line of ssh-keygen's error message."""
    lines = (stderr or b"").decode("utf-8", "replace").splitlines()
    # The prompt for a passphrase stands before the first message, on the same line.
    return next((line.rpartition("passphrase: ")[2].strip() for line in lines if line.strip()), "it can't sign")
