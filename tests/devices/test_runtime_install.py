"""The runtime on a device: installed over a real sshd, updated, and never lost to a kill or a lie.

Longer than 400 lines because every way in which one and the same installation can end needs the same device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import seed_runtime
from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.push import requirements, runtime, wheels
from seed_devices.remote import installer, installer_client
from seed_devices.remote.agent_client import Progress
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import DiskSpaceError, SeedError, UnsupportedError
from tests.devices.support import fake_wheels
from tests.devices.support.sshd import Device, Sshd, _descendants
from tests.support.project import ROOT

_numbers = itertools.count(1)

# Progress is reported at each of these; the transfer has one or more per wheel.
STEPS = ("transfer", "environment", "install", "test", "switch")


@pytest.fixture
def bare(sshd: Sshd, tmp_path: Path) -> Device:
    """Return a device that has a python3 and nothing else."""
    folder = fake_wheels.python_folder(tmp_path / "bin")
    return sshd.device(f"bare{next(_numbers)}", runtime=False, environment={"PATH": f"{folder}:/usr/bin:/bin"})


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> wheels.Wheelhouse:
    return fake_wheels.house(tmp_path_factory.mktemp("old"), "8.1.2")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> wheels.Wheelhouse:
    return fake_wheels.house(tmp_path_factory.mktemp("new"), "9.0.0")


def told(device: Device) -> str:
    """What `seed-run` of the current runtime says, through its own script."""
    script = device.store / "runtime" / "current" / "bin" / "seed-run"
    return subprocess.run([str(script)], capture_output=True, text=True, check=True).stdout.strip()


def runtimes(device: Device) -> set[str]:
    """All that stands in the runtime folder but the lock."""
    return {entry.name for entry in (device.store / "runtime").iterdir()} - {".lock"}


def whole(device: Device, *versions: str) -> None:
    """Nothing is there but whole runtimes, one of each of these versions, and the link."""
    names = runtimes(device)
    assert "current" in names
    assert sorted(name.rpartition("-")[0] for name in names - {"current"}) == sorted(versions)


@pytest.mark.slow
def test_a_device_with_nothing_but_python_gets_a_runtime_that_starts(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    installed = fake_wheels.install(bare, monkeypatch, new, progress=lambda step, done, total: steps.append(step))
    assert (installed.version, installed.fresh) == ("9.0.0", True)
    assert told(bare) == "9.0.0"
    whole(bare, "9.0.0")
    assert list(dict.fromkeys(steps)) == list(STEPS)
    path = bare.store / "runtime" / "current"
    assert re.fullmatch(r"9\.0\.0-[0-9a-f]{8}", os.readlink(path))
    assert installed.path == str(path.resolve())
    # No script and no traceback names the folder under which it was made.
    assert not [file for file in path.rglob("*") if file.is_file() and b".new/" in file.read_bytes()]
    assert (path / "lib").exists()
    assert list(path.rglob("seed_runtime/__pycache__/cli.*.pyc"))


@pytest.mark.slow
def test_an_update_keeps_the_runtime_before_it_and_no_older_one(
    bare: Device, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wheels.install(bare, monkeypatch, old)
    assert fake_wheels.install(bare, monkeypatch, new).version == "9.0.0"
    whole(bare, "8.1.2", "9.0.0")
    # The same version once more, as where it doesn't start.
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    whole(bare, "9.0.0", "9.0.0")
    assert told(bare) == "9.0.0"


@pytest.mark.slow
def test_an_older_runtime_stays_for_as_long_as_something_runs_from_it(
    bare: Device, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_wheels.install(bare, monkeypatch, old).path
    service = subprocess.Popen([f"{path}/bin/python", "-c", "import time; time.sleep(600)"])
    try:
        fake_wheels.install(bare, monkeypatch, new)
        fake_wheels.install(bare, monkeypatch, new)
        whole(bare, "8.1.2", "9.0.0", "9.0.0")
    finally:
        service.kill()
        service.wait()
    fake_wheels.install(bare, monkeypatch, new)
    whole(bare, "9.0.0", "9.0.0")


@pytest.mark.slow
def test_a_cut_transfer_goes_on_where_it_stopped(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare.store / "runtime" / ".wheels"
    folder.mkdir(parents=True)
    big = new.needed[1]
    part = folder / f"{big.path.name}.{big.sha256[:16]}.part"
    part.write_bytes(big.path.read_bytes()[: big.size // 2])
    (folder / "numpy-1.0-py3-none-any.whl").write_bytes(b"of another version")
    (folder / new.pip.path.name).write_bytes(new.pip.path.read_bytes())
    totals = []

    def note(step: str, done: int, total: int) -> None:
        if step == "transfer":
            totals.append(total)

    sent: list[tuple[str, int]] = []
    put = Connection.put

    def counted(self: Connection, local: Path, remote: str, **options: Any) -> None:
        sent.append((local.name, local.stat().st_size - os.path.getsize(remote)))
        put(self, local, remote, **options)

    monkeypatch.setattr(Connection, "put", counted)
    assert fake_wheels.install(bare, monkeypatch, new, progress=note).fresh
    assert dict(sent)[big.path.name] == big.size - big.size // 2
    assert new.pip.path.name not in dict(sent)
    assert told(bare) == "9.0.0"


@pytest.mark.slow
def test_a_partial_wheel_with_wrong_bytes_is_sent_from_its_beginning(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare.store / "runtime" / ".wheels"
    folder.mkdir(parents=True)
    big = new.needed[1]
    # As after a power cut: the size is there and the bytes are not.
    (folder / f"{big.path.name}.{big.sha256[:16]}.part").write_bytes(bytes(big.size // 2))
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    assert told(bare) == "9.0.0"


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False], ids=["right", "damaged"])
def test_a_wheel_that_had_arrived_when_the_link_was_lost_is_looked_at_first(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    folder = bare.store / "runtime" / ".wheels"
    folder.mkdir(parents=True)
    big = new.needed[1]
    part = folder / f"{big.path.name}.{big.sha256[:16]}.part"
    part.write_bytes(big.path.read_bytes() if right else bytes(big.size))
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    assert told(bare) == "9.0.0"


@pytest.mark.slow
def test_two_installations_at_once_install_it_once(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[runtime.Installed] = []
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: new)
    monkeypatch.setattr(requirements, "__version__", new.version)

    def install() -> None:
        with Connection(bare.alias, config=bare.config) as connection:
            found.append(runtime.install(connection, told_before))

    with Connection(bare.alias, config=bare.config) as connection:
        told_before = fake_wheels.facts(connection)
    threads = [threading.Thread(target=install) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.fresh for one in found) == [False, True]
    assert len({one.path for one in found}) == 1
    whole(bare, "9.0.0")


@pytest.mark.slow
def test_an_installation_that_another_one_holds_up_is_refused_after_a_while(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare.store / "runtime").mkdir(parents=True)
    monkeypatch.setattr(runtime, "WAIT_S", 0)
    with (bare.store / "runtime" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RemoteError, match=r"another seed-deploy is installing .*; wait for it") as caught:
            fake_wheels.install(bare, monkeypatch, new)
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_refused_before_a_byte_is_sent(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = dataclasses.replace(new, own=dataclasses.replace(new.own, unpacked=1 << 50))
    with pytest.raises(RemoteError, match=r"the runtime needs .* bytes and .* are free; free some space") as caught:
        fake_wheels.install(bare, monkeypatch, huge)
    assert caught.value.exit_code == 13
    assert runtimes(bare) == set()


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("room", [256, 1024, 2560, 3200, 3400, 3800, 4300, 8192])
def test_a_disk_that_fills_up_at_any_step_is_exit_code_13_and_leaves_nothing(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    # The device tells of more room than there is, as where something else fills it meanwhile.
    lying = installer_client.installer().decode()
    lying = lying.replace("MARGIN = 16 << 20", "MARGIN = 1 << 20").replace("if needed > free:", "if False:")
    monkeypatch.setattr(installer_client, "installer", lying.encode)
    refused: SeedError | None = None
    with small_disk(bare.store, room << 10):
        try:
            fake_wheels.install(bare, monkeypatch, new, changed={"disk_free": 1 << 30})
        except SeedError as error:
            refused = error
        if refused is None:
            assert room > 3000
            assert told(bare) == "9.0.0"
        else:
            assert refused.exit_code == 13, str(refused)
            assert "free" in str(refused)
            assert runtimes(bare) <= {".wheels"}
    assert (refused is None) >= (room >= 8192)
    print(f"{room} KiB: {refused or 'installed'}")


@pytest.mark.slow
def test_a_device_without_python_is_refused_with_the_package_that_brings_it(
    sshd: Sshd, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("sh", "cat"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    device = sshd.device(f"bare{next(_numbers)}", runtime=False, environment={"PATH": str(tmp_path)})
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: new)
    monkeypatch.setattr(requirements, "__version__", new.version)
    with (
        Connection(device.alias, config=device.config) as connection,
        pytest.raises(UnsupportedError, match=r"there is no python3; install Python 3\.11 or newer there: sudo apt"),
    ):
        runtime.install(connection, BOARD)


BOARD: dict[str, Any] = {
    "machine": "aarch64",
    "bits": 64,
    "os": "Debian GNU/Linux 12",
    "os_id": "debian",
    "libc": ["glibc", "2.36"],
    "python": "3.11.2",
    "numpy": None,
    "venv": True,
    "ram": 512 << 20,
    "disk_free": 8 << 30,
    "store": "/nowhere/seed",
    "store_writable": True,
    "termux": False,
    "model": "Raspberry Pi Zero 2 W Rev 1.0",
    "runtime": None,
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"python": "3.9.2"}, r"its Python is 3\.9\.2 and 3\.11 is needed; update its system to Debian 12"),
        ({"python": "3.10.12", "os_id": "ubuntu"}, r"to Ubuntu 24\.04"),
        ({"libc": ["musl", ""]}, "its C library is musl .* such as Debian"),
        ({"libc": ["", ""]}, "its C library is unknown .* such as Debian"),
        ({"libc": ["glibc", "2.12"]}, r"its glibc 2\.12 is older than 2\.17; update its system"),
        ({"libc": ["glibc", "9"]}, "its C library can't be used"),
        ({"libc": ["bionic", ""], "termux": True}, "proot-distro install debian"),
        ({"machine": "armv6l", "bits": 32}, "armv6l .* use a 64-bit system"),
        ({"venv": False}, "sudo apt install python3-venv"),
        ({"store_writable": False}, "can't be written to there; mount it writable"),
        ({"machine": "armv7l", "bits": 32}, "sudo apt install python3-numpy"),
        ({"machine": "armv7l", "bits": 32, "numpy": "1.19.5"}, r"its NumPy is 1\.19\.5"),
    ],
)
def test_a_device_that_can_take_no_runtime_is_refused_with_the_next_step(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said) as caught:
        requirements.check({**BOARD, **changed})
    assert caught.value.exit_code == 12


def test_a_full_disk_is_refused_before_wheels_are_fetched() -> None:
    with pytest.raises(DiskSpaceError, match="free some space there"):
        requirements.check({**BOARD, "disk_free": 1 << 20})


def test_a_32_bit_board_with_the_distributions_numpy_is_taken() -> None:
    assert not requirements.check({**BOARD, "machine": "armv7l", "bits": 32, "numpy": "1.24.2"}).inference


def test_a_seed_that_needs_a_runtime_which_this_host_has_not_is_refused() -> None:
    connection: Any = None
    with pytest.raises(UnsupportedError, match="update it here: pip install -U"):
        runtime.install(connection, BOARD, needed=(99, 0, 0))
    with pytest.raises(UnsupportedError, match=r"needs seed-runtime 99\.0\.0"):
        requirements.check(BOARD, (99, 0, 0))


@pytest.mark.parametrize(
    ("there", "needed", "update", "due"),
    [
        (None, (0, 0, 0), False, True),
        ("0.0.9", (0, 1, 0), False, True),
        ("0.0.9", (0, 0, 9), False, False),  # though this host has a newer one
        ("0.0.9", (0, 0, 9), True, True),
        ("99.0.0", (98, 0, 0), True, False),
    ],
)
def test_a_runtime_is_due_if_none_starts_or_it_is_older_than_the_seed_needs_or_than_is_asked_for(
    there: str | None, needed: tuple[int, int, int], update: bool, due: bool
) -> None:
    assert requirements.is_due(there, needed, update=update) == due


@pytest.mark.slow
def test_a_32_bit_board_gets_a_runtime_on_top_of_the_distributions_numpy(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The folder of the user's own packages: the one outside of a virtual environment that a test may write to.
    packages = bare.home / ".local" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "numpy"
    lean = dataclasses.replace(new, needed=())
    board: dict[str, object] = {"machine": "armv7l", "bits": 32, "numpy": "1.24.2"}
    packages.mkdir(parents=True)
    (packages / "__init__.py").touch()
    assert fake_wheels.install(bare, monkeypatch, lean, changed=board).fresh
    assert told(bare) == "9.0.0"
    assert not list((bare.store / "runtime" / "current" / "lib").rglob("onnxruntime"))


@pytest.mark.slow
def test_the_wheels_are_for_the_python3_that_will_run_them(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def collect(profile: object, python: object, libc: object, **named: object) -> wheels.Wheelhouse:
        asked.append(python)
        return new

    monkeypatch.setattr(wheels, "collect", collect)
    with Connection(bare.alias, config=bare.config) as connection:
        # The runtime that is there tells another Python than python3 is by now.
        runtime.install(connection, {**fake_wheels.facts(connection), "python": "3.99.0"})
    assert asked == [sys.version_info[:2]]


@pytest.mark.parametrize(
    ("code", "said", "step"),
    [
        (1, "ImportError: libstdc++.so.6: cannot open shared object file", "sudo apt install libstdc++6"),
        (1, "ImportError: libgomp.so.1: cannot open shared object file", "sudo apt install libgomp1"),
        (1, "ModuleNotFoundError: No module named 'numpy'", "sudo apt install python3-numpy"),
        (-4, "", "use a newer board"),
        (1, "anything else", "seed-deploy doctor"),
    ],
)
def test_a_new_runtime_that_does_not_start_is_refused_with_what_helps(code: int, said: str, step: str) -> None:
    assert step in installer.test_failure(code, said)


# Kills


def _kill_at(count: int, delay_s: float, kill: Callable[[], None]) -> Progress:
    """Kills a moment after the step number `count` was reported."""
    seen = itertools.count()

    def progress(step: str, done: int, total: int) -> None:
        if next(seen) == count:
            threading.Timer(delay_s, kill).start()

    return progress


def _kill_sessions(sshd: Sshd) -> None:
    """As when the device's side goes: every process behind the server, pip included."""
    assert sshd._process is not None
    for pid in _descendants(sshd._process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _count_steps(device: Device, house: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch) -> int:
    steps: list[str] = []
    fake_wheels.install(device, monkeypatch, house, progress=lambda step, done, total: steps.append(step))
    return len(steps)


@pytest.mark.slow
def test_a_kill_of_the_devices_side_at_any_step_leaves_the_runtime_that_was_there(
    bare: Device, sshd: Sshd, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _count_steps(bare, old, monkeypatch)
    random_ = random.Random(3)
    killed = finished = 0
    for count in range(steps):
        before = os.readlink(bare.store / "runtime" / "current")
        kill = _kill_at(count, random_.uniform(0, 0.3), lambda: _kill_sessions(sshd))
        try:
            fake_wheels.install(bare, monkeypatch, new, progress=kill)
            finished += 1
        except (UnreachableError, RemoteError):
            killed += 1
            # Killed after the switch, the new one is there; otherwise the old one is, and either starts.
            current = os.readlink(bare.store / "runtime" / "current")
            assert current == before or current.startswith("9.0.0-")
        assert told(bare) in ("8.1.2", "9.0.0")
    assert killed >= steps // 2
    time.sleep(0.5)  # for the last kill, if the installation was quicker
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    assert told(bare) == "9.0.0"
    assert len(runtimes(bare)) == 3, "the current one, the one before, and the link"
    print(f"{killed} of {steps} installations killed on the device's side, {finished} had ended before")


KILLED_HOST = """
import os, signal, sys, threading
from pathlib import Path
from seed_devices.push import requirements, runtime, wheels
from seed_devices.ssh.connection import Connection
from tests.devices.support import fake_wheels

alias, config, folder, count, delay = sys.argv[1:]
new = fake_wheels.house(Path(folder), "9.0.0")
wheels.collect = lambda *given, **named: new
requirements.__version__ = new.version
seen = iter(range(1000))
def progress(step, done, total):
    if next(seen) == int(count):
        threading.Timer(float(delay), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
with Connection(alias, config=Path(config)) as connection:
    runtime.install(connection, fake_wheels.facts(connection), progress=progress)
"""


@pytest.mark.slow
def test_a_kill_of_the_host_at_any_step_leaves_the_runtime_that_was_there(
    bare: Device, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = _count_steps(bare, old, monkeypatch)
    random_ = random.Random(4)
    killed = 0
    for count in range(0, steps, 2):
        arguments = [bare.alias, str(bare.config), str(tmp_path / "wheels"), str(count), str(random_.uniform(0, 0.2))]
        done = subprocess.run(
            [sys.executable, "-c", KILLED_HOST, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
        assert told(bare) in ("8.1.2", "9.0.0")
    assert killed
    # What the killed host had begun on the device may still be at work there: it holds the lock.
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    assert told(bare) == "9.0.0"
    assert len(runtimes(bare)) == 3, "the current one, the one before, and the link"
    print(f"{killed} installations killed on the host's side")


# The real thing


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("online", [False, True], ids=["wheels from the host", "wheels from the index"])
def test_a_real_runtime_is_installed_and_runs(bare: Device, tmp_path: Path, online: bool) -> None:
    with Connection(bare.alias, config=bare.config) as connection:
        facts = fake_wheels.facts(connection)
        installed = runtime.install(connection, facts, online=online)
        assert (installed.version, installed.fresh) == (seed_runtime.__version__, True)
        again = fake_wheels.facts(connection)
        assert again["runtime"] == {"path": installed.path, "version": installed.version}
        listed = connection.run(f"{installed.path}/bin/python -m seed_runtime.agent status")
        assert '"models": []' in listed.text
        versions = "import numpy, onnxruntime; print(numpy.__version__, onnxruntime.__version__)"
        print(connection.run(f"{installed.path}/bin/python -c '{versions}'").text.strip())
    whole(bare, seed_runtime.__version__)
