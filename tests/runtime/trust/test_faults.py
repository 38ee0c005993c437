"""Signatures that can't be checked, and what `--inspect` says about them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime import trust
from seed_runtime.cli import main
from seed_runtime.errors import TrustError
from seed_runtime.trust import sshsig, state
from tests.support.signing import (
    STREAMS,
    accepted_file,
    add_signature,
    fingerprint,
    make_signature,
    needs_ssh_keygen,
    new_key,
    open_and_check,
    refusal_line,
    sign_seed,
    unsigned_seed,
    write_allowed_signers,
)

pytestmark = needs_ssh_keygen


# What can't be asked


def test_without_ssh_keygen_no_seed_is_accepted(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    monkeypatch.setenv("PATH", "")
    assert "apt install openssh-client" in refusal_line(data)


def test_an_ssh_keygen_that_fails_or_hangs_does_not_accept(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, tool = sign_seed(unsigned_seed("bell", 1), key), tmp_path / "bin" / "ssh-keygen"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    for script in ("#!/bin/sh\nexit 3\n", "#!/nowhere/at/all\n", "#!/bin/sh\nexec sleep 100\n"):
        tool.write_text(script)
        tool.chmod(0o755)
        monkeypatch.setattr(sshsig, "_TIMEOUT_S", 0.2)
        refusal_line(data)


def test_allowed_signers_that_cannot_be_read_refuse_every_seed(key: Path, tmp_path: Path) -> None:
    data, path = sign_seed(unsigned_seed("bell", 1), key), write_allowed_signers("no key at all")
    assert re.search(r"allowed_signers:1: (missing|invalid) key", refusal_line(data))
    path.write_bytes(b"")
    refusal_line(data)
    path.unlink()
    path.mkdir()
    assert "make it readable" in refusal_line(data)
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere")
    assert "link" in refusal_line(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"format": 2, "models": {}}',
        '{"format": 1, "models": {"bell": {"newest": 1}}}',
        '{"format": 1, "models": {"bell": {"newest": "1", "accepted": {}}}}',
        '{"format": 1, "models": {"bell": {"newest": -1, "accepted": {}}}}',
        '{"format": 1, "models": {"bell": {"newest": true, "accepted": {}}}}',
        '{"format": 1, "models": {"bell": {"newest": 1, "accepted": {"00": 1e9}}}}',
        '{"format": 1, "models": {"bell": {"newest": 1, "accepted": {"00": 1}, "kept": 7}}}',
        '{"format": 1, "models": {"bell": {"newest": 1, "accepted": {"00": 1}, "kept": ["11"]}}}',
        '{"format": 1, "models": {"bell": [1]}}',
        '{"format": 1, "models": {"bell',
        "[" * 100_000,
        "\udc80",
    ],
    ids=range(16),
)
def test_a_damaged_list_refuses_every_seed(key: Path, text: str) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    open_and_check(data)
    accepted_file().write_bytes(text.encode(errors="surrogateescape"))
    assert "accepted.json is damaged" in refusal_line(data)
    with pytest.raises(TrustError, match="damaged"):
        trust.forget(["00" * 32])


def test_a_list_that_is_too_long_or_a_link_to_nowhere_refuses_every_seed(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sign_seed(unsigned_seed("bell", 1), key)
    seed = seed_runtime.open(io.BytesIO(data))
    monkeypatch.setattr(state, "STATE_MAX", 60)
    with pytest.raises(TrustError, match="is full"):
        seed._accept()
    assert not accepted_file().exists()
    accepted_file().write_bytes(b" " * 61)
    assert "damaged" in refusal_line(data)
    accepted_file().unlink()
    accepted_file().symlink_to("nowhere")
    assert "accepted versions are stored there" in refusal_line(data)


def test_a_list_that_cannot_be_written_refuses_new_seeds_and_not_listed_ones(key: Path, tmp_path: Path) -> None:
    old, new = sign_seed(unsigned_seed("bell", 1), key), sign_seed(unsigned_seed("bell", 2), key)
    open_and_check(old)
    accepted_file().with_suffix(".lock").unlink()
    accepted_file().with_suffix(".lock").mkdir()
    open_and_check(old)
    with pytest.raises(TrustError, match="let this user read and write"):
        seed_runtime.open(io.BytesIO(new)).assemble(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_home_means_no_allowed_signers(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert trust.allowed_signers() is None


# --inspect


def test_inspecting_names_the_signer_and_refuses_nothing(
    key: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, stranger = tmp_path / "model.seed", new_key(tmp_path / "stranger")

    def look(data: bytes) -> tuple[dict[str, object], str]:
        path.write_bytes(data)
        capfd.readouterr()
        assert (main([str(path), "--inspect", "--json"]), main([str(path), "--inspect"])) == (0, 0)
        printed, text = capfd.readouterr().out.split("\n", 1)
        return json.loads(printed)["signature"], text

    facts, text = look(sign_seed(unsigned_seed("bell", 1), key))
    name = f"ssh-ed25519 {fingerprint(key)}"
    assert facts == {"enforced": True, "key": name, "signer": "alice@example.org", "problem": None}
    assert f"by alice@example.org, {name}" in text
    facts, text = look(unsigned_seed("bell", 1))
    assert (facts["key"], facts["signer"]) == (None, None)
    assert "unsigned" in text
    assert "refused here: model.seed is not signed" in text
    facts, text = look(sign_seed(unsigned_seed("bell", 1), stranger))
    assert facts["signer"] is None
    assert f"with ssh-ed25519 {fingerprint(stranger)}\n" in text
    assert "refused here: model.seed is signed with" in text
    facts, text = look(add_signature(unsigned_seed("bell", 1), b"?"))
    assert (facts["key"], facts["problem"]) == ("an unknown key", text.split("refused here: ")[1].splitlines()[0])
    write_allowed_signers().unlink()
    facts, text = look(sign_seed(unsigned_seed("bell", 1), stranger))
    assert (facts["enforced"], facts["problem"]) == (False, None)
    assert "by whom is not checked here" in text
    facts, text = look(add_signature(unsigned_seed("bell", 1), make_signature(b"something else", key)))
    assert "its signature is wrong" in text
    facts, text = look(unsigned_seed("bell", 1))
    assert facts == {"enforced": False, "key": None, "signer": None, "problem": None}
    assert not accepted_file().exists()


def test_the_exporter_can_open_its_seed_without_a_check(key: Path) -> None:
    seed = seed_runtime.open(io.BytesIO(unsigned_seed("bell", 1)), enforce=False)
    seed.check()
    assert not accepted_file().exists()


def test_reading_an_unsigned_seed_imports_nothing_more() -> None:
    script = (
        "import io, sys, seed_runtime; seed_runtime.open(io.BytesIO(sys.stdin.buffer.read()));"
        "assert not {'subprocess', 'shutil'} & set(sys.modules) - before"
    )
    script = f"import numpy, tempfile, sys; before = set(sys.modules); {script}"
    subprocess.run([sys.executable, "-c", script], input=unsigned_seed("bell", 1, STREAMS), check=True)
