"""The signed vector: the example of SPEC.md with a signature, put together by hand from SPEC.md.

`signing_key` is no secret and signs nothing but this file: everybody has it.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.errors import TrustError
from seed_runtime.format.writer import front
from seed_runtime.skeletons.onnx import WEIGHTS_FILE
from tests.golden import plain
from tests.support.signing import (
    MESSAGE_START,
    needs_ssh_keygen,
    public_key,
    sign_seed,
    split_header,
    write_allowed_signers,
)

FOLDER = Path(__file__).parent
EXAMPLE, SIGNED, KEY = FOLDER / "example.seed", FOLDER / "signed.seed", FOLDER / "signing_key"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Copy the key with the permissions that ssh-keygen insists on, and git doesn't keep."""
    copy = tmp_path / "key"
    shutil.copyfile(KEY, copy)
    shutil.copyfile(f"{KEY}.pub", f"{copy}.pub")
    copy.chmod(0o600)
    return copy


def test_the_signed_vector_decodes_to_the_weights_of_the_example(tmp_path: Path) -> None:
    assert plain.decode(SIGNED.read_bytes()) == plain.decode(EXAMPLE.read_bytes())
    folder = seed_runtime.open(SIGNED).assemble(tmp_path / "model")
    assert (folder / WEIGHTS_FILE).read_bytes() == plain.decode(EXAMPLE.read_bytes())[1]


def test_our_writer_writes_the_front_of_the_signed_vector() -> None:
    written = front(seed_runtime.open(SIGNED).header)
    assert SIGNED.read_bytes().startswith(written)
    assert len(SIGNED.read_bytes()) == len(EXAMPLE.read_bytes()) + 6 + 174


@needs_ssh_keygen
def test_ssh_keygen_makes_the_signature_of_the_vector(key: Path) -> None:
    assert sign_seed(EXAMPLE.read_bytes(), key) == SIGNED.read_bytes()


@needs_ssh_keygen
def test_the_commands_of_the_specification_check_the_vector(tmp_path: Path) -> None:
    header = split_header(SIGNED.read_bytes())[0]
    unsigned = split_header(EXAMPLE.read_bytes())[0]
    assert header.startswith(unsigned)
    signature = header[len(unsigned) + 6 :]
    (tmp_path / "message.sig").write_text(armoured(signature))
    (tmp_path / "allowed_signers").write_text(f"tester@example.org {public_key(KEY)}\n")
    who = ["-I", "tester@example.org", "-f", "allowed_signers"]
    done = subprocess.run(
        ["ssh-keygen", "-Y", "verify", "-n", "seed", *who, "-s", "message.sig"],
        input=MESSAGE_START + unsigned,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert b'Good "seed" signature for tester@example.org' in done.stdout


def armoured(signature: bytes) -> str:
    return f"-----BEGIN SSH SIGNATURE-----\n{base64.encodebytes(signature).decode()}-----END SSH SIGNATURE-----\n"


@needs_ssh_keygen
def test_a_device_takes_the_vector_and_refuses_the_example() -> None:
    write_allowed_signers(f"tester@example.org {public_key(KEY)}")
    assert seed_runtime.open(SIGNED).signature().signer == "tester@example.org"
    with pytest.raises(TrustError):
        seed_runtime.open(EXAMPLE)
