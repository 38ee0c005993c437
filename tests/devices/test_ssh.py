"""The connection: OpenSSH's own, shared by all commands, its failures told apart, nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


def test_a_device_that_takes_the_login_and_nothing_else_is_given_up(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seed_devices.ssh.connection.START_S", 0.5)
    device = sshd.device("stuck", command="sleep 60")
    with connect(device) as connection, pytest.raises(UnreachableError, match=r"nothing answers within 0\.5 s"):
        connection.run("true")


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


def test_noise_of_the_devices_shell_is_skipped(sshd: Sshd) -> None:
    device = sshd.device("noisy", command='echo Welcome to my board; eval \\"$SSH_ORIGINAL_COMMAND\\"')
    with connect(device) as connection:
        assert connection.run("echo hello").text.endswith("hello\n")


# Files


def test_a_file_is_sent_and_the_rest_of_one_is_sent(device: Device, tmp_path: Path) -> None:
    local, remote = tmp_path / 'a [b] "*.seed', device.home / 'what is "this"\\*'
    local.write_bytes(os.urandom(300_000))
    with connect(device) as connection:
        connection.put(local, str(remote))
        assert remote.read_bytes() == local.read_bytes()
        remote.write_bytes(local.read_bytes()[:100_000])
        connection.put(local, str(remote), resume=True)
    assert remote.read_bytes() == local.read_bytes()


def test_a_file_that_has_arrived_already_is_not_sent_again(device: Device, tmp_path: Path) -> None:
    local, remote = tmp_path / "file", device.home / "part"
    local.write_bytes(b"right")
    with connect(device) as connection:
        for there in (b"right", b"wrong", b"longer than that"):
            remote.write_bytes(there)
            connection.put(local, str(remote), resume=True)
            assert remote.read_bytes() == there


def test_only_the_rest_of_a_file_passes_the_wire(sshd: Sshd, tmp_path: Path) -> None:
    local = tmp_path / "file"
    local.write_bytes(os.urandom(1_000_000))
    with Proxy(sshd.port) as proxy:
        device = sshd.device("rest", port=proxy.port)
        remote = device.home / "part"
        remote.write_bytes(local.read_bytes()[:900_000])
        with connect(device) as connection:
            connection.put(local, str(remote), resume=True)
        assert proxy.sent < 120_000


@pytest.mark.slow
def test_the_rate_is_kept_and_progress_comes_from_the_device(device: Device, tmp_path: Path) -> None:
    local, seen = tmp_path / "file", []
    local.write_bytes(bytes(2_000_000))
    start = time.monotonic()
    with connect(device) as connection:
        connection.put(local, str(device.home / "part"), limit_kbit=4000, progress=lambda *pair: seen.append(pair))
    assert 3 < time.monotonic() - start < 8
    assert seen
    assert seen == sorted(seen)
    assert all(0 < done <= total == 2_000_000 for done, total in seen)


def test_a_folder_that_cant_be_written_to_is_told_in_sftps_words(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with connect(device) as connection, pytest.raises(RemoteError, match=r"sftp: .*No such file"):
        connection.put(tmp_path / "file", str(device.home / "none" / "part"))


@pytest.mark.parametrize("path", ["relative", "/a\n!touch /tmp/x", "/" + "a" * 5000])
def test_a_path_that_would_be_another_sftp_command_is_refused(device: Device, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with connect(device) as connection, pytest.raises(RemoteError, match="no path that sftp takes"):
        connection.put(tmp_path / "file", path)


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


def test_a_link_that_is_cut_says_that_the_next_call_goes_on(sshd: Sshd, tmp_path: Path) -> None:
    local = tmp_path / "file"
    local.write_bytes(os.urandom(3_000_000))
    with Proxy(sshd.port) as proxy:
        device = sshd.device("cut", port=proxy.port)
        with connect(device) as connection:
            connection.hold()
            proxy.cut_after = proxy.sent + 1_000_000
            with pytest.raises(UnreachableError, match=r"the connection was lost.*; run the same command again"):
                connection.put(local, str(device.home / "part"))
    assert 0 < (device.home / "part").stat().st_size < 1_100_000


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
            assert time.monotonic() - start < 25


@pytest.mark.slow
def test_a_server_that_never_answers_is_unreachable_after_fifteen_seconds_or_so(sshd: Sshd) -> None:
    with Proxy(sshd.port) as proxy:
        proxy.silent = True
        device = sshd.device("mute", port=proxy.port)
        start = time.monotonic()
        with connect(device) as connection, pytest.raises(UnreachableError, match="timed out"):
            connection.run("true")
        assert time.monotonic() - start < 25


KILLED = """
import sys
from pathlib import Path
from seed_devices.ssh.connection import Connection
connection = Connection(sys.argv[1], config=Path(sys.argv[2]))
connection.hold()
print("up", flush=True)
connection.put(Path(sys.argv[3]), sys.argv[4], limit_kbit=800)
"""


@pytest.mark.slow
def test_a_killed_process_takes_its_ssh_and_its_transfer_along(device: Device, tmp_path: Path) -> None:
    local, remote = tmp_path / "file", device.home / "part"
    local.write_bytes(bytes(3_000_000))
    words = [sys.executable, "-c", KILLED, device.alias, str(device.config), str(local), str(remote)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("XDG_RUNTIME_DIR", None)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)
    until = time.monotonic() + 20
    while not (remote.exists() and remote.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(1.5)
    size = remote.stat().st_size
    time.sleep(1.5)
    assert 0 < remote.stat().st_size == size < 3_000_000
    listed = subprocess.run(["ps", "-e", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert f" {device.alias}" not in listed


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
    ],
)
def test_what_ssh_says_decides_the_error(stderr: str, error: type[Exception], text: str) -> None:
    found = ssh_errors.ssh_error("a@h", stderr)
    assert type(found) is error
    assert text in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("lines", "code", "text"),
    [
        (["subsystem request failed on channel 0", "Connection closed"], 12, "Subsystem sftp internal-sftp"),
        (["remote open: Failure"], 1, "sftp: remote open: Failure; see: seed-deploy doctor a@h"),
        ([], 1, "exit status 1"),
    ],
)
def test_what_sftp_says_decides_the_error(lines: list[str], code: int, text: str) -> None:
    found = ssh_errors.sftp_error("a@h", lines, 1)
    assert found.exit_code == code
    assert text in str(found)
