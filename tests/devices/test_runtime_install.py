"""The runtime on a device: installed over a real sshd, updated, and never lost when something goes wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import seed_runtime
from seed_devices.errors import RemoteError
from seed_devices.push import requirements, runtime, wheels
from seed_devices.remote import installer_client
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import SeedError, UnsupportedError
from tests.devices.support import fake_wheels
from tests.devices.support.board import BOARD
from tests.devices.support.sshd import Device, MakeDevice

PHASES = ("transfer", "environment", "install", "test", "switch")
"""Progress is reported at each of these; the transfer has one or more per wheel."""


@pytest.mark.slow
def test_a_device_with_nothing_but_python_gets_a_runtime_that_starts(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    installed = fake_wheels.install(bare, monkeypatch, new, progress=lambda step, done, total: steps.append(step))
    assert (installed.version, installed.fresh) == ("9.0.0", True)
    assert fake_wheels.runtime_output(bare) == "9.0.0"
    fake_wheels.assert_whole(bare, "9.0.0")
    assert list(dict.fromkeys(steps)) == list(PHASES)
    path = bare.store / "runtime" / "current"
    assert re.fullmatch(r"9\.0\.0-[0-9a-f]{8}", os.readlink(path))
    assert installed.path == str(path.resolve())
    # No script and no traceback names the folder under which it was made.
    assert not [file for file in path.rglob("*") if file.is_file() and b".new/" in file.read_bytes()]
    assert (path / "lib").exists()
    assert list(path.rglob("seed_runtime/__pycache__/cli.*.pyc"))


@pytest.mark.slow
def test_a_runtime_has_litert_where_a_model_needs_it(
    bare: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = fake_wheels.house(tmp_path / "house", litert=True)
    fake_wheels.install(bare, monkeypatch, house)
    current = bare.store / "runtime" / "current"
    assert not list(current.rglob("ai_edge_litert"))
    assert fake_wheels.install(bare, monkeypatch, house, extras=("tflite",)).fresh
    assert list(current.rglob("ai_edge_litert"))
    assert fake_wheels.runtime_output(bare) == "9.0.0"


@pytest.mark.slow
def test_an_update_keeps_the_runtime_before_it_and_no_older_one(
    bare: Device, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wheels.install(bare, monkeypatch, old)
    assert fake_wheels.install(bare, monkeypatch, new).version == "9.0.0"
    fake_wheels.assert_whole(bare, "8.1.2", "9.0.0")
    # The same version once more, as where it doesn't start.
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    fake_wheels.assert_whole(bare, "9.0.0", "9.0.0")
    assert fake_wheels.runtime_output(bare) == "9.0.0"


@pytest.mark.slow
def test_an_older_runtime_stays_for_as_long_as_something_runs_from_it(
    bare: Device, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_wheels.install(bare, monkeypatch, old).path
    service = subprocess.Popen([f"{path}/bin/python", "-c", "import time; time.sleep(600)"])
    try:
        fake_wheels.install(bare, monkeypatch, new)
        fake_wheels.install(bare, monkeypatch, new)
        fake_wheels.assert_whole(bare, "8.1.2", "9.0.0", "9.0.0")
    finally:
        service.kill()
        service.wait()
    fake_wheels.install(bare, monkeypatch, new)
    fake_wheels.assert_whole(bare, "9.0.0", "9.0.0")


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
    put = runtime.put

    def counted(connection: Connection, local: Path, remote: str, start: int, **options: Any) -> None:
        sent.append((local.name, local.stat().st_size - start))
        put(connection, local, remote, start, **options)

    monkeypatch.setattr(runtime, "put", counted)
    assert fake_wheels.install(bare, monkeypatch, new, progress=note).fresh
    assert dict(sent)[big.path.name] == big.size - big.size // 2
    assert new.pip.path.name not in dict(sent)
    assert fake_wheels.runtime_output(bare) == "9.0.0"


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
    assert fake_wheels.runtime_output(bare) == "9.0.0"


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
    assert fake_wheels.runtime_output(bare) == "9.0.0"


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
    fake_wheels.assert_whole(bare, "9.0.0")


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
    with pytest.raises(RemoteError, match=r"the push needs .* bytes and .* are free; free some space") as caught:
        fake_wheels.install(bare, monkeypatch, huge)
    assert caught.value.exit_code == 13
    assert fake_wheels.runtimes(bare) == set()


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
            assert fake_wheels.runtime_output(bare) == "9.0.0"
        else:
            assert refused.exit_code == 13, str(refused)
            assert "free" in str(refused)
            assert fake_wheels.runtimes(bare) <= {".wheels"}
    assert (refused is None) >= (room >= 8192)
    print(f"{room} KiB: {refused or 'installed'}")


@pytest.mark.slow
def test_a_device_without_python_is_refused_with_the_package_that_brings_it(
    make_device: MakeDevice, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("sh", "cat"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    device = make_device(runtime=False, environment={"PATH": str(tmp_path)})
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: new)
    monkeypatch.setattr(requirements, "__version__", new.version)
    with (
        Connection(device.alias, config=device.config) as connection,
        pytest.raises(UnsupportedError, match=r"there is no python3; install Python 3\.11 or newer there: sudo apt"),
    ):
        runtime.install(connection, BOARD)


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
    assert fake_wheels.runtime_output(bare) == "9.0.0"
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
    fake_wheels.assert_whole(bare, seed_runtime.__version__)
