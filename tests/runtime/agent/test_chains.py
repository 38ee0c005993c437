"""Versions with a base: what is installed on what, what stays for as long as it is needed, what is refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime import stored_bases
from seed_runtime.agent import disk
from seed_runtime.agent.local import install_file
from seed_runtime.agent.store.store import Store
from seed_runtime.assembly import cache
from seed_runtime.errors import DiskSpaceError, MissingLinkError, UntrustedError
from tests.runtime.agent.support.device_agent import (
    NAME,
    LocalAgent,
    digest_of,
    push,
    refused,
    running,
    seed,
)
from tests.runtime.agent.support.version_chains import SAMPLE, chain, digests, model_of
from tests.support.deltas import delta_on
from tests.support.model_seeds import classifier
from tests.support.seed_run import COMMAND
from tests.support.signing import needs_ssh_keygen, sign_seed, trusted_key


def test_a_version_with_a_base_is_installed_on_it_and_runs(local: LocalAgent) -> None:
    one, two = digests(2)
    push(seed(1))
    local.send(chain(2)[1])
    record = local.install(chain(2)[1])["record"]
    assert (record["base"], record["golden"], record["model_version"]) == (one, True, 2)
    assert local.switch(chain(2)[1])["previous"] == one
    assert running() == two
    answer = local.call("status")
    assert answer["chain_max"] == 32
    versions = {version["digest"]: version for version in answer["models"][0]["versions"]}
    assert (versions[one]["base"], versions[two]["base"]) == (None, one)
    assert all(version["intact"] for version in versions.values())


@pytest.mark.slow
def test_seed_run_finds_the_base_in_the_store_by_itself() -> None:
    push(*chain(3))
    path = model_of() / "current" / "model.seed"
    done = subprocess.run([*COMMAND, str(path), "--verify", "--json"], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert (found["digest"], found["golden"]) == (digests(3)[2], True)
    planned = [sys.executable, "-m", "seed_runtime.cli.plan_server", str(path), "0"]
    assert json.loads(subprocess.run(planned, capture_output=True, check=True).stdout) == {"planned_bytes": None}


def test_a_chain_runs_where_nothing_of_it_is_assembled(local: LocalAgent) -> None:
    push(*chain(3))
    shutil.rmtree(cache.default_root())
    with seed_runtime.open(model_of() / "current" / "model.seed").session(threads=1) as session:
        assert session.verify().ok


@pytest.mark.slow
def test_a_service_of_a_delta_is_planned_by_the_footprint_of_its_base(tmp_path: Path) -> None:
    planned = []
    for number, data in enumerate((classifier(), delta_on(classifier(), version=2))):
        path = tmp_path / digest_of(data) / "model.seed"
        path.parent.mkdir()
        path.write_bytes(data)
        words = [sys.executable, "-m", "seed_runtime.cli.plan_server", str(path), "0"]
        planned.append(json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["planned_bytes"])
        assert planned[number] > 16 << 20
    # Its process also has the base's file open, and its plan is else the same.
    assert abs(planned[1] - planned[0]) < 4 << 20


def test_a_rollback_goes_to_the_base_and_back(local: LocalAgent) -> None:
    one, two = digests(2)
    push(*chain(2))
    assert local.call("rollback", name=NAME)["current"] == one
    assert running() == one
    assert local.push(chain(2)[1]) == {"ok": True, "previous": one, "removed": []}
    assert running() == two


def test_what_a_kept_version_stands_on_is_kept(local: LocalAgent) -> None:
    for number, data in enumerate(chain(4)):
        assert local.push(data, keep=1)["removed"] == [], number
    local.push(seed(5), keep=2)
    assert Store().model(NAME).digests() == sorted([*digests(4), digest_of(seed(5))])
    # The rollback target stands on nothing now: all of the chain goes, each before what it stands on.
    assert local.push(seed(6), keep=2)["removed"] == digests(4)[::-1]


def test_bases_that_were_sent_below_a_version_take_no_place_of_versions_that_ran(local: LocalAgent) -> None:
    push(seed(11), seed(12), seed(1))
    for data in chain(5)[1:]:
        local.send(data)
        local.install(data)
    assert local.switch(chain(5)[4], keep=3)["removed"] == [digest_of(seed(11))]
    assert set(Store().model(NAME).digests()) == {digest_of(seed(12)), *digests(5)}
    # Once nothing that is kept stands on them, they go with the last version that did.
    assert local.push(seed(13), keep=2)["removed"] == [digest_of(seed(12))]
    assert local.push(seed(14), keep=2)["removed"] == digests(5)[::-1]


def test_a_base_is_removed_only_with_what_stands_on_it(local: LocalAgent) -> None:
    one, two, three = digests(3)
    push(*chain(3), seed(4))
    error = refused(lambda: local.call("remove", name=NAME, digest=one), 2)
    assert error.startswith(f"{NAME}: {one[:12]} is the base of ")
    assert error.endswith(f"; remove what stands on it first, or remove all of {NAME}")
    assert all(digest[:12] in error for digest in (two, three))
    assert local.call("remove", name=NAME, digest=three)["removed"] == [three]
    assert local.call("remove", name=NAME)["removed"] == [two, one]
    assert running() == digest_of(seed(4))


def test_all_but_the_running_version_leaves_what_that_one_stands_on(local: LocalAgent) -> None:
    one, two, three = digests(3)
    push(seed(4), *chain(3), keep=10)
    local.call("rollback", name=NAME, to=two)
    assert set(local.call("remove", name=NAME)["removed"]) == {three, digest_of(seed(4))}
    assert Store().model(NAME).digests() == sorted([one, two])


def test_a_seed_whose_base_is_not_there_is_refused_before_it_is_sent(local: LocalAgent) -> None:
    one, two, three = digests(3)
    push(seed(1))
    error = refused(lambda: local.begin(chain(3)[2], base=two), 12)
    # Nothing of it runs, so there is nothing to roll back.
    assert error == (
        f"version {three} stands on version {two}, which is not on this device; push it from a folder that holds its "
        f"bases as well, or push the whole seed of this version"
    )
    assert os.listdir(Store().incoming) == []
    # An older client doesn't name it.
    local.send(chain(3)[2])
    assert f"version {three} stands on version {two}" in refused(lambda: local.install(chain(3)[2]), 12)
    assert running() == one


def test_a_base_that_was_damaged_is_named(local: LocalAgent) -> None:
    one, two = digests(2)
    push(seed(1))
    path = Store().model(NAME).seed_path(one)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    local.send(chain(2)[1])
    error = refused(lambda: local.install(chain(2)[1]), 12)
    assert f"version {two} stands on version {one}, which was damaged on this device's disk" in error
    local.push(seed(1))
    local.push(chain(2)[1])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    local.call("rollback", name=NAME, to=two)  # this process has checked it
    local.end()
    assert f"version {one[:12]}, on which {two[:12]} stands: it was damaged" in refused(
        lambda: LocalAgent().call("rollback", name=NAME, to=two), 10
    )


def test_a_missing_link_is_12_and_names_both_digests(local: LocalAgent) -> None:
    one, two = digests(2)
    push(*chain(2))
    model = Store().model(NAME)
    model.seed_path(one).rename(model.folder / "elsewhere")
    done = subprocess.run([*COMMAND, str(model.link / "model.seed"), "--verify"], capture_output=True, text=True)
    assert done.returncode == 12
    assert f"version {two} stands on version {one}, which is not in {model.versions}" in done.stderr
    with pytest.raises(MissingLinkError):
        seed_runtime.open(model.seed_path(two))


def test_status_says_that_a_version_without_its_base_is_not_intact(local: LocalAgent) -> None:
    one, two = digests(2)
    push(*chain(2))
    model = Store().model(NAME)
    (model.versions / one).rename(model.folder / "elsewhere")
    (version,) = local.call("status")["models"][0]["versions"]
    assert (version["digest"], version["base"], version["intact"]) == (two, one, False)


def test_a_golden_sample_that_fails_leaves_the_base_running(local: LocalAgent) -> None:
    push(seed(1))
    wrong = delta_on(seed(1), version=2, recipes=(SAMPLE,), golden_error=1.0)
    local.send(wrong)
    refused(lambda: local.install(wrong), 12)
    assert running() == digests(1)[0]
    assert Store().model(NAME).digests() == digests(1)


def test_space_is_needed_for_the_base_as_well_where_it_is_not_assembled(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = digests(2)
    push(seed(1))
    model = Store().model(NAME)
    size = model.record(one)["weights_bytes"]
    free = disk.EXTRA + size + size // 2
    monkeypatch.setattr(disk, "free_bytes", lambda folder: free)
    disk.require_space(model, two, one, 0, size)
    cache.default_cache().remove(one)
    with pytest.raises(DiskSpaceError) as caught:
        disk.require_space(model, two, one, 0, size)
    assert caught.value.needed == disk.EXTRA + 2 * size


@pytest.mark.slow
def test_a_service_restarts_on_a_version_with_a_base_and_goes_back(local: LocalAgent, manager: Path) -> None:
    store = Store()
    commands = store.home / "runtime" / "0.1.0-00000000" / "bin"
    commands.mkdir(parents=True)
    (store.home / "runtime" / "current").symlink_to("0.1.0-00000000")
    (commands / "seed-run").symlink_to(Path(sys.executable).with_name("seed-run"))
    local.push(seed(1))
    address = Path(local.call("service", name=NAME, action="install")["service"]["address"].removeprefix("unix:"))
    assert served_version(address) == "1"
    # Nothing is assembled: the server does it, and finds the base.
    local.send(chain(2)[1])
    local.install(chain(2)[1])
    for digest in digests(2):
        cache.default_cache().remove(digest)
    local.switch(chain(2)[1], keep=1)
    assert served_version(address) == "2"
    assert local.call("rollback", name=NAME)["current"] == digests(1)[0]
    assert served_version(address) == "1"
    assert local.call("rollback", name=NAME)["current"] == digests(2)[1]
    assert served_version(address) == "2"
    local.call("remove", name=NAME, all=True)


def served_version(path: Path) -> str:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.connect(str(path))
        connection.request("GET", f"/v2/models/{NAME}", headers={"Connection": "close"})
        (version,) = json.load(connection.getresponse())["versions"]
    return str(version)


# Seeds that this device made itself


def test_a_seed_that_was_made_on_the_device_becomes_a_version_and_runs(tmp_path: Path) -> None:
    one, two = digests(2)
    push(seed(1))
    path = tmp_path / "tuned.seed"
    path.write_bytes(chain(2)[1])
    model = Store().model(NAME)
    with model.locked(0):
        answer = install_file(model, path, lambda *_: None)
    assert (answer["record"]["base"], answer["previous"], answer["removed"]) == (one, one, [])
    assert running() == two
    assert path.read_bytes() == chain(2)[1]
    assert os.listdir(model.store.incoming) == []
    assert [event["what"] for event in LocalAgent().call("log", name=NAME)["lines"]][-2:] == ["install", "switch"]
    with model.locked(0):
        assert "record" not in install_file(model, path, lambda *_: None)


@needs_ssh_keygen
def test_where_signatures_are_required_only_what_was_made_here_becomes_a_version(
    local: LocalAgent, tmp_path: Path
) -> None:
    base = sign_seed(seed(1), trusted_key(tmp_path))
    local.push(base)
    local.end()
    (tmp_path / "base.seed").write_bytes(base)
    opened, model = seed_runtime.open(tmp_path / "base.seed"), Store().model(NAME)
    tuned, other = tmp_path / "tuned.seed", tmp_path / "other.seed"
    tuned.write_bytes(delta_on(base, version=1, recipes=(SAMPLE,)))
    other.write_bytes(delta_on(base, version=2, recipes=(SAMPLE,)))
    opened.note_made_of_this(bytes.fromhex(digest_of(tuned.read_bytes())))
    with model.locked(0):
        install_file(model, tuned, lambda *_: None)
        with pytest.raises(UntrustedError):
            install_file(model, other, lambda *_: None)
    assert running() == digest_of(tuned.read_bytes())
    seed_runtime.open(model.link / "model.seed").check()
    # What only lies in the store isn't accepted by that.
    folder = model.versions / digest_of(other.read_bytes())
    folder.mkdir()
    (folder / "model.seed").write_bytes(other.read_bytes())
    refused(lambda: LocalAgent().switch(other.read_bytes()), 11)
    assert running() == digest_of(tuned.read_bytes())


def test_one_that_fails_leaves_what_ran_and_nothing_else(tmp_path: Path) -> None:
    push(seed(1))
    path = tmp_path / "tuned.seed"
    path.write_bytes(delta_on(seed(1), version=2, recipes=(SAMPLE,), golden_error=1.0))
    model = Store().model(NAME)
    with model.locked(0), pytest.raises(seed_runtime.SeedError):
        install_file(model, path, lambda *_: None)
    assert running() == digests(1)[0]
    assert os.listdir(model.store.incoming) == []
    assert "golden" in model.store.home.joinpath("models", NAME, "history.jsonl").read_text()


def test_a_version_that_is_switched_while_it_is_opened_has_its_own_base(monkeypatch: pytest.MonkeyPatch) -> None:
    push(*chain(3))
    model = Store().model(NAME)
    opened = stored_bases.store_of

    def switch_first(path: Path, digest: bytes) -> Path | None:
        model.link.unlink()
        model.link.symlink_to(f"versions/{digests(3)[1]}")
        return opened(path, digest)

    monkeypatch.setattr(stored_bases, "store_of", switch_first)
    found = seed_runtime.open(model.link / "model.seed")
    assert found.digest.hex() == digests(3)[2]
    assert found.base is not None
