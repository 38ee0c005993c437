"""Start files of a login shell that print, ask, wait, start another shell or end: the answer, or the reason."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import numpy as np
import pytest

from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.remote import facts
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import SeedError
from tests.devices.support.commands import deploy, hosts, stderr_of
from tests.devices.support.pushing import running_seed, send
from tests.devices.support.seeds import EXAMPLE, EXAMPLE_NAME, make_seed
from tests.devices.support.sshd import Device, MakeDevice, Sshd
from tests.support.project import skip_or_fail

TITLE = "echo -ne '\\033]0;porch\\007'"
NOISE = {
    "nothing": "",
    "a greeting": "echo Welcome to my board",
    "no newline": "printf hello",
    "a title": TITLE,
    "a colour": "printf '\\033[32mporch\\033[0m'",
    "the command itself": 'echo "$BASH_EXECUTION_STRING"; set -xv',
    "what looks like an answer": "echo '{\"agent\": 2}'; echo seed-no-runtime; printf seed-",
    "bytes": "head -c 3000 /dev/urandom",
    "megabytes": "head -c 5000000 /dev/zero",
    "errors": "echo oh no >&2; false",
    "a moment of sleep": "sleep .2",
    "aliases and functions": "alias sh=false; alias cat=false; printf() { :; }; echo() { :; }",
}


@pytest.fixture
def bash(make_device: MakeDevice) -> Device:
    """Return a device whose login shell reads its .bashrc."""
    shell = pwd.getpwuid(os.geteuid()).pw_shell
    if Path(shell).name != "bash":
        skip_or_fail(f"the login shell of these tests is {shell} and not bash, which reads a start file for commands")
    return make_device()


def start_file(device: Device, text: str) -> None:
    (device.home / ".bashrc").write_text(f"{text}\n")


def connect(device: Device) -> Connection:
    return Connection(device.alias, config=device.config)


# Behind the noise


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())
def test_answers_are_found_behind_what_a_start_file_prints(bash: Device, noise: str) -> None:
    start_file(bash, noise)
    with connect(bash) as connection:
        assert connection.run("cat; echo hello", stdin=b"to and fro, ").stdout == b"to and fro, hello\n"
        assert connection.python("print('in Python')").text == "in Python\n"
        with AgentClient(connection) as agent:
            assert agent.call("status")["models"] == []


@pytest.mark.slow
@pytest.mark.parametrize("noise", [NOISE["megabytes"], f"{NOISE['what looks like an answer']}; {TITLE}"])
def test_every_command_works_behind_what_a_start_file_prints(bash: Device, tmp_path: Path, noise: str) -> None:
    start_file(bash, noise)
    send(bash, EXAMPLE)
    assert running_seed(bash, EXAMPLE_NAME) == EXAMPLE.read_bytes()
    seed = make_seed(tmp_path / "s.seed")
    config, host = bash.config, f"{bash.alias}:product"
    assert deploy(config, "push", seed, host).returncode == 0
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 16), np.float32))
    done = deploy(config, "run", host, "--input", tmp_path / "x.npz", "--output", "-")
    assert (done.returncode, done.stdout[:4]) == (0, b"PK\x03\x04")
    assert hosts(config, "logs", host)[0]["lines"]
    assert hosts(config, "status", bash.alias)[0]["ok"]
    assert deploy(config, "doctor", bash.alias).returncode == 0


def test_the_installer_is_found_behind_what_a_start_file_prints(bash: Device) -> None:
    from seed_devices.remote.installer_client import InstallerClient

    start_file(bash, f"{NOISE['bytes']}; {NOISE['no newline']}")
    with connect(bash) as connection, InstallerClient(connection, lambda *_: None) as client:
        assert client.python.startswith("3.")


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "rbash", "dash", "busybox sh"])
def test_any_login_shell_will_do(make_device: MakeDevice, tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell.split()[0]) or skip_or_fail(f"there is no {shell} on this machine")
    command = " ".join([program, *shell.split()[1:]])
    device = make_device(command=f'exec {command} -c \\"$SSH_ORIGINAL_COMMAND\\"')
    with connect(device) as connection:
        odd = "it's \\a \\\\b \\' !x \"$HOME\" `y`\n*\té "
        script = "[ ! -d x ] && cat\nprintf '%s|%s\\n' \"$1\" $#"
        assert connection.run(script, odd, "", stdin=b"in").text == f"in{odd}|2\n"
        assert facts.find_pythons(connection).best is not None
        with AgentClient(connection) as agent:
            assert agent.call("status")["models"] == []


@pytest.mark.parametrize(
    ("shell", "file", "text"),
    [
        ("zsh", ".zshenv", "printf porch; print -Pn '\\e]0;porch\\a'"),
        ("tcsh", ".cshrc", "printf porch; set echo"),
        ("fish", "config/fish/config.fish", "printf porch; set_color green; set -gx fish_trace 1"),
        ("bash --login", ".bash_profile", "printf porch; set -v"),
    ],
)
def test_start_files_of_other_shells_may_print(make_device: MakeDevice, shell: str, file: str, text: str) -> None:
    program = shutil.which(shell.split()[0]) or skip_or_fail(f"there is no {shell} on this machine")
    command = " ".join([program, *shell.split()[1:]])
    device = make_device(command=f'exec {command} -c \\"$SSH_ORIGINAL_COMMAND\\"')
    (device.home / file).parent.mkdir(parents=True, exist_ok=True)
    (device.home / file).write_text(f"{text}\n")
    with connect(device) as connection:
        assert connection.run("cat", stdin=b"in").stdout == b"in"


@pytest.mark.parametrize("subsystem", ["/nowhere/sftp-server", "/usr/lib/openssh/sftp-server", "internal-sftp"])
def test_no_sftp_server_of_the_device_matters(tmp_path: Path, subsystem: str) -> None:
    server = Sshd(tmp_path, settings=f"Subsystem sftp {subsystem}\n")
    try:
        device = server.device("sftp")
        start_file(device, "echo Welcome; printf porch")
        send(device, EXAMPLE)
        assert running_seed(device, EXAMPLE_NAME) == EXAMPLE.read_bytes()
    finally:
        server.stop()


def test_a_shell_that_has_run_a_command_may_take_its_time(bash: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(bash) as connection:
        connection.hold()
        monkeypatch.setattr("seed_devices.ssh.connection.SHELL_S", 0.3)
        start_file(bash, "sleep 1")
        assert connection.run("echo in").text == "in\n"


# The reason within seconds


def refusal(device: Device) -> SeedError:
    """Return the error of a command to a device."""
    with connect(device) as connection, pytest.raises(SeedError) as caught:
        connection.run("true")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("read -p 'Continue? [y/N] ' answer >/dev/null", ""),
        ("echo -n 'Continue? [y/N] '; read answer", "Continue? [y/N]"),
        ("select project in one two; do break; done", "#?"),
        ("sleep 600", ""),
        pytest.param("exec cat", "", marks=pytest.mark.slow),
        ("exec zsh", ""),
        pytest.param("exec fish", "", marks=pytest.mark.slow),
        ("printf 'starting\\nmenu: '; exec sh", "menu:"),
    ],
)
def test_a_start_file_that_waits_is_told_with_its_last_words(
    bash: Device, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    # On a busy machine the shell may take a while to its words.
    patience_s = 4 if words else 1
    monkeypatch.setattr("seed_devices.ssh.connection.SHELL_S", patience_s)
    program = text.removeprefix("exec ")
    if program in ("zsh", "fish") and not shutil.which(program):
        skip_or_fail(f"there is no {program} on this machine")
    start_file(bash, text)
    error = refusal(bash)
    assert isinstance(error, UnreachableError)
    assert error.exit_code == 20
    says = f' (it prints "{words}")' if words else ""
    assert f"the login works, but its shell runs no command within {patience_s} s{says};" in str(error)
    assert f"ssh {bash.alias} echo works" in str(error)
    assert "[ -t 0 ] || return" in str(error)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("case $- in *i*) ;; *) exit ;; esac", 0, ""),
        ("echo 'This account is currently not available.'; exit 1", 1, "This account is currently not available."),
        ("echo Welcome >&2; exit 3", 3, "Welcome"),
        ("exec false", 1, ""),
        ("exec no-such-shell", 127, "no-such-shell: not found"),
    ],
)
def test_a_start_file_that_ends_the_shell_is_told(bash: Device, text: str, code: int, words: str) -> None:
    start_file(bash, text)
    error = refusal(bash)
    assert isinstance(error, RemoteError)
    assert error.exit_code == 12
    assert f"the login works, but its shell ends at once with {code} and runs no command" in str(error)
    assert words in str(error)
    assert f"ssh {bash.alias} echo works" in str(error)


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false", "internal-sftp"])
def test_an_account_without_a_shell_is_told(make_device: MakeDevice, shell: str) -> None:
    error = refusal(make_device(command=shell))
    assert "the login works, but its shell ends at once with 1 and runs no command" in str(error)
    assert ("not available" in str(error)) == shell.endswith("nologin")
    assert ("sftp connections only" in str(error)) == shell.endswith("sftp")


def test_a_start_file_that_prints_without_end_is_told(bash: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seed_devices.ssh.shell.NOISE_MAX", 1 << 20)
    start_file(bash, "yes on and on")
    error = refusal(bash)
    assert error.exit_code == 12
    assert 'its shell prints on and on and runs no command (it prints "' in str(error)


@pytest.mark.slow
def test_a_command_line_says_so_after_twenty_seconds(bash: Device) -> None:
    start_file(bash, "echo -n 'Continue? '; read answer")
    done = deploy(bash.config, "status", bash.alias)
    assert done.returncode == 20
    assert 'runs no command within 20 s (it prints "Continue?")' in stderr_of(done)
