"""Which signatures and versions a device accepts, with real keys and the real ssh-keygen."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime import trust
from seed_runtime.errors import TrustError
from seed_runtime.trust import state
from tests.support.seed_run import refused, refused_here, result, seed_run
from tests.support.signing import (
    accepted_file,
    add_signature,
    digest_of,
    fingerprint,
    needs_ssh_keygen,
    new_key,
    open_and_check,
    public_key,
    refusal_line,
    sign_seed,
    unsigned_seed,
    write_allowed_signers,
)
from tests.support.spec_bytes import varint

pytestmark = needs_ssh_keygen


# Where nobody asks


def test_without_allowed_signers_any_seed_is_accepted_and_nothing_is_noted(tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    for data in (
        unsigned_seed("bell", 1),
        sign_seed(unsigned_seed("bell", 2), key),
        unsigned_seed("bell", 1),
        add_signature(unsigned_seed("", 1), b"?"),
    ):
        open_and_check(data)
    assert not accepted_file().parent.exists()


def test_without_allowed_signers_no_process_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = sign_seed(unsigned_seed("bell", 1), new_key(tmp_path / "key"))
    monkeypatch.setenv("PATH", "")
    open_and_check(data)


# Who signed it


def test_a_seed_of_an_allowed_signer_is_accepted(key: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    path.write_bytes(sign_seed(unsigned_seed("bell", 3), key))
    for source in (path, io.BytesIO(path.read_bytes())):
        verdict = seed_runtime.open(source).signature()
        assert verdict == trust.Verdict(True, f"ssh-ed25519 {fingerprint(key)}", "alice@example.org", None)
    assert not accepted_file().exists()  # looking accepts nothing


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_every_type_of_key_is_known(kind: str, tmp_path: Path) -> None:
    path = new_key(tmp_path / "typed", kind=kind)
    write_allowed_signers("# who may", "", f'x@example.org,*@example.org namespaces="git,seed" {public_key(path)}')
    assert kind in str(open_and_check(sign_seed(unsigned_seed("bell", 1), path)).signature().key)


def test_a_certificate_of_an_allowed_authority_is_accepted(tmp_path: Path) -> None:
    authority, key = new_key(tmp_path / "authority"), new_key(tmp_path / "key")
    certify = ["ssh-keygen", "-q", "-s", str(authority), "-I", "a test", "-n", "bob@example.org", f"{key}.pub"]
    subprocess.run(certify, check=True)
    write_allowed_signers(f"*@example.org cert-authority {public_key(authority)}")
    data = unsigned_seed("bell", 1)
    os.replace(f"{key}-cert.pub", f"{key}.pub")
    assert open_and_check(sign_seed(data, key)).signature().signer == "bob@example.org"


def test_an_unsigned_seed_is_refused_before_anything_is_decoded(
    key: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "is not signed" in refusal_line(unsigned_seed("bell", 1))
    path = tmp_path / "model.seed"
    path.write_bytes(unsigned_seed("bell", 1))
    for mode in (["--verify"], ["--assemble", str(tmp_path / "out")], ["--bench"], ["--input", "none.npz"]):
        assert "model.seed is not signed" in refused_here(11, capfd, path, *mode)
    assert "is not signed" in refused(11, "-", "--assemble", tmp_path / "out", stdin=path.read_bytes())
    assert {entry.name for entry in tmp_path.iterdir()} == {"model.seed", "key", "key.pub"}


def test_a_stranger_is_refused_by_name(key: Path, tmp_path: Path) -> None:
    stranger = new_key(tmp_path / "stranger")
    assert f"signed with ssh-ed25519 {fingerprint(stranger)}, which" in refusal_line(
        sign_seed(unsigned_seed("bell", 1), stranger)
    )


def test_a_signature_of_another_seed_is_refused(key: Path) -> None:
    first, second = sign_seed(unsigned_seed("bell", 1), key), unsigned_seed("bell", 2)
    signature = seed_runtime.open(io.BytesIO(first)).header.signature
    assert signature is not None
    assert "signature is wrong" in refusal_line(add_signature(second, signature))


def test_a_signature_for_something_else_than_seeds_is_refused(key: Path) -> None:
    assert "SPEC.md" in refusal_line(sign_seed(unsigned_seed("bell", 1), key, namespace="git"))
    write_allowed_signers(f'alice@example.org namespaces="git" {public_key(key)}')
    assert "not permitted for use in signature namespace" in refusal_line(sign_seed(unsigned_seed("bell", 1), key))


@pytest.mark.parametrize("what", [b"", b"SSHSIG", b"SSHSIG\0\0\0\1", b"SSHSIG\0\0\0\1" + b"\xff" * 40, bytes(8192)])
def test_a_blob_that_is_not_a_signature_is_refused(key: Path, what: bytes) -> None:
    assert "its signature is" in refusal_line(add_signature(unsigned_seed("bell", 1), what))


def test_what_the_format_leaves_unsigned_must_be_empty(key: Path) -> None:
    data = unsigned_seed("bell", 1)
    right = seed_runtime.open(io.BytesIO(sign_seed(data, key))).header.signature
    assert right is not None
    assert right.count(b"seed\0\0\0\0") == 1
    reserved = right.replace(b"seed\0\0\0\0", b"seed\0\0\0\3abc")
    assert "SPEC.md" in refusal_line(add_signature(data, reserved))
    assert "SPEC.md" in refusal_line(add_signature(data, right + b"\0"))


def test_a_signer_who_was_removed_is_refused_even_for_what_was_accepted(key: Path, tmp_path: Path) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    open_and_check(data)
    write_allowed_signers(f"bob@example.org {public_key(new_key(tmp_path / 'other'))}")
    assert "which" in refusal_line(data)


def test_an_expired_key_signs_nothing_new_and_disables_nothing(key: Path) -> None:
    old, new = sign_seed(unsigned_seed("bell", 1), key), sign_seed(unsigned_seed("bell", 2), key)
    open_and_check(old)
    ran_out = time.strftime("%Y%m%d%H%M%S", time.localtime(time.time() - 3600))
    noted = json.loads(accepted_file().read_text())
    noted["models"]["bell"]["accepted"][digest_of(old)] -= 7200
    accepted_file().write_text(json.dumps(noted))
    write_allowed_signers(f'alice@example.org valid-before="{ran_out}" {public_key(key)}')
    open_and_check(old)
    assert "clock says" in refusal_line(new)
    write_allowed_signers(f'alice@example.org valid-after="20990101" {public_key(key)}')
    assert "clock says" in refusal_line(old)


# How old it is


def test_an_older_version_is_refused_and_a_newer_one_accepted(key: Path) -> None:
    one, two, three = (sign_seed(unsigned_seed("bell", version), key) for version in (1, 2, 3))
    open_and_check(two)
    line = refusal_line(one)
    assert "version 1 of bell" in line
    assert "accepted version 2" in line
    open_and_check(three)
    seed_runtime.open(io.BytesIO(two))  # accepted once, still listed
    trust.forget([digest_of(two)])
    assert "accepted version 3" in refusal_line(two)
    assert "accepted version 3" in refusal_line(one)
    open_and_check(sign_seed(unsigned_seed("other", 1), key))


def test_the_newest_version_stays_known_after_forget(key: Path) -> None:
    one, two = (sign_seed(unsigned_seed("bell", version), key) for version in (1, 2))
    open_and_check(one)
    open_and_check(two)
    trust.forget([digest_of(one), digest_of(two), "00" * 32])
    assert json.loads(accepted_file().read_text())["models"]["bell"] == {"newest": 2, "accepted": {}, "kept": []}
    refusal_line(one)
    open_and_check(two)


def test_another_build_of_the_same_version_is_accepted(key: Path) -> None:
    open_and_check(sign_seed(unsigned_seed("bell", 2), key))
    open_and_check(sign_seed(unsigned_seed("bell", 2, replaced={"model.parameters": varint(17)}), key))


def test_a_signed_seed_without_a_model_id_is_refused(key: Path) -> None:
    assert "no model id" in refusal_line(sign_seed(unsigned_seed("", 1), key))


@pytest.mark.slow
def test_a_seed_is_accepted_when_it_is_opened_assembled_or_checked_and_not_before(key: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    for version, mode in enumerate((["--verify"], ["--assemble", str(tmp_path / "out")], ["--input", "x.npz"]), 1):
        path.write_bytes(sign_seed(unsigned_seed("bell", version), key))
        result(path, "--inspect")
        assert not accepted_file().exists() or state.read(accepted_file())["bell"].newest == version - 1
        np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, 4), np.float32))
        done = seed_run(path, *mode, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        assert state.read(accepted_file())["bell"].newest == version


def test_a_damaged_seed_is_not_accepted(key: Path) -> None:
    data = bytearray(sign_seed(unsigned_seed("bell", 9), key))
    data[-1] ^= 1
    with pytest.raises(seed_runtime.SeedError) as caught:
        open_and_check(bytes(data))
    assert caught.value.exit_code == 10
    assert not accepted_file().exists()


def test_a_version_is_not_accepted_once_a_newer_one_is(key: Path) -> None:
    slow = seed_runtime.open(io.BytesIO(sign_seed(unsigned_seed("bell", 1), key)))
    open_and_check(sign_seed(unsigned_seed("bell", 2), key))
    with pytest.raises(TrustError, match="accepted version 2"):
        slow.check()


def test_processes_that_accept_at_once_lose_nothing(key: Path) -> None:
    seeds = [seed_runtime.open(io.BytesIO(sign_seed(unsigned_seed(f"bell{i}", 1, ("raw",)), key))) for i in range(12)]
    threads = [threading.Thread(target=seed._accept) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(state.read(accepted_file())) == {f"bell{i}" for i in range(12)}


def test_only_so_many_digests_stay_listed(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "LISTED_MAX", 2)
    seeds = [sign_seed(unsigned_seed("bell", version, ("raw",)), key) for version in (1, 2, 3)]
    for data in seeds:
        seed_runtime.open(io.BytesIO(data))._accept()
    assert list(state.read(accepted_file())["bell"].digests) == [digest_of(data) for data in seeds[1:]]
    refusal_line(seeds[0])


def test_a_stored_seed_stays_listed_until_it_is_forgotten(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "LISTED_MAX", 2)
    seeds = [sign_seed(unsigned_seed("bell", version, ("raw",)), key) for version in (1, 2, 3, 4, 5)]
    first = seed_runtime.open(io.BytesIO(seeds[0]))
    first._accept()
    trust.accept(first.header, digest_of(seeds[0]), stored=True)
    for data in seeds[1:]:
        seed_runtime.open(io.BytesIO(data))._accept()
    listed = [digest_of(data) for data in (seeds[0], *seeds[3:])]
    assert list(state.read(accepted_file())["bell"].digests) == listed
    open_and_check(seeds[0])
    trust.forget(listed[:1])
    refusal_line(seeds[0])
    open_and_check(seeds[4])
