"""Requests that the agent refuses, after which the device is as it was."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

import seed_runtime
from seed_runtime import trust
from seed_runtime.agent import disk
from seed_runtime.agent.store import partial
from seed_runtime.agent.store.store import Store
from seed_runtime.errors import TrustError
from seed_runtime.golden import Verdict
from seed_runtime.system import paths
from seed_runtime.system.sync import make_folder
from seed_runtime.trust import state
from tests.runtime.agent.support.device_agent import (
    NAME,
    LocalAgent,
    digest_of,
    push,
    refused,
    running,
    seed,
    tree,
)
from tests.support.seed_builder import build_seed
from tests.support.signing import (
    add_signature,
    make_signature,
    needs_ssh_keygen,
    new_key,
    public_key,
    sign_seed,
    write_allowed_signers,
)

ONE, TWO = (digest_of(seed(version)) for version in (1, 2))


def test_a_seed_that_ends_early_is_refused_and_what_arrived_stays(local: LocalAgent) -> None:
    begun = local.begin(seed())
    Path(begun["path"]).write_bytes(seed()[:-1])
    assert "it has" in refused(lambda: local.install(seed()), 10)
    assert 0 < local.begin(seed())["have"] < len(seed())


def test_another_seed_than_the_one_that_was_begun_is_refused(local: LocalAgent) -> None:
    begun = local.begin(seed())
    Path(begun["path"]).write_bytes(seed(2))
    refused(lambda: local.install(seed()), 10)
    assert local.begin(seed())["have"] == 0


def test_a_seed_with_a_wrong_header_is_refused_and_leaves_nothing(local: LocalAgent, home: Path) -> None:
    # All digests are right; its weights are not what they decode to.
    data = build_seed({"weights.digest": bytes(32)})
    local.send(data)
    refused(lambda: local.install(data), 10)
    local.end()
    assert tree(home) == {"incoming": None, "models": None}


def test_a_failed_golden_sample_is_refused_and_the_version_before_runs(
    local: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(seed(1))
    monkeypatch.setattr(seed_runtime.Session, "verify", lambda self: Verdict(True, False, 7.0, "y"))
    local.send(seed(2))
    line = refused(lambda: local.install(seed(2)), 12)
    assert "'y' of the golden sample differs by 7 times" in line
    assert "pip install -U onnxruntime" in line
    assert running() == ONE
    assert Store().model(NAME).digests() == [ONE]
    last = local.call("status")["models"][0]["last"]
    assert (last["what"], last["digest"], last["result"]) == ("install", TWO, line)


def test_a_memory_limit_that_is_too_small_is_refused_with_one_that_suffices(local: LocalAgent) -> None:
    local.send(seed())
    assert "--max-memory" in refused(lambda: local.install(seed(), max_memory=1 << 20), 14)
    assert local.begin(seed())["have"] == len(seed())


def test_an_untrusted_seed_is_refused_and_leaves_nothing(local: LocalAgent, home: Path) -> None:
    paths.config_home().mkdir(parents=True)
    (paths.config_home() / "allowed_signers").write_text("")
    local.send(seed())
    assert "is not signed" in refused(lambda: local.install(seed()), 11)
    local.end()
    assert tree(home) == {"incoming": None, "models": None}


def test_what_is_installed_is_accepted_and_what_is_removed_is_forgotten(
    local: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []

    def accept(header: Any, digest: str, *, stored: bool) -> None:
        reported.append((header.model.version, digest, stored))

    monkeypatch.setattr(trust, "accept", accept)
    monkeypatch.setattr(trust, "forget", lambda digests: reported.append(list(digests)))
    local.push(seed(1))
    assert set(reported) == {(1, ONE, True)}
    local.push(seed(2))
    local.call("remove", name=NAME, digest=ONE)
    assert reported[-1] == [ONE]


def test_a_rollback_to_a_version_that_is_no_longer_trusted_is_refused(
    local: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(seed(1), seed(2))

    def refuse(*_: Any) -> None:
        raise TrustError("its signer was removed; push another version")

    monkeypatch.setattr(trust, "check", refuse)
    monkeypatch.setattr(trust, "accept", refuse)
    refused(lambda: local.call("rollback", name=NAME), 11)
    assert Store().model(NAME).running == TWO


def test_too_little_disk_space_is_reported_before_the_transfer(
    local: LocalAgent, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: os.terminal_size((0, 0)) and Disk)
    line = refused(lambda: local.begin(seed(), weights_bytes=5_000_000), 13)
    assert "5,0" in line or "6,0" in line
    assert "seed-deploy remove" in line
    assert tree(home) == {"incoming": None, "models": None}


class Disk:
    free = 2 << 20


def test_bytes_that_have_arrived_need_no_disk_space_again(local: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, missing = 2 * partial.BLOCK, 10
    make_folder(Store().incoming)
    Store().partial_path(ONE).write_bytes(bytes(arrived))
    monkeypatch.setattr(Disk, "free", disk.EXTRA + missing)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Disk)
    fields = {"name": NAME, "digest": ONE}
    assert len(local.call("begin", file_size=arrived + missing, **fields)["tail"]) == 2
    refused(lambda: local.call("begin", file_size=arrived + missing + 1, **fields), 13)


@pytest.mark.parametrize(
    ("number", "code", "help_text"),
    [
        (errno.ENOSPC, 13, "seed-deploy remove"),
        (errno.EDQUOT, 13, "seed-deploy remove"),
        (errno.EROFS, 2, "mount -o remount,rw"),
        (errno.EACCES, 2, "SEED_HOME"),
    ],
)
def test_an_error_of_the_disk_is_not_an_internal_error(
    local: LocalAgent, monkeypatch: pytest.MonkeyPatch, number: int, code: int, help_text: str
) -> None:
    def fail(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", fail)
    assert help_text in refused(lambda: local.begin(seed()), code)


def test_a_home_that_is_a_file_is_refused(local: LocalAgent, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("a file")
    local = LocalAgent()
    assert "SEED_HOME" in refused(lambda: local.begin(seed()), 2)
    assert home.read_text() == "a file"


def test_links_in_the_store_are_not_followed(local: LocalAgent, home: Path, tmp_path: Path) -> None:
    (home / "incoming").mkdir(parents=True)
    (home / "incoming" / f"{ONE}.part").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("mine")
    refused(lambda: local.begin(seed()), 2)
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": 1},
        {"op": "serve"},
        {"op": "_locked", "name": "a"},
        {"op": "begin", "name": "../a", "digest": ONE, "file_size": 1},
        {"op": "begin", "name": "a", "digest": ONE[:-1], "file_size": 1},
        {"op": "begin", "name": "a", "digest": ONE.upper(), "file_size": 1},
        {"op": "begin", "name": "a", "digest": ONE, "file_size": 0},
        {"op": "begin", "name": "a", "digest": ONE, "file_size": 1 << 50},
        {"op": "begin", "name": "a", "digest": ONE, "file_size": True},
        {"op": "begin", "name": "a", "digest": ONE, "file_size": 1, "wait_s": 1e9},
        {"op": "begin", "name": "a", "digest": ONE, "file_size": 1, "wait_s": -1},
        {"op": "install", "name": "a", "digest": ONE, "max_memory": 0},
        {"op": "switch", "name": "a", "digest": ONE, "keep": 0},
        {"op": "rollback", "name": "a", "to": "12345"},
        {"op": "rollback", "name": "a", "to": "../../"},
        {"op": "remove", "name": "a", "all": 1},
        {"op": "log", "name": "a", "lines": 10_000},
        {"op": "service", "name": "a", "action": "start"},
        {"op": "service", "name": "a", "action": "install", "address": "0.0.0.0:80"},
        {"op": "status", "name": {"a": 1}},
    ],
)
def test_a_malformed_request_is_refused(request_: dict[str, Any], home: Path) -> None:
    answer = LocalAgent().agent.answer(request_)
    assert (answer["ok"], answer["exit"], answer["kind"]) == (False, 2, "UsageError")
    assert not home.exists()


def test_unknown_fields_of_a_request_are_ignored(local: LocalAgent) -> None:
    assert local.call("status", colour="blue")["models"] == []


def test_an_install_without_begin_is_refused(local: LocalAgent) -> None:
    refused(lambda: local.install(seed()), 2)
    local.begin(seed(1))
    refused(lambda: local.install(seed(2)), 2)


def test_a_missing_model_is_reported_with_the_names_of_those_that_exist(local: LocalAgent) -> None:
    push(seed())
    for op in ("rollback", "remove", "log"):
        assert "there are: tiny" in refused(lambda op=op: local.call(op, name="other"), 2)  # type: ignore[misc]
    assert local.call("status", name="other")["models"] == []
    assert not (Store().models / "other").exists()


@needs_ssh_keygen
def test_a_seed_that_fails_does_not_make_older_versions_unacceptable(
    local: LocalAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(tmp_path / "key")
    write_allowed_signers(f'me namespaces="seed" {public_key(key)}')
    with monkeypatch.context() as failing:
        failing.setattr(seed_runtime.Session, "verify", lambda self: Verdict(True, False, 7.0, "y"))
        local.send(new := sign_seed(seed(2), key))
        refused(lambda: local.install(new), 12)
    local.push(sign_seed(seed(1), key))


@needs_ssh_keygen
def test_a_signed_seed_can_be_rolled_back_to_for_as_long_as_it_is_stored(local: LocalAgent, tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    write_allowed_signers(f'me namespaces="seed" {public_key(key)}')
    old, new = sign_seed(seed(1), key), sign_seed(seed(2), key)
    local.push(old)
    local.push(new)
    assert local.call("rollback", name=NAME)["current"] == digest_of(old)
    assert local.call("rollback", name=NAME)["current"] == digest_of(new)
    local.call("remove", name=NAME)
    local.send(old)
    assert "has accepted version 2" in refused(lambda: local.install(old), 11)
    assert running() == digest_of(new)
    local.end()
    assert tree(Store().incoming) == {}


@needs_ssh_keygen
def test_a_seed_that_is_not_accepted_leaves_nothing(local: LocalAgent, tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    write_allowed_signers(f'me namespaces="seed" {public_key(key)}')
    for data in (seed(1), add_signature(seed(2), make_signature(b"something else", key))):
        refused(lambda data=data: local.push(data), 11)  # type: ignore[misc]
    local.end()
    assert tree(Store().incoming) == {}


@needs_ssh_keygen
def test_a_seed_that_may_be_accepted_after_a_repair_is_not_transferred_again(
    local: LocalAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, other = new_key(tmp_path / "key"), new_key(tmp_path / "other")
    write_allowed_signers(f'me namespaces="seed" {public_key(key)}')
    local.send(data := sign_seed(seed(1), key))
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        assert "apt install openssh-client" in refused(lambda: local.install(data), 11)
    assert local.begin(data)["have"] == len(data)
    local.push(data)
    local.send(theirs := sign_seed(seed(2), other))
    assert "add the signer there" in refused(lambda: local.install(theirs), 11)
    write_allowed_signers(f'me namespaces="seed" {public_key(key)}', f'them namespaces="seed" {public_key(other)}')
    assert local.begin(theirs)["have"] == len(theirs)
    local.push(theirs)
    assert running() == digest_of(theirs)


@needs_ssh_keygen
def test_a_stored_version_is_accepted_after_many_newer_ones_by_hand(
    local: LocalAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LISTED_MAX", 2)
    key = new_key(tmp_path / "key")
    write_allowed_signers(f'me namespaces="seed" {public_key(key)}')
    local.push(old := sign_seed(seed(1), key))
    for version in (2, 3, 4):
        seed_runtime.open(io.BytesIO(sign_seed(seed(version), key))).check()
    seed_runtime.open(Store().model(NAME).link / "model.seed").check()
    assert local.begin(old)["state"] == "current"
