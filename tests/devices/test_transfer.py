"""Files on their way to a device: all of it, the rest of it, at a rate, over links that break, without sftp."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.ssh import transfer
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.pace import Pace
from seed_devices.ssh.transfer import put
from seed_runtime.errors import UsageError
from tests.devices.support.proxy import Proxy
from tests.devices.support.sshd import Device, MakeDevice, Sshd
from tests.support.project import skip_or_fail


class FailingFile(io.FileIO):
    """A file on a disk that can't be read."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def connect(device: Device) -> Connection:
    return Connection(device.alias, config=device.config)


def test_a_file_is_sent_and_the_rest_of_one_is_sent(device: Device, tmp_path: Path) -> None:
    local, remote = tmp_path / 'a [b] "*.seed', device.home / "what is \"this\" and 'that' $HOME *"
    local.write_bytes(os.urandom(300_000))
    with connect(device) as connection:
        put(connection, local, str(remote), 0)
        assert remote.read_bytes() == local.read_bytes()
        remote.write_bytes(local.read_bytes()[:100_001])
        put(connection, local, str(remote), 100_001)
        assert remote.read_bytes() == local.read_bytes()
        put(connection, local, str(remote), 300_000)
    assert remote.read_bytes() == local.read_bytes()


def test_late_bytes_of_an_earlier_push_are_written_over(device: Device, tmp_path: Path) -> None:
    local, remote = tmp_path / "file", device.home / "part"
    local.write_bytes(os.urandom(300_000))
    remote.write_bytes(local.read_bytes()[:100_000] + bytes(50_000))
    with connect(device) as connection:
        put(connection, local, str(remote), 100_000)
    assert remote.read_bytes() == local.read_bytes()


def test_only_the_rest_of_a_file_passes_the_wire(sshd: Sshd, tmp_path: Path) -> None:
    local = tmp_path / "file"
    local.write_bytes(os.urandom(1_000_000))
    with Proxy(sshd.port) as proxy:
        device = sshd.device("rest", port=proxy.port)
        remote = device.home / "part"
        remote.write_bytes(local.read_bytes()[:900_000])
        with connect(device) as connection:
            put(connection, local, str(remote), 900_000)
        assert proxy.sent < 120_000


def test_busybox_is_enough(make_device: MakeDevice, tmp_path: Path) -> None:
    busybox = shutil.which("busybox") or skip_or_fail("there is no BusyBox on this machine: apt install busybox")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "cat", "dd", "ls", "sleep"):
        (programs / name).symlink_to(busybox)
    device = make_device(runtime=False, environment={"PATH": str(programs)})
    local, remote, seen, heard = tmp_path / "file", device.home / "part", [], threading.Event()
    local.write_bytes(os.urandom(300_000))
    remote.write_bytes(local.read_bytes()[:100_001])

    class UntilHeard(Pace):
        """Lets nothing more be sent until the device has said that some was written."""

        def wait(self, size: int) -> None:
            assert heard.wait(60)

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done > 100_001:
            heard.set()

    with connect(device) as connection:
        connection.shared_pace = UntilHeard(1_000_000)
        put(connection, local, str(remote), 100_001, progress=progress)
    assert remote.read_bytes() == local.read_bytes()
    assert heard.is_set()
    assert all(100_001 <= done <= total == 300_000 for done, total in seen)


@pytest.mark.slow
def test_the_rate_is_kept_and_progress_comes_from_the_device(device: Device, tmp_path: Path) -> None:
    local, seen = tmp_path / "file", []
    local.write_bytes(bytes(2_000_000))
    start = time.monotonic()
    with connect(device) as connection:
        connection.max_rate = 500_000
        put(connection, local, str(device.home / "part"), 0, progress=lambda *pair: seen.append(pair))
    assert time.monotonic() - start > 3.5
    assert seen
    assert seen == sorted(seen)
    assert all(0 < done <= total == 2_000_000 for done, total in seen)


