"""One push to one device: what arrives, what is sent twice, what is refused before a byte is sent."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.push import preflight, runtime, wheels
from seed_devices.push.job import Options, PushResult
from seed_devices.push.one_device import push
from seed_devices.push.wheels import Wheelhouse
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import SeedError, UnsupportedError
from tests.devices.support.proxy import Proxy
from tests.devices.support.pushing import running_seed, send
from tests.devices.support.seeds import EXAMPLE, EXAMPLE_NAME, make_seed
from tests.devices.support.sshd import RUNTIME, Device, Sshd


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What arrives


def test_a_pushed_seed_is_checked_there_and_runs(device: Device) -> None:
    done = send(device, EXAMPLE)
    assert (done.name, done.state, done.sent, done.previous) == (EXAMPLE_NAME, "pushed", EXAMPLE.stat().st_size, None)
    assert done.record is not None
    assert done.record["golden"] is True
    assert running_seed(device, EXAMPLE_NAME) == EXAMPLE.read_bytes()
    assert set(done.seconds) == {"connect", "probe", "check", "transfer", "install", "switch"}


@pytest.mark.slow
def test_an_update_can_be_rolled_back_and_switched_to_again_without_sending(device: Device, tmp_path: Path) -> None:
    first, second = (make_seed(tmp_path / f"{number}.seed", version=number) for number in (1, 2))
    send(device, first)
    updated = send(device, second)
    assert (updated.state, updated.previous) == ("pushed", preflight.load(first).digest)
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        assert agent.call("rollback", name="product")["current"] == preflight.load(first).digest
    assert running_seed(device, "product") == first.read_bytes()
    again = send(device, second)
    assert (again.state, again.sent) == ("switched", 0)
    assert running_seed(device, "product") == second.read_bytes()


@pytest.mark.slow
def test_one_seed_can_have_several_names(device: Device) -> None:
    send(device, EXAMPLE, "front")
    send(device, EXAMPLE, "back")
    assert running_seed(device, "front") == running_seed(device, "back") == EXAMPLE.read_bytes()


@pytest.mark.slow
def test_only_as_many_versions_are_kept_as_asked_for(device: Device, tmp_path: Path) -> None:
    seeds = [make_seed(tmp_path / f"{number}.seed", version=number) for number in (1, 2, 3)]
    done = [send(device, seed, keep=1) for seed in seeds]
    assert done[2].removed == [preflight.load(seeds[0]).digest]


# What is sent


@pytest.mark.slow
def test_an_unchanged_push_sends_less_than_20_kilobytes(sshd: Sshd) -> None:
    with Proxy(sshd.port) as proxy:
        device = sshd.device("unchanged", port=proxy.port)
        send(device, EXAMPLE)
        proxy.reset()
        done = send(device, EXAMPLE)
    assert (done.state, done.sent) == ("unchanged", 0)
    print(f"an unchanged push: {proxy.sent} bytes sent, {proxy.received} received")
    assert proxy.total < 20_000


@pytest.mark.slow
def test_a_push_that_was_cut_goes_on_where_it_stopped(sshd: Sshd, tmp_path: Path) -> None:
    seed = make_seed(tmp_path / "large.seed", width=1024)
    size = seed.stat().st_size
    with Proxy(sshd.port) as proxy:
        device = sshd.device("resumed", port=proxy.port)
        proxy.cut_after = 2_200_000
        with pytest.raises(UnreachableError, match="run the same command again"):
            send(device, seed, "large")
        assert not device.model("large").joinpath("current").exists()
        (part,) = (device.store / "incoming").glob("*.part")
        missing = size - part.stat().st_size
        proxy.reset()
        done = send(device, seed, "large")
    print(f"{size} bytes, {missing} were missing, {done.sent} sent, {proxy.sent} on the wire")
    assert 0 < missing < size
    assert proxy.sent - missing <= max(1 << 20, missing // 20)
    assert done.state == "pushed"
    assert running_seed(device, "large") == seed.read_bytes()


@pytest.mark.slow
def test_what_runs_survives_a_cut_at_any_point(sshd: Sshd, tmp_path: Path) -> None:
    old, new = make_seed(tmp_path / "1.seed", version=1), make_seed(tmp_path / "2.seed", width=256, version=2)
    with Proxy(sshd.port) as proxy:
        device = sshd.device("surviving", port=proxy.port)
        send(device, old)
        for cut_after in range(2_000, 240_000, 34_000):
            proxy.reset()
            proxy.cut_after = cut_after
            with pytest.raises(SeedError) as caught:
                send(device, new)
            assert caught.value.exit_code == 20
            assert running_seed(device, "product") == old.read_bytes()
        proxy.reset()
        send(device, new)
    assert running_seed(device, "product") == new.read_bytes()


@pytest.mark.slow
def test_zeros_that_a_power_cut_left_are_sent_again(device: Device, tmp_path: Path) -> None:
    seed = make_seed(tmp_path / "s.seed", width=256)
    data, incoming = seed.read_bytes(), device.store / "incoming"
    incoming.mkdir()
    (incoming / f"{preflight.load(seed).digest}.part").write_bytes(data[:100_000] + bytes(120_000))
    send(device, seed)
    assert running_seed(device, "product") == data


@pytest.mark.slow
def test_two_pushes_at_once_come_one_after_the_other(device: Device, tmp_path: Path) -> None:
    seeds = [make_seed(tmp_path / f"{number}.seed", width=256, version=number) for number in (1, 2)]
    done: list[PushResult | Exception] = []

    def work(seed: Path) -> None:
        try:
            done.append(send(device, seed))
        except Exception as error:
            done.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (*seeds, seeds[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(one, PushResult) for one in done), done
    assert running_seed(device, "product") in [seed.read_bytes() for seed in seeds]
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        (model,) = agent.call("status", name="product")["models"]
    assert len(model["versions"]) == 2


# What is refused before a byte is sent


def test_an_unsigned_seed_is_not_sent_to_a_device_that_asks_for_signatures(device: Device) -> None:
    signers = device.home / "config" / "seed" / "allowed_signers"
    signers.parent.mkdir(parents=True)
    signers.touch()
    before = files_in(device.home)
    with pytest.raises(RemoteError, match=r"is not signed; sign it \(seed-export --sign KEY\)") as caught:
        send(device, EXAMPLE)
    assert caught.value.exit_code == 11
    assert files_in(device.home) == before


def test_a_dry_run_writes_nothing_there(device: Device) -> None:
    before = files_in(device.home)
    done = send(device, EXAMPLE, dry_run=True)
    assert (done.state, done.sent) == ("would push", EXAMPLE.stat().st_size)
    assert files_in(device.home) == before
    assert not (device.store / "models").exists()


@pytest.mark.slow
def test_a_dry_run_counts_what_has_arrived_of_this_seed_and_of_no_other(device: Device, tmp_path: Path) -> None:
    seeds = [preflight.load(make_seed(tmp_path / f"{number}.seed", version=number)) for number in (1, 2)]
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        begun = agent.call("begin", name="product", digest=seeds[0].digest, file_size=seeds[0].file_size)
        Path(begun["path"]).write_bytes(seeds[0].path.read_bytes()[:100])
    sent = [send(device, seed.path, dry_run=True).sent for seed in seeds]
    assert sent == [seeds[0].file_size - 100, seeds[1].file_size]


def test_a_dry_run_needs_no_runtime_there(sshd: Sshd, new: Wheelhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: new)
    device = sshd.device("dry", runtime=False)
    done = send(device, EXAMPLE, dry_run=True)
    assert (done.state, done.runtime_installed) == ("would push", True)
    assert not device.store.exists()


def test_a_device_without_a_runtime_gets_one_on_the_same_connection(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = sshd.device("fresh", runtime=False)
    lead = []

    def install(connection: Connection, facts: dict[str, Any], **options: Any) -> runtime.Installed:
        lead.append(connection._master)
        assert facts["store"] == str(device.store)
        assert options["needed"] == (0, 1, 0)
        connection.run("true")
        device.install_runtime()
        return runtime.Installed("0.1.0", str(device.store / "runtime" / RUNTIME), True)

    monkeypatch.setattr(runtime, "install", install)
    with Connection(device.alias, config=device.config) as connection:
        done = push(connection, preflight.load(EXAMPLE), None, Options())
        assert (done.state, done.runtime_installed) == ("pushed", True)
        assert connection._master is lead[0]
        assert connection.run("echo still open").text == "still open\n"


def test_a_seed_that_claims_to_need_more_memory_than_there_is_is_refused(device: Device, tmp_path: Path) -> None:
    greedy = make_seed(tmp_path / "greedy.seed", working_bytes=1 << 39)
    with pytest.raises(RemoteError, match=r"needs 52431\d MiB at least and the device has") as caught:
        send(device, greedy)
    assert caught.value.exit_code == 14
    assert not (device.store / "incoming").exists()


def test_a_limit_that_python_alone_breaks_is_refused(device: Device) -> None:
    with pytest.raises(RemoteError, match="--max-memory allows 10 MiB") as caught:
        send(device, EXAMPLE, max_memory=10_000_000)
    assert caught.value.exit_code == 14


# Devices that are not as they should be


def only(sshd: Sshd, alias: str, *programs: str) -> Device:
    """A device without a runtime whose PATH has these programs alone."""
    folder = sshd.folder / f"bin-{alias}"
    folder.mkdir()
    for program in ("sh", "cat", *programs):
        (folder / program).symlink_to(shutil.which(program) or "")
    return sshd.device(alias, runtime=False, environment={"PATH": str(folder)})


def test_a_device_without_python_says_what_to_install(sshd: Sshd) -> None:
    device = only(sshd, "no-python")
    with pytest.raises(UnsupportedError, match=r"no-python: there is no python3; .*apt install python3"):
        send(device, EXAMPLE)
    assert not device.store.exists()


def fake(device: Device, script: str) -> None:
    path = device.store / "runtime" / RUNTIME / "bin" / "python"
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


HELLO = 'echo \'{"agent": 1, "runtime": "0.1.0", "python": "3.11.2"}\''


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ('echo \'{"agent": 2, "runtime": "9.0"}\'; cat', 12, "speaks version 2 of the protocol"),
        ("echo '{\"agent\": '; cat", 1, "which can't be used"),
        (f"{HELLO}; read x; echo nonsense; cat", 1, "answers b'nonsense"),
        (f"{HELLO}; read x; echo '[]'; cat", 1, "which can't be used"),
        (f"{HELLO}; read x; head -c 1100000 /dev/zero", 1, "which can't be used"),
        (f"{HELLO}; read x; echo '{{\"progress\": [1]}}'; cat", 1, "which can't be used"),
        (f"{HELLO}; read x; exit 137", 14, "as it does when memory runs out"),
        (f"{HELLO}; read x; kill -9 $$", 14, "as it does when memory runs out"),
        (f"{HELLO}; read x; echo Traceback >&2; exit 1", 1, "its agent ended during status (Traceback)"),
        (f'{HELLO}; read x; printf %s\\\\n \'{{"ok": false, "exit": 13, "error": "a\\nb"}}\'; cat', 13, ": a b"),
        (f'{HELLO}; read x; echo \'{{"ok": false, "exit": 0}}\'; cat', 1, "no reason"),
    ],
)
def test_an_agent_that_misbehaves_is_one_clear_line(device: Device, script: str, code: int, text: str) -> None:
    fake(device, script)
    with pytest.raises(SeedError) as caught:
        send(device, EXAMPLE)
    assert caught.value.exit_code == code
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_runtime_that_doesnt_start_is_told_from_one_that_isnt_there(device: Device) -> None:
    fake(device, "echo no such module >&2; exit 1")
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        assert (agent.runtime, agent.start_error) == (None, "no such module")
        with pytest.raises(UnsupportedError, match="its runtime doesn't start"):
            agent.call("status")


def test_a_path_that_isnt_one_is_refused(device: Device) -> None:
    begin = '{"ok": true, "state": "partial", "have": 0, "path": "x\\n!touch y"}'
    status, facts = '{"ok": true, "models": []}', '{"ok": true, "facts": {"python": "3.11.2"}}'
    fake(device, f"{HELLO}; for a in '{status}' '{facts}' '{begin}'; do read x; printf '%s\\n' \"$a\"; done; cat")
    with pytest.raises(RemoteError, match="no path of a file"):
        send(device, EXAMPLE)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_what_runs_and_names_the_step(device: Device, tmp_path: Path) -> None:
    import subprocess

    old, new = make_seed(tmp_path / "1.seed", version=1), make_seed(tmp_path / "2.seed", width=1024, version=2)
    runtime = shutil.move(device.store / "runtime", device.home / "runtime")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(device.store)], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        (device.store / "runtime").symlink_to(runtime)
        send(device, old)
        with pytest.raises(RemoteError, match="bytes are needed") as caught:
            send(device, new)
        assert caught.value.exit_code == 13
        assert running_seed(device, "product") == old.read_bytes()
    finally:
        subprocess.run(["umount", "-l", str(device.store)], check=True)
