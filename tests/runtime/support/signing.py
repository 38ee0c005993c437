"""What the tests of signatures share: keys, and seeds that are signed by hand from SPEC.md. Holds no tests."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.errors import TrustError
from tests.attacks.support.seed_builder import Lie, forge
from tests.attacks.support.spec_bytes import string, u16, u32, u64, varint

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen isn't installed")
MESSAGE_START = bytes.fromhex("01000000 5347")
STREAMS = ("raw", "grid")


def new_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A private key's file; its public half has the same name and `.pub`."""
    bits = ["-b", "1024"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", "a test's", "-f", str(path)], check=True
    )
    return path


def trusted_key(folder: Path) -> Path:
    """A new key whose seeds this machine takes."""
    path = new_key(folder / "key")
    allow(f"alice@example.org {public(path)}")
    return path


def public(key: Path) -> str:
    """Type and key, as they stand in allowed_signers."""
    return " ".join(key.with_name(key.name + ".pub").read_text().split()[:2])


def fingerprint(key: Path) -> str:
    """As ssh-keygen prints it."""
    done = subprocess.run(["ssh-keygen", "-l", "-f", str(key) + ".pub"], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def blob(message: bytes, key: Path, namespace: str = "seed") -> bytes:
    """The signature that ssh-keygen makes, without its armour."""
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key)],
        input=message,
        check=True,
        capture_output=True,
    )
    return base64.b64decode(b"".join(done.stdout.splitlines()[1:-1]))


def halves(seed: bytes) -> tuple[bytes, bytes]:
    """Header and body."""
    end = 56 + int.from_bytes(seed[12:16], "little")
    return seed[56:end], seed[end:]


def assembled(header: bytes, body: bytes) -> bytes:
    """A seed whose preamble fits."""
    start = bytes.fromhex("89534545440d0a1a 0100 0000") + u32(len(header)) + u64(56 + len(header) + len(body))
    return start + hashlib.sha256(start + header).digest() + header + body


def with_signature(seed: bytes, signature: bytes) -> bytes:
    """An unsigned seed and that signature."""
    header, body = halves(seed)
    return assembled(header + u16(0xFFFF) + u32(len(signature)) + signature, body)


def signed(seed: bytes, key: Path, namespace: str = "seed") -> bytes:
    """The seed, rightly signed."""
    return with_signature(seed, blob(MESSAGE_START + halves(seed)[0], key, namespace))


def model(name: str, version: int, streams: Sequence[str] = STREAMS, lies: Mapping[str, Lie] | None = None) -> bytes:
    """A small seed of that model id and version, unsigned."""
    return forge({"model.id": string(name), "model.version": varint(version), **(lies or {})}, streams=streams)


def allow(*lines: str) -> Path:
    """Write allowed_signers in the test's own configuration folder."""
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "seed" / "allowed_signers"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def state_file() -> Path:
    """Where the test's accepted versions stand."""
    return Path(os.environ["XDG_STATE_HOME"]) / "seed" / "accepted.json"


def taken(data: bytes) -> seed_runtime.Seed:
    """The seed, opened, checked and so accepted."""
    seed = seed_runtime.open(io.BytesIO(data))
    seed.check()
    return seed


def refusal(data: bytes) -> str:
    """The one line with which this machine refuses it."""
    with pytest.raises(TrustError) as caught:
        seed_runtime.open(io.BytesIO(data))
    assert caught.value.exit_code == 11
    line = str(caught.value)
    assert "\n" not in line
    assert ";" in line
    return line


def digest_of(data: bytes) -> str:
    """Of a seed, in hexadecimal."""
    return data[24:56].hex()
