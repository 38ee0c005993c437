"""The connection: OpenSSH's own, shared by all commands, its failures told apart, nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from seed_devices.errors import AuthenticationError, HostKeyError, RemoteError, UnreachableError
from seed_devices.ssh import control_dir, ssh_errors
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError
from tests.devices.support.proxy import Proxy
from tests.devices.support.sshd import Device, Sshd, make_key
from tests.support.ports import free_port

QUICKER_THAN_TCP_S = 90
"""Time within which a link is given up on a busy machine, too; TCP by itself takes two minutes or more."""


def connect(device: Device, **options: object) -> Connection:
    return Connection(device.alias, config=device.config, **options)  # type: ignore[arg-type]


# Commands


def test_a_command_gets_stdin_and_gives_output_errors_and_its_code(device: Device) -> None:
    with connect(device) as connection:
        done = connection.run("cat; echo oh >&2; exit 7", stdin=b"to and fro", check=False)
    assert (done.code, done.stdout, done.stderr.strip()) == (7, b"to and fro", "oh")


def test_a_command_that_fails_is_an_error_that_quotes_it(device: Device) -> None:
    with connect(device) as connection, pytest.raises(RemoteError, match=r"`false-command` returned 127: .*not found"):
        connection.run("false-command")


def test_each_device_has_its_own_environment(sshd: Sshd, device: Device) -> None:
    with connect(device) as connection:
        assert connection.run('echo "$SEED_HOME"').text.strip() == str(device.store)


def test_all_commands_share_one_login(sshd: Sshd) -> None:
    with Proxy(sshd.port) as proxy:
        device = sshd.device("shared-login", port=proxy.port)
        with connect(device) as connection:
            connection.run("true")
            before = proxy.total
            connection.run("true")
            assert proxy.total - before < 1000 < before


def test_a_program_runs_on_the_devices_python(device: Device) -> None:
    with connect(device) as connection:
        done = connection.python("import sys; print(sys.argv[1:])", "a b", "c'd")
    assert done.text.strip() == "['a b', \"c'd\"]"


def test_output_without_end_is_refused(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seed_devices.ssh.connection.OUTPUT_MAX", 1 << 16)
    with connect(device) as connection, pytest.raises(RemoteError, match="printed more than 65,536 bytes"):
        connection.run("yes")


def test_a_command_that_takes_too_long_is_ended(device: Device) -> None:
    with connect(device) as connection:
        connection.hold()
        with pytest.raises(UnreachableError, match=r"no answer within 0.2 s; .*ssh"):
            connection.run("sleep 60", timeout=0.2)
        assert connection.run("echo still here").text == "still here\n"


def test_nothing_is_left_behind_by_a_connection(device: Device) -> None:
    with connect(device) as connection:
        connection.run("true")
        folder, lead = connection._folder, connection._master
    assert folder is not None
    assert not folder.exists()
    assert lead is not None
    assert lead.poll() is not None


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", base := tempfile.mkdtemp(dir="/tmp"))
    left, others = Path(base) / f"seed-{ended.pid}-abcdefgh", Path(base) / f"seed-{os.getppid()}-abcdefgh"
    for folder in (left, others):
        folder.mkdir()
    (left / "file").symlink_to(tmp_path)
    for folder in (left, others):
        os.utime(folder, (0, 0))
    made = control_dir.make_control_dir()
    assert sorted(Path(base).iterdir()) == sorted([made, others])
    assert tmp_path.is_dir()
    assert made.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(base)


def test_a_command_after_the_last_of_a_connection_that_ends_opens_another(device: Device) -> None:
    with connect(device) as connection:
        lead = connection.popen("echo up; cat")
        assert connection.first_line(lead, b"up")
        guest = connection.popen("echo up; cat")
        assert connection.first_line(guest, b"up")
        connection.end(lead)
        assert connection.run("echo shared").text == "shared\n"
        assert connection._master is lead
        guest.kill()  # so that its end and the lead's are as close as can be
        guest.wait()
        assert connection.run("echo anew").text == "anew\n"
        assert connection._master is not lead


# What ssh refuses


def test_a_refused_port_is_unreachable(sshd: Sshd) -> None:
    sshd.alias("no-sshd", make_key(sshd.folder / "key-no-sshd"), port=free_port())
    with Connection("no-sshd", config=sshd.config) as connection, pytest.raises(UnreachableError) as caught:
        connection.run("true")
    assert "Connection refused; check that sshd runs there" in str(caught.value)
    assert "8022 on an arm64 phone (Termux)" in str(caught.value)
    assert caught.value.exit_code == 20


def test_an_unknown_name_is_unreachable(sshd: Sshd) -> None:
    with (
        Connection("no.such.host.invalid", config=sshd.config) as connection,
        pytest.raises(UnreachableError) as caught,
    ):
        connection.run("true")
    assert "Could not resolve hostname" in str(caught.value)
    assert "ssh_config" in str(caught.value)


def test_a_key_that_the_host_doesnt_know_is_an_authentication_error(sshd: Sshd) -> None:
    sshd.alias("stranger", make_key(sshd.folder / "key-stranger"))
    with Connection("stranger", config=sshd.config) as connection, pytest.raises(AuthenticationError) as caught:
        connection.run("true")
    assert "Permission denied (publickey)" in str(caught.value)
    assert "ssh-copy-id stranger" in str(caught.value)
    assert caught.value.exit_code == 21


def test_an_unknown_host_key_needs_the_flag(sshd: Sshd, tmp_path: Path) -> None:
    device = sshd.device("first-contact")
    known_hosts = tmp_path / "known_hosts"
    sshd.alias("never-seen", sshd.key_of(device), known_hosts=known_hosts)
    with Connection("never-seen", config=sshd.config) as connection, pytest.raises(HostKeyError) as caught:
        connection.run("true")
    assert "its key is unknown (ssh-keygen -F seed-test finds none)" in str(caught.value)
    assert "--accept-new-host-key" in str(caught.value)
    assert caught.value.exit_code == 22
    assert not known_hosts.exists()
    with Connection("never-seen", config=sshd.config, accept_new=True) as connection:
        assert connection.run("echo in").text == "in\n"
    with Connection("never-seen", config=sshd.config) as connection:
        assert connection.run("echo again").text == "again\n"


def test_a_changed_host_key_is_refused_even_with_the_flag(sshd: Sshd, tmp_path: Path) -> None:
    device = sshd.device("changed")
    known_hosts = tmp_path / "known_hosts"
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    known_hosts.write_text(f"seed-test {other}")
    sshd.alias("other-machine", sshd.key_of(device), known_hosts=known_hosts)
    with (
        Connection("other-machine", config=sshd.config, accept_new=True) as connection,
        pytest.raises(HostKeyError) as caught,
    ):
        connection.run("true")
    assert "not the one that is known" in str(caught.value)
    assert f"ssh-keygen -f {known_hosts} -R seed-test ," in str(caught.value)


def test_a_broken_ssh_config_is_the_users_mistake(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host x\n  NoSuchThing yes\n")
    with Connection("x", config=config) as connection, pytest.raises(UsageError, match="correct your ssh_config"):
        connection.run("true")


@pytest.mark.parametrize("target", ["", "-oProxyCommand=touch x", "a b", "host\n"])
def test_a_target_that_would_be_an_option_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="is no host"):
        Connection(target)


def test_a_jump_host_is_passed(sshd: Sshd, device: Device, tmp_path: Path) -> None:
    config = tmp_path / "config"
    sshd.alias("behind", sshd.key_of(device))
    config.write_text(sshd.config.read_text().replace("Host behind\n", f"Host behind\n  ProxyJump {device.alias}\n"))
    with Connection("behind", config=config) as connection:
        assert connection.run("echo through").text == "through\n"


@pytest.mark.slow
def test_a_dead_link_ends_after_fifteen_seconds_or_so(sshd: Sshd) -> None:
    with Proxy(sshd.port) as proxy:
        device = sshd.device("dead", port=proxy.port)
        with connect(device) as connection:
            connection.hold()
            proxy.silent = True
            start = time.monotonic()
            with pytest.raises(UnreachableError, match="the connection was lost"):
                connection.run("echo never")
            assert time.monotonic() - start < QUICKER_THAN_TCP_S


@pytest.mark.slow
def test_a_server_that_never_answers_is_unreachable_after_fifteen_seconds_or_so(sshd: Sshd) -> None:
    with Proxy(sshd.port) as proxy:
        proxy.silent = True
        device = sshd.device("mute", port=proxy.port)
        start = time.monotonic()
        with connect(device) as connection, pytest.raises(UnreachableError, match="timed out"):
            connection.run("true")
        assert time.monotonic() - start < QUICKER_THAN_TCP_S


# Words


@pytest.mark.parametrize(
    ("stderr", "error", "text"),
    [
        ("ssh: connect to host h port 22: No route to host\n", UnreachableError, "No route to host"),
        ("kex_exchange_identification: Connection closed by remote host\n", UnreachableError, "closed by remote host"),
        ("Unable to negotiate with 1.2.3.4: no matching host key type found.", UnreachableError, "no algorithm"),
        ("a@h: Permission denied (publickey,password).\n", AuthenticationError, "ssh-copy-id a@h"),
        (
            "Permissions 0644 for '/k/id' are too open.\na@h: Permission denied (publickey).",
            AuthenticationError,
            "chmod 600 /k/id",
        ),
        ("Received disconnect from h: 2: Too many authentication failures", AuthenticationError, "IdentitiesOnly"),
        ("mux_client_request_session: Session open refused by peer", UnreachableError, "MaxSessions 10"),
        ("", UnreachableError, "without a message"),
        (
            "ssh: connect to host jump port 22: Connection refused\nConnection closed by UNKNOWN port 65535\n",
            UnreachableError,
            "a@h: connect to host jump port 22: Connection refused;",
        ),
        (
            "sh: 1: tunnel: not found\nkex_exchange_identification: Connection closed by remote host\n",
            UnreachableError,
            "a@h: sh: 1: tunnel: not found;",
        ),
        (
            (
                "Warning: Identity file k not accessible: No such file or directory.\nPORCH, PRIVATE\n"
                "Connection closed by 1.2.3.4 port 22\nDisconnected\n"
            ),
            UnreachableError,
            "a@h: Connection closed by 1.2.3.4 port 22;",
        ),
    ],
)
def test_what_ssh_says_decides_the_error(stderr: str, error: type[Exception], text: str) -> None:
    found = ssh_errors.ssh_error("a@h", stderr)
    assert type(found) is error
    assert text in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        ("a@h: Permission denied (publickey).\n", "ssh-copy-id -p 2200 a@h "),
        ("ssh: connect to host h port 2200: Connection refused\n", "or give the device as ssh://a@h:PORT"),
        ("ssh: connect to host h port 2200: No route to host\n", "ssh -v -p 2200 a@h"),
        ("Host key verification failed.\n", "(ssh-keygen -F '[h]:2200' finds none)"),
    ],
)
def test_a_port_is_a_part_of_each_command_that_is_proposed(stderr: str, text: str) -> None:
    error = str(ssh_errors.ssh_error("ssh://a@h:2200", stderr))
    assert error.startswith("ssh://a@h:2200: ")
    assert text in error
