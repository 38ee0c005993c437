"""`seed-export --sign`: real keys, the real ssh-keygen and agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import seed_exporter
import seed_runtime
from seed_exporter import cli
from seed_exporter.pipeline import Options
from seed_runtime.errors import UsageError
from tests.support.signing import (
    MESSAGE_START,
    accepted_file,
    fingerprint,
    make_signature,
    needs_ssh_keygen,
    new_key,
    public_key,
    split_header,
    write_allowed_signers,
)

pytestmark = [needs_ssh_keygen, pytest.mark.usefixtures("without_measured_memory")]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "key")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()  # once it listens, it says where
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield
        running.terminate()


def refusal(model_file: Path, key: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one line, which comes before the model is even loaded."""
    monkeypatch.setattr("seed_exporter.loaders.load", None)
    with pytest.raises(UsageError) as caught:
        seed_exporter.export(model_file, output=output, options=Options(sign=key))
    line = str(caught.value)
    assert "\n" not in line
    assert ";" in line
    assert not output.exists()
    return line


def test_a_signed_seed_bears_the_signature_that_the_specification_describes(
    model_file: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsigned, output = tmp_path / "unsigned.seed", tmp_path / "model.seed"
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(model_file), "-o", str(output), "--method", "lossless", "--sign", str(key), "--json"])
    assert stopped.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    # Lossless: where there is a choice of steps, it depends on how many bytes the signature takes.
    seed_exporter.export(model_file, output=unsigned, options=Options(method="lossless"))
    signature = make_signature(MESSAGE_START + split_header(unsigned.read_bytes())[0], key)
    seed = seed_runtime.open(output)
    # Ed25519 is deterministic.
    assert seed.header.signature == signature
    assert split_header(output.read_bytes())[1] == split_header(unsigned.read_bytes())[1]
    assert printed["digest"] == seed.digest.hex()
    assert printed["signed_with"] == f"ssh-ed25519 {fingerprint(key)}"
    assert printed["bytes"] == output.stat().st_size == unsigned.stat().st_size + 6 + len(signature)


def test_the_device_takes_what_was_signed(model_file: Path, key: Path, tmp_path: Path) -> None:
    seed_exporter.export(model_file, output=tmp_path / "model.seed", options=Options(sign=key))
    write_allowed_signers(f"alice@example.org {public_key(key)}")
    assert seed_runtime.open(tmp_path / "model.seed").signature().signer == "alice@example.org"


def test_exporting_where_seeds_must_be_signed_needs_no_signature_and_accepts_nothing(
    model_file: Path, key: Path, tmp_path: Path
) -> None:
    write_allowed_signers(f"alice@example.org {public_key(key)}")
    result = seed_exporter.export(model_file, output=tmp_path / "model.seed")
    assert result.as_json()["signed_with"] is None
    assert not accepted_file().exists()


@pytest.mark.parametrize("kind", ["ed25519", pytest.param("ecdsa", marks=pytest.mark.slow), "rsa"])
def test_a_size_is_kept_with_the_signature(kind: str, model_file: Path, tmp_path: Path) -> None:
    key = new_key(tmp_path / "typed", kind=kind)
    result = seed_exporter.export(model_file, output=tmp_path / "model.seed", options=Options(sign=key, size=7000))
    assert result.goal_met
    assert result.bytes <= 7000


def test_a_key_that_only_the_agent_has_signs_by_its_public_half(
    agent: None, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(tmp_path / "key")
    subprocess.run(["ssh-add", "-q", str(key)], check=True, stderr=subprocess.DEVNULL)
    key.unlink()
    half = Path(f"{key}.pub")
    seed_exporter.export(model_file, output=tmp_path / "model.seed", options=Options(sign=half))
    write_allowed_signers(f"alice@example.org {public_key(key)}")
    assert seed_runtime.open(tmp_path / "model.seed").signature().signer == "alice@example.org"
    subprocess.run(["ssh-add", "-q", "-D"], check=True, stderr=subprocess.DEVNULL)
    assert "ssh-add" in refusal(model_file, half, tmp_path / "other.seed", monkeypatch)


@pytest.mark.parametrize("name", ["key", "with.a.dot"])
def test_a_key_may_have_any_name(name: str, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    key = new_key(tmp_path / "keys" / name)
    seed_exporter.export(model_file, output=tmp_path / "model.seed", options=Options(sign=key))
    assert {path.name for path in key.parent.iterdir()} == {name, f"{name}.pub"}


def test_a_key_that_cannot_sign_is_found_before_any_work(
    model_file: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model.seed"
    assert "no such key" in refusal(model_file, tmp_path / "none", output, monkeypatch)
    assert "no such key" in refusal(model_file, tmp_path, output, monkeypatch)
    locked = new_key(tmp_path / "locked", passphrase="a secret")
    assert "passphrase" in refusal(model_file, locked, output, monkeypatch)
    assert refusal(model_file, model_file, output, monkeypatch)
    key.chmod(0o644)
    assert refusal(model_file, key, output, monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert "apt install openssh-client" in refusal(model_file, key, output, monkeypatch)


def test_a_key_is_never_written_over(model_file: Path, key: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = key.read_bytes()
    for arguments in (["-o", str(key)], ["-o", "x.seed", "--report", str(key)]):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(model_file), *arguments, "--sign", str(key)])
        assert stopped.value.code == 2
        assert "so it isn't replaced" in capfd.readouterr().err
    assert key.read_bytes() == before


SIGNS = "import sys; from pathlib import Path; from seed_exporter import sign; "
SIGNS += "print(len(sign.make_signature(sign.TEST_MESSAGE, Path(sys.argv[1]))))"


@pytest.mark.slow
def test_a_passphrase_is_asked_for_on_the_terminal(tmp_path: Path) -> None:
    key = new_key(tmp_path / "locked", passphrase="a secret")
    # A process of its own takes the terminal: pytest's has threads.
    script = (
        "import pty, os, sys\n"
        "child, terminal = pty.fork()\n"
        "if child == 0:\n"
        "    os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])\n"
        "shown = b''\n"
        "while b'passphrase' not in shown: shown += os.read(terminal, 1000)\n"
        "os.write(terminal, b'a secret\\n')\n"
        "try:\n"
        "    while more := os.read(terminal, 1000): shown += more\n"
        "except OSError: pass\n"
        "print(shown.decode())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SSH_ASKPASS")}
    done = subprocess.run(
        [sys.executable, "-c", script, SIGNS, str(key)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split()[-1] == str(len(make_signature(b"", new_key(tmp_path / "open")))), (
        done.stdout + done.stderr
    )
