"""Pushes of versions as deltas: what arrives, what is sent instead, what survives cuts, rollbacks and limits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.push import deliver
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_runtime.units import size_text
from tests.devices.support.commands import deploy, hosts, stderr_of
from tests.devices.support.delta_pushes import NAME, damage, digest_of, send, versions_on
from tests.devices.support.proxy import Proxy
from tests.devices.support.pushing import running_seed
from tests.devices.support.seeds import make_delta, make_seed
from tests.devices.support.sshd import Device, Sshd
from tests.support.signing import needs_ssh_keygen, new_key, public_key, sign_seed

pytestmark = pytest.mark.slow


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return make_seed(tmp_path / "v1.seed", golden="right")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    # The weights of the delta: those of version 1, its bias and 2.
    return make_seed(tmp_path / "v2.seed", version=2, golden="right", matrix=1, bias=3)


@pytest.fixture
def two_on_one(tmp_path: Path, one: Path) -> Path:
    return make_delta(tmp_path / "v2-on-v1.seed", one, version=2)


def test_a_device_with_version_1_gets_version_2_as_a_delta(
    device: Device, one: Path, two: Path, two_on_one: Path
) -> None:
    size, whole = two_on_one.stat().st_size, two.stat().st_size
    assert deploy(device.config, "push", one, device.alias).returncode == 0
    words = ("push", two, device.alias, "--delta", two_on_one)
    dry = deploy(device.config, *words, "--dry-run")
    text = f"v2-on-v1.seed, a delta on version 1, in place of {size_text(whole)}"
    assert f"note: if the device refuses it, v2.seed would be sent ({size_text(whole)})" in dry.stdout.decode()
    assert f"it would send {size_text(size)} ({text}) and switch" in dry.stdout.decode()
    done = deploy(device.config, *words)
    assert f"runs ({size_text(size)} sent: {text}, golden sample right, before it " in done.stdout.decode(), stderr_of(
        done
    )
    assert running_seed(device, NAME) == two_on_one.read_bytes()
    assert "runs already as v2-on-v1.seed, nothing was sent" in deploy(device.config, *words).stdout.decode()
    (host,) = hosts(device.config, *words)
    assert (host["state"], host["sent"], host["whole_bytes"]) == ("unchanged", 0, whole)
    assert (host["file"], host["is_given"]) == (str(two_on_one), False)
    assert host["delta"] == {
        "file": str(two_on_one), "bytes": size, "base": digest_of(one), "base_version": 1, "with": 0,
    }  # fmt: skip
    verified = deploy(device.config, "run", f"{device.alias}:{NAME}", "--verify", "--json")
    assert json.loads(verified.stdout)["golden"] is True
    (host,) = hosts(device.config, "status", device.alias)
    (model,) = host["models"]
    assert (model["digest"], model["base"], model["version"]) == (digest_of(two_on_one), digest_of(one), 2)
    listed = deploy(device.config, "list", device.alias).stdout.decode()
    assert digest_of(one)[:12] in listed.splitlines()[1]


def test_each_named_seed_of_the_version_is_unchanged(device: Device, one: Path, two: Path, two_on_one: Path) -> None:
    send(device, one)
    assert send(device, two_on_one).state == "pushed"
    for done in (send(device, two, two_on_one), send(device, two_on_one, whole=two), send(device, two_on_one)):
        assert (done.state, done.sent, done.digest) == ("unchanged", 0, digest_of(two_on_one))


def test_a_device_without_the_base_gets_the_whole_seed(device: Device, one: Path, two: Path, two_on_one: Path) -> None:
    done = send(device, two, two_on_one)
    assert (done.state, done.delta, done.sent, done.is_given) == ("pushed", None, two.stat().st_size, True)
    assert running_seed(device, NAME) == two.read_bytes()
    assert versions_on(device) == {digest_of(two)}
    (host,) = hosts(device.config, "push", two_on_one, device.alias, "--whole", two)
    assert (host["state"], host["file"], host["is_given"]) == ("unchanged", str(two), False)


def test_a_stale_delta_in_the_folder_does_not_replace_the_seed_that_was_given(
    device: Device, one: Path, two_on_one: Path, tmp_path: Path
) -> None:
    # Trained again and exported under the same number: id, version and source are those of the delta.
    two = make_seed(tmp_path / "v2.seed", version=2, golden="right", matrix=7)
    send(device, one)
    done = send(device, two)
    assert (done.state, done.delta, done.digest) == ("pushed", None, digest_of(two))
    assert running_seed(device, NAME) == two.read_bytes()
    # Nor is the other one "unchanged" by it.
    assert send(device, two_on_one).state == "pushed"
    assert running_seed(device, NAME) == two_on_one.read_bytes()


def test_named_files_of_another_version_are_2(device: Device, one: Path, two: Path, tmp_path: Path) -> None:
    three = make_delta(tmp_path / "v3.seed", one, version=3)
    for words in ((two, "--delta", three), (two, "--delta", one), (three, "--whole", two), (two, "--whole", two)):
        assert deploy(device.config, "push", words[0], device.alias, *words[1:]).returncode == 2


def test_a_base_that_is_missing_is_sent_below_the_delta(device: Device, one: Path, two_on_one: Path) -> None:
    done = send(device, two_on_one)
    assert done.sent == one.stat().st_size + two_on_one.stat().st_size
    assert done.delta is not None
    assert done.delta["with"] == 1
    assert done.whole_bytes == done.sent
    assert running_seed(device, NAME) == two_on_one.read_bytes()
    assert versions_on(device) == {digest_of(one), digest_of(two_on_one)}
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        # The base never ran, so it is nothing to go back to by itself; by its name it is.
        with pytest.raises(RemoteError, match="no other version ran before"):
            agent.call("rollback", name=NAME)
        assert agent.call("rollback", name=NAME, to=digest_of(one))["current"] == digest_of(one)
    assert send(device, two_on_one).state == "switched"


def test_a_delta_without_any_base_is_refused_before_it_is_sent(device: Device, one: Path, two_on_one: Path) -> None:
    one.rename(one.with_suffix(".moved"))
    done = deploy(device.config, "push", two_on_one, device.alias)
    assert done.returncode == 12
    assert f"is a delta on the seed {digest_of(one.with_suffix('.moved'))}, which is neither there" in stderr_of(done)
    assert not (device.store / "incoming").exists()


@pytest.mark.parametrize("when", ["_transfer", "put"])
def test_a_base_that_is_removed_meanwhile_lets_the_whole_seed_be_sent(
    device: Device, one: Path, two: Path, two_on_one: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    send(device, one)
    step = getattr(deliver, when)

    def after_removal(*given: Any, **named: Any) -> Any:
        # Between the probe and the request to begin, or between that and the installation.
        shutil.rmtree(device.model(NAME) / "versions" / digest_of(one), ignore_errors=True)
        return step(*given, **named)

    monkeypatch.setattr(deliver, when, after_removal)
    done = send(device, two, two_on_one)
    assert (done.state, done.delta, done.digest) == ("pushed", None, digest_of(two))
    (note,) = done.notes
    assert f"v2-on-v1.seed, a delta, was refused there (version {digest_of(two_on_one)} stands on" in note
    assert running_seed(device, NAME) == two.read_bytes()
    assert done.sent == two.stat().st_size + (two_on_one.stat().st_size if when == "put" else 0)


def test_a_delta_that_does_not_compute_what_it_should_lets_the_whole_seed_be_sent(
    device: Device, one: Path, two: Path, tmp_path: Path
) -> None:
    send(device, one)
    wrong = make_delta(tmp_path / "v2-on-v1.seed", one, version=2, golden="wrong")
    done = send(device, two, wrong)
    assert (done.state, done.delta) == ("pushed", None)
    assert "golden sample differs" in done.notes[0]
    assert versions_on(device) == {digest_of(one), digest_of(two)}
    # Where nothing else is at hand, it is refused.
    two.unlink()
    with pytest.raises(RemoteError, match="golden sample differs") as caught:
        send(device, wrong)
    assert caught.value.exit_code == 12


def test_a_base_that_the_device_has_damaged_lets_the_whole_seed_be_sent(
    device: Device, one: Path, two: Path, two_on_one: Path
) -> None:
    send(device, one)
    damage(device, one)
    done = send(device, two_on_one, whole=two)
    assert (done.state, done.delta, done.is_given) == ("pushed", None, False)
    assert "which was damaged on this device's disk" in done.notes[0]
    assert running_seed(device, NAME) == two.read_bytes()


def test_a_running_delta_whose_base_was_damaged_is_replaced_by_the_whole_seed(
    device: Device, one: Path, two: Path, two_on_one: Path
) -> None:
    send(device, one)
    send(device, two, two_on_one)
    damage(device, one)
    done = send(device, two, two_on_one)
    assert (done.state, done.digest) == ("pushed", digest_of(two))
    assert running_seed(device, NAME) == two.read_bytes()


def test_a_damaged_base_is_sent_again_below_the_delta_where_it_is_at_hand(
    device: Device, one: Path, two_on_one: Path
) -> None:
    send(device, one)
    damage(device, one)
    done = send(device, two_on_one)
    assert (done.state, done.digest, done.delta and done.delta["with"]) == ("pushed", digest_of(two_on_one), 1)
    assert "which was damaged on this device's disk" in done.notes[0]
    assert done.sent >= one.stat().st_size + two_on_one.stat().st_size
    assert running_seed(device, NAME) == two_on_one.read_bytes()
    # And below the one that runs.
    damage(device, one)
    assert send(device, two_on_one).digest == digest_of(two_on_one)
    verified = deploy(device.config, "run", f"{device.alias}:{NAME}", "--verify")
    assert verified.returncode == 0, stderr_of(verified)


@pytest.mark.parametrize("code", [11, 13, 14])
def test_a_delta_that_the_device_refuses_lets_the_whole_seed_be_sent(
    device: Device, one: Path, two: Path, two_on_one: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    send(device, one)
    call = AgentClient.call

    def refuse(self: AgentClient, op: str, *given: Any, **named: Any) -> dict[str, Any]:
        if op == "begin" and named["digest"] == digest_of(two_on_one):
            raise RemoteError(code, "that is too much", "SomeError")
        return call(self, op, *given, **named)

    monkeypatch.setattr(AgentClient, "call", refuse)
    done = send(device, two_on_one, whole=two)
    assert (done.state, done.digest, done.is_given) == ("pushed", digest_of(two), False)
    assert done.notes == ["v2-on-v1.seed, a delta, was refused there (that is too much)"]
    # Where nothing else was named, it is refused.
    with pytest.raises(RemoteError, match="that is too much") as caught:
        send(device, two_on_one)
    assert caught.value.exit_code == code


@needs_ssh_keygen
def test_a_link_that_is_too_old_for_the_device_lets_the_whole_seed_be_sent(device: Device, tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    folder = device.home / "config" / "seed"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "allowed_signers").write_text(f"a@b {public_key(key)}\n")

    def signed(path: Path) -> Path:
        path.write_bytes(sign_seed(path.read_bytes(), key))
        return path

    one = signed(make_seed(tmp_path / "v1.seed", golden="right"))
    two = signed(make_delta(tmp_path / "v2.seed", one, version=2))
    four = signed(make_delta(tmp_path / "v4-on-v2.seed", one, two, version=4))
    whole = signed(make_seed(tmp_path / "v4.seed", version=4, matrix=1, bias=7, golden="right"))
    three = signed(make_seed(tmp_path / "v3.seed", version=3, golden="right"))
    send(device, one)
    send(device, three)
    # Version 2 was never there, and the newest accepted one is 3.
    done = send(device, four, whole=whole)
    assert (done.state, done.digest) == ("pushed", digest_of(whole))
    assert "v4-on-v2.seed, a delta, was refused there" in done.notes[0]
    assert running_seed(device, NAME) == whole.read_bytes()


def test_a_delta_finds_its_base_on_a_device_whose_runtime_is_gone(device: Device, one: Path, two_on_one: Path) -> None:
    send(device, one)
    one.rename(one.with_suffix(".moved"))
    shutil.rmtree(device.store / "runtime")
    dry = deploy(device.config, "push", two_on_one, device.alias, "--dry-run")
    assert dry.returncode == 0, stderr_of(dry)
    assert (
        f"send {size_text(two_on_one.stat().st_size)} (a delta on version {digest_of(one.with_suffix('.moved'))[:12]}"
        in (dry.stdout.decode())
    )


def test_a_push_of_the_version_below_the_one_that_runs_says_how_to_return(
    device: Device, one: Path, two_on_one: Path
) -> None:
    send(device, one)
    send(device, two_on_one)
    done = send(device, one)
    assert done.state == "switched"
    assert f"switched back from {digest_of(two_on_one)[:12]}" in done.notes[0]
    assert deploy(device.config, "rollback", f"{device.alias}:{NAME}").returncode == 0
    assert running_seed(device, NAME) == two_on_one.read_bytes()


def test_a_delta_that_was_cut_goes_on_where_it_stopped(sshd: Sshd, tmp_path: Path) -> None:
    one = make_seed(tmp_path / "v1.seed", width=1024)
    two = make_delta(tmp_path / "v2.seed", one, version=2, width=1024, wide=True)
    three = make_delta(tmp_path / "v3.seed", one, two, version=3, width=1024, wide=True)
    sizes = two.stat().st_size, three.stat().st_size
    with Proxy(sshd.port) as proxy:
        device = sshd.device("cut", port=proxy.port)
        send(device, one)
        seen = []
        # In the middle of the delta below, then of the one on top of it.
        for cut_after in (sizes[0] // 2, sizes[0] // 2 + sizes[1] // 2):
            proxy.reset()
            proxy.cut_after = cut_after
            with pytest.raises(UnreachableError, match="run the same command again"):
                # Not faster, or most of what was sent is still on its way when the link is cut.
                send(device, three, max_rate=4_000_000)
            assert running_seed(device, NAME) == one.read_bytes()
            seen.append(proxy.sent)
        assert versions_on(device) == {digest_of(one), digest_of(two)}
        proxy.reset()
        done = send(device, three)
    print(f"deltas of {sizes} bytes; sent {seen} before the cuts and {proxy.sent} after them")
    assert (done.state, done.delta and done.delta["with"]) == ("pushed", 0)
    assert 0 < done.sent < sizes[1]
    assert running_seed(device, NAME) == three.read_bytes()
    assert sum(seen) + proxy.sent < sum(sizes) + 3 * (1 << 19)


def test_what_runs_survives_a_cut_of_a_delta_at_any_point(sshd: Sshd, tmp_path: Path) -> None:
    one = make_seed(tmp_path / "v1.seed", width=128)
    two = make_delta(tmp_path / "v2.seed", one, version=2, width=128, wide=True)
    with Proxy(sshd.port) as proxy:
        device = sshd.device("delta-cuts", port=proxy.port)
        send(device, one)
        for cut_after in range(2_000, two.stat().st_size + 4_000, 12_000):
            proxy.reset()
            proxy.cut_after = cut_after
            with pytest.raises(UnreachableError):
                send(device, two)
            assert running_seed(device, NAME) == one.read_bytes()
        proxy.reset()
        send(device, two)
    assert running_seed(device, NAME) == two.read_bytes()


def test_few_kept_versions_keep_what_they_stand_on(device: Device, tmp_path: Path, one: Path) -> None:
    chain = [one]
    for version in (2, 3, 4):
        chain.append(make_delta(tmp_path / f"v{version}.seed", *chain, version=version))
    for seed in chain:
        assert send(device, seed, keep=1).removed == []
    assert versions_on(device) == set(map(digest_of, chain))
    done = deploy(device.config, "remove", f"{device.alias}:{NAME}", "--digest", digest_of(one)[:12])
    assert done.returncode == 2, stderr_of(done)
    for number, version in enumerate((5, 6)):
        whole = make_seed(tmp_path / f"v{version}.seed", version=version)
        removed = send(device, whole, keep=1).removed
        assert len(removed) == (4 if number else 0)


def test_a_rollback_from_a_delta_to_its_base_and_back(device: Device, one: Path, two_on_one: Path) -> None:
    send(device, one)
    send(device, two_on_one)
    for seed in (one, two_on_one):
        assert deploy(device.config, "rollback", f"{device.alias}:{NAME}").returncode == 0
        assert running_seed(device, NAME) == seed.read_bytes()
    assert deploy(device.config, "run", f"{device.alias}:{NAME}", "--verify").returncode == 0


def test_each_device_of_a_rollout_goes_its_own_way(make_device: Any, one: Path, two: Path, two_on_one: Path) -> None:
    fleet: Sequence[Device] = [make_device() for _ in range(3)]
    for device in (fleet[0], fleet[2]):
        send(device, one)
    names = [device.alias for device in fleet]
    words = ("push", two, *names, "--delta", two_on_one, "--canary", "2", "--watch", "1s", "--json")
    done = deploy(fleet[0].config, *words)
    answer = json.loads(done.stdout)
    assert done.returncode == 0, stderr_of(done)
    small, large = two_on_one.stat().st_size, two.stat().st_size
    assert [host["sent"] for host in answer["hosts"]] == [small, large, small]
    assert answer["sent"] == 2 * small + large
    assert answer["canary"]["decision"] == "went on"
    assert [host["runs"] for host in answer["canary"]["hosts"]] == [digest_of(two_on_one), digest_of(two)]
    assert [running_seed(device, NAME) for device in fleet] == [
        path.read_bytes() for path in (two_on_one, two, two_on_one)
    ]
    table = deploy(fleet[0].config, "push", two, *names, "--delta", two_on_one, "--dry-run").stdout.decode()
    assert table.count("unchanged") == 3


def test_an_older_runtime_gets_the_whole_seed(
    device: Device, one: Path, two: Path, two_on_one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(device, one)
    call = AgentClient.call

    def older(self: AgentClient, op: str, *given: Any, **named: Any) -> dict[str, Any]:
        answer = call(self, op, *given, **named)
        answer.pop("chain_max", None)
        return answer

    monkeypatch.setattr(AgentClient, "call", older)
    done = send(device, two, two_on_one)
    assert (done.state, done.delta, done.digest) == ("pushed", None, digest_of(two))
    assert "is too old for it; --update-runtime brings a newer one" in done.notes[0]
    two.unlink()
    shutil.rmtree(device.model(NAME))
    send(device, one)
    with pytest.raises(RemoteError, match="seed-deploy push --update-runtime") as caught:
        send(device, two_on_one)
    assert caught.value.exit_code == 12