def test_a_folder_that_isnt_there_is_told_in_the_devices_words(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with (
        connect(device) as connection,
        pytest.raises(RemoteError, match=r"can't be written there: .*(No such|nonexist)"),
    ):
        put(connection, tmp_path / "file", str(device.home / "none" / "part"), 0)


def test_a_full_disk_is_told_in_the_devices_words(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    with connect(device) as connection, pytest.raises(RemoteError, match=r"written there: cat: .*No space left"):
        put(connection, tmp_path / "file", "/dev/full", 0)


@pytest.mark.parametrize("path", ["relative", "/a\n!touch /tmp/x", "/" + "a" * 5000])
def test_a_path_that_cant_be_one_is_refused(device: Device, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with connect(device) as connection, pytest.raises(RemoteError, match="no path of a file"):
        put(connection, tmp_path / "file", path, 0)


def test_a_file_of_this_machine_that_cant_be_read_is_the_users_mistake(device: Device, tmp_path: Path) -> None:
    with connect(device) as connection, pytest.raises(UsageError, match="No such file"):
        put(connection, tmp_path / "none", str(device.home / "part"), 0)


def test_a_disk_of_this_machine_that_fails_on_the_way_is_told(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", lambda path, mode: FailingFile(path))
    with connect(device) as connection, pytest.raises(UsageError, match=r"file: Input/output error; give a copy"):
        put(connection, tmp_path / "file", str(device.home / "part"), 0)


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_shell_that_is_killed_leaves_nothing_behind(shell: str, tmp_path: Path) -> None:
    words = [shutil.which(shell) or skip_or_fail(f"there is no {shell} on this machine"), "-c", transfer._RECEIVE, "sh"]
    process = subprocess.Popen(
        [*words, str(tmp_path / "part"), "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    # The group lives for as long as any of its processes.
    until = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("something runs on")


def test_a_link_that_is_cut_says_that_the_next_call_goes_on(sshd: Sshd, tmp_path: Path) -> None:
    local = tmp_path / "file"
    local.write_bytes(os.urandom(3_000_000))
    with Proxy(sshd.port) as proxy:
        device = sshd.device("cut", port=proxy.port)
        with connect(device) as connection:
            connection.hold()
            proxy.cut_after = proxy.sent + 1_000_000
            with pytest.raises(UnreachableError, match=r"the connection was lost.*; run the same command again"):
                # Slowly: what a buffer of this machine holds when the link is cut never arrives.
                put(connection, local, str(device.home / "part"), 0, max_rate=3_000_000)
    assert 0 < (device.home / "part").stat().st_size < 1_100_000


def test_a_device_that_takes_nothing_more_is_given_up(
    make_device: MakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seed_devices.ssh.connection.SILENCE_S", 0.5)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dd", "ls"):
        (programs / name).symlink_to(shutil.which(name) or "")
    for name in ("cat", "sleep"):
        (programs / name).write_text("#!/bin/sh\nexec /bin/sleep 60\n")
        (programs / name).chmod(0o755)
    device = make_device(runtime=False, environment={"PATH": str(programs)})
    (tmp_path / "file").write_bytes(bytes(8_000_000))
    with connect(device) as connection, pytest.raises(UnreachableError, match=r"nothing was heard from it for 0\.5 s"):
        put(connection, tmp_path / "file", str(device.home / "part"), 0)


KILLED = """
import sys
from pathlib import Path
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.transfer import put
connection = Connection(sys.argv[1], config=Path(sys.argv[2]))
connection.hold()
put(connection, Path(sys.argv[3]), sys.argv[4], 0, max_rate=100_000)
"""


@pytest.mark.slow
def test_a_killed_process_takes_its_ssh_and_its_transfer_along(device: Device, tmp_path: Path) -> None:
    local, remote = tmp_path / "file", device.home / "part"
    local.write_bytes(bytes(3_000_000))
    words = [sys.executable, "-c", KILLED, device.alias, str(device.config), str(local), str(remote)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("XDG_RUNTIME_DIR", None)
    process = subprocess.Popen(words, env=environment)
    until = time.monotonic() + 60
    while not (remote.exists() and remote.stat().st_size):
        assert time.monotonic() < until, "nothing arrives"
        time.sleep(0.05)
    assert any(line.startswith("ssh ") for line in device.processes())
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while (left := device.processes()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left  # so that nothing writes any more
    assert 0 < remote.stat().st_size < 3_000_000
