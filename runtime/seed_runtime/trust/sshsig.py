"""Signatures in the format SSHSIG, checked by the system's ssh-keygen: there is no cryptography of our own.

Format: PROTOCOL.sshsig of OpenSSH. A blob here is what is between its lines of armour, decoded.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from pathlib import Path
from typing import Final

from seed_runtime.errors import TrustError, UntrustedError
from seed_runtime.format.primitives import printable

NAMESPACE: Final = "seed"
"""The purpose that a signature must have been made for."""
INSTALL: Final = "install OpenSSH's: sudo apt install openssh-client"
"""The next step without ssh-keygen."""
ELSEWHERE: Final = "get it from somebody you trust"
"""The next step with a seed whose signature is wrong."""
_PRINCIPALS_MAX = 16
"""Largest number of names of one signer that are tried."""
_TIMEOUT_S = 60.0
"""Time for one call of ssh-keygen, in seconds."""
_WRONG: Final = "incorrect signature"
"""ssh-keygen's words for a signature that was checked and doesn't fit its bytes."""


def find_signer(signature: bytes, signed: bytes, allowed: Path, name: str, when: int | None = None) -> str:
    """Return the first name of the allowed signer whose signature this is.

    Args:
        signature: the blob.
        signed: the bytes that it covers.
        allowed: the file of allowed signers.
        name: how messages name the seed.
        when: a time at which the signer must have been allowed, in seconds since 1970; None for now.

    Raises:
        UntrustedError: the signature is wrong.
        TrustError: its signer isn't allowed, or it can't be checked.
    """
    key = describe_key(signature, name)
    listed = ["-f", str(allowed)]
    if when is not None:
        listed += ["-O", time.strftime("verify-time=%Y%m%d%H%M%S", time.localtime(when))]
    _, found, problem = _ssh_keygen(["find-principals", *listed], signature, b"")
    for principal in found.splitlines()[:_PRINCIPALS_MAX]:
        done, _, problem = _ssh_keygen(["verify", *listed, "-n", NAMESPACE, "-I", principal], signature, signed)
        if done:
            return principal if printable(principal) else "an allowed signer"
    check_signature(signature, signed, name)
    today = time.strftime("%Y-%m-%d %H:%M")
    raise TrustError(
        f"{name} is signed with {key}, which {allowed} doesn't allow ({problem}; this machine's clock says {today}); "
        f"add the signer there if you trust it, or {ELSEWHERE}"
    )


def check_signature(signature: bytes, signed: bytes, name: str = "the seed") -> None:
    """Check that a signature covers these bytes, whoever made it.

    Raises:
        UntrustedError: it doesn't.
        TrustError: that can't be checked.
    """
    describe_key(signature, name)
    done, _, problem = _ssh_keygen(["check-novalidate", "-n", NAMESPACE], signature, signed)
    if not done:
        # Any other complaint may be about ssh-keygen itself: before OpenSSH 8.2 it knows no signatures.
        kind = UntrustedError if _WRONG in problem else TrustError
        raise kind(f"{name}: its signature is wrong ({problem}); {ELSEWHERE}")


def describe_key(signature: bytes, name: str = "the seed") -> str:
    """Return type and fingerprint of the key that a blob names, as ssh-keygen -l shows them.

    Raises:
        UntrustedError: it isn't a blob as SPEC.md describes.
    """
    if not signature.startswith(b"SSHSIG\0\0\0\1"):
        raise UntrustedError(f"{name}: its signature is not in the format SSHSIG; {ELSEWHERE}")
    rest, strings = memoryview(signature)[10:], []
    while rest:
        size = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + size:
            break
        strings.append(bytes(rest[4 : 4 + size]))
        rest = rest[4 + size :]
    # Public key, namespace, reserved, hash, signature. The reserved field isn't signed: if it might hold anything,
    # anybody could give the same seed another digest.
    if rest or len(strings) != 5 or strings[1:3] != [NAMESPACE.encode(), b""] or len(strings[0]) < 4:
        raise UntrustedError(f'{name}: its signature is not one of SPEC.md ("Signatures"); {ELSEWHERE}')
    kind = strings[0][4 : 4 + int.from_bytes(strings[0][:4], "big")].decode("ascii", "replace")
    fingerprint = base64.b64encode(hashlib.sha256(strings[0]).digest()).decode().rstrip("=")
    return f"{kind if printable(kind) else 'unknown'} SHA256:{fingerprint}"


def _ssh_keygen(action: list[str], signature: bytes, data: bytes) -> tuple[bool, str, str]:
    """Call ssh-keygen. Return whether it agrees, what it prints, and the first line of its complaint."""
    # Imported here, as subprocess takes 0.9 MiB and most machines check no signatures.
    import shutil
    import subprocess
    import tempfile

    program = shutil.which("ssh-keygen")
    if program is None:
        raise TrustError(f"signatures can't be checked: ssh-keygen is not there; {INSTALL}")
    body = base64.encodebytes(signature)
    armoured = b"-----BEGIN SSH SIGNATURE-----\n" + body + b"-----END SSH SIGNATURE-----\n"
    try:
        # In memory, since the disk may be full or read-only.
        memory = os.fdopen(os.memfd_create("signature"), "w+b") if hasattr(os, "memfd_create") else None
        with memory or tempfile.TemporaryFile() as file:
            file.write(armoured)
            file.flush()
            file.seek(0)
            done = subprocess.run(
                [program, "-Y", *action, "-s", f"/dev/fd/{file.fileno()}"],
                input=data,
                capture_output=True,
                pass_fds=(file.fileno(),),
                timeout=_TIMEOUT_S,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrustError(f"signatures can't be checked, {program}: {error}; see that it runs: ssh-keygen -?") from None
    complaint = (done.stderr.decode("utf-8", "replace").splitlines() or [f"exit code {done.returncode}"])[0].strip()
    complaint = complaint.rstrip(".") if printable(complaint) else "no reason that can be printed"
    return done.returncode == 0, done.stdout.decode("utf-8", "replace"), complaint
