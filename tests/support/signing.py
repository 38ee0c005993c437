"""Keys, and seeds that are signed by hand as SPEC.md describes it."""

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
from tests.support.seed_builder import Replacement, build_seed
from tests.support.spec_bytes import string, u16, u32, u64, varint

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen isn't installed")
MESSAGE_START = bytes.fromhex("01000000 5347")
STREAMS = ("raw", "grid")


def new_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair. Returns the private key's file; the public key has the same name and `.pub`."""
    bits = ["-b", "1024"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", "a test's", "-f", str(path)], check=True
    )
    return path


def trusted_key(folder: Path) -> Path:
    """Make a key whose seeds this machine accepts."""
    path = new_key(folder / "key")
    write_allowed_signers(f"alice@example.org {public_key(path)}")
    return path


def public_key(key: Path) -> str:
    """Return type and key as they stand in allowed_signers."""
    return " ".join(key.with_name(key.name + ".pub").read_text().split()[:2])


def fingerprint(key: Path) -> str:
    """Return the fingerprint that ssh-keygen prints."""
    done = subprocess.run(["ssh-keygen", "-l", "-f", str(key) + ".pub"], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def make_signature(message: bytes, key: Path, namespace: str = "seed") -> bytes:
    """Let ssh-keygen sign a message. Returns the signature without its armour."""
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key)],
        input=message,
        check=True,
        capture_output=True,
    )
    return base64.b64decode(b"".join(done.stdout.splitlines()[1:-1]))


def split_header(seed: bytes) -> tuple[bytes, bytes]:
    """Return header and body of a seed."""
    end = 56 + int.from_bytes(seed[12:16], "little")
    return seed[56:end], seed[end:]


def join_header(header: bytes, body: bytes) -> bytes:
    """Return a seed of this header and body, with a preamble that fits them."""
    start = bytes.fromhex("89534545440d0a1a 0100 0000") + u32(len(header)) + u64(56 + len(header) + len(body))
    return start + hashlib.sha256(start + header).digest() + header + body


def add_signature(seed: bytes, signature: bytes) -> bytes:
    """Return an unsigned seed with this signature added to its header."""
    header, body = split_header(seed)
    return join_header(header + u16(0xFFFF) + u32(len(signature)) + signature, body)


def sign_seed(seed: bytes, key: Path, namespace: str = "seed") -> bytes:
    """Return the seed with a valid signature."""
    return add_signature(seed, make_signature(MESSAGE_START + split_header(seed)[0], key, namespace))


def unsigned_seed(
    name: str, version: int, streams: Sequence[str] = STREAMS, replaced: Mapping[str, Replacement] | None = None
) -> bytes:
    """Return a small unsigned seed of that model id and version."""
    return build_seed({"model.id": string(name), "model.version": varint(version), **(replaced or {})}, streams=streams)


def write_allowed_signers(*lines: str) -> Path:
    """Write allowed_signers in the test's own configuration folder."""
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "seed" / "allowed_signers"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def accepted_file() -> Path:
    """Return the path of the file in which the test's accepted versions stand."""
    return Path(os.environ["XDG_STATE_HOME"]) / "seed" / "accepted.json"


def open_and_check(data: bytes) -> seed_runtime.Seed:
    """Open and check a seed, which is then an accepted one."""
    seed = seed_runtime.open(io.BytesIO(data))
    seed.check()
    return seed


def refusal_line(data: bytes) -> str:
    """Return the one line with which this machine refuses a seed."""
    with pytest.raises(TrustError) as caught:
        seed_runtime.open(io.BytesIO(data))
    assert caught.value.exit_code == 11
    line = str(caught.value)
    assert "\n" not in line
    assert ";" in line
    return line


def digest_of(data: bytes) -> str:
    """Return the digest of a seed in hexadecimal."""
    return data[24:56].hex()
