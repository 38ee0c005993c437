"""Samples for a fine-tune on a device: where they go, and what is refused before anything is learned from them.

What is learned takes a seed of the exporter: tests/devices/test_tune.py.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from seed_runtime import tuned_seed
from seed_runtime.agent import disk
from seed_runtime.agent.store.store import Store
from seed_runtime.system.locks import FileLock
from tests.runtime.agent.support.device_agent import NAME, LocalAgent, push, refused, running, seed, tree

DATA = bytes(range(256)) * 3000
"""Samples of some blocks."""
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(home: Path) -> Path:
    """Push a model; return where its samples go."""
    push(seed(1))
    return home / "tuning" / NAME


def begin(local: LocalAgent, digest: str = DIGEST) -> dict[str, object]:
    return local.call("begin_tuning", name=NAME, digest=digest, file_size=len(DATA))


def test_what_is_there_is_said_block_by_block(folder: Path, local: LocalAgent) -> None:
    first = begin(local)
    assert (first["have"], first["tail"], first["block"]) == (0, [], 1 << 18)
    path = Path(str(first["path"]))
    assert path == folder / f"{DIGEST}.npz"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(DATA[: (1 << 18) + 10] + b"more" * len(DATA))
    local.end()
    again = begin(local)
    assert again["have"] == path.stat().st_size == len(DATA)
    assert again["tail"][0] == hashlib.sha256(DATA[: 1 << 18]).hexdigest()  # type: ignore[index]


def test_samples_of_another_run_are_removed_and_its_lock_stays(folder: Path, local: LocalAgent) -> None:
    begin(local, "0" * 64)
    local.end()
    begin(local)
    assert {path.name for path in folder.iterdir()} == {"lock", f"{DIGEST}.npz"}


def test_samples_without_space_are_refused_before_they_are_sent(
    folder: Path, local: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: len(DATA))
    assert "bytes are needed in" in refused(lambda: begin(local), 13)


def test_a_second_run_is_refused_while_the_first_one_lasts(folder: Path, local: LocalAgent) -> None:
    folder.mkdir(parents=True)
    with FileLock(folder / "lock") as lock:
        assert lock.try_acquire()
        assert f"{NAME} is being tuned already" in refused(lambda: begin(local), 2)
    begin(local)


def test_the_model_is_not_locked_meanwhile(folder: Path, local: LocalAgent) -> None:
    begin(local)
    push(seed(2))
    assert running() is not None


@pytest.mark.parametrize("place", ["tuning", f"tuning/{NAME}", f"tuning/{NAME}/{DIGEST}.npz"])
def test_no_link_is_followed(place: str, folder: Path, home: Path, local: LocalAgent, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    link = home / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "file" if place.endswith(".npz") else outside)
    refused(lambda: begin(local), 2)
    assert tree(outside) == {"file": b"mine"}


def test_what_can_not_be_tuned_is_refused_and_still_runs(folder: Path, local: LocalAgent) -> None:
    before = running()
    assert "no samples were sent" in refused(lambda: local.call("tune", name=NAME, digest=DIGEST), 2)
    begin(local)
    assert "with --finetune-graph" in refused(lambda: local.call("tune", name=NAME, digest=DIGEST), 12)
    assert "there is no model other" in refused(
        lambda: local.call("begin_tuning", name="other", digest=DIGEST, file_size=1), 2
    )
    for field in ({"mode": "../x"}, {"steps": 0}, {"rate": -1.0}, {"max_memory": 0}, {"keep": 0}):
        refused(lambda field=field: local.call("tune", name=NAME, digest=DIGEST, **field), 2)
    assert local.call("stop") == {"ok": True}
    assert running() == before


def test_removing_a_model_removes_its_samples(folder: Path, local: LocalAgent) -> None:
    begin(local)
    local.end()
    local.call("remove", name=NAME, all=True)
    assert not folder.exists()
    assert Store().names() == []
    assert os.listdir(folder.parent) == []


def test_the_longest_chain_is_refused_with_what_to_do(
    folder: Path, local: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned_seed, "CHAIN_MAX", 0)
    begin(local)
    text = refused(lambda: local.call("tune", name=NAME, digest=DIGEST), 12)
    assert f"seed-deploy rollback HOST:{NAME} --to DIGEST" in text
    assert f"{Store().model(NAME).link}/model.seed --assemble FOLDER writes the model, for seed-export" in text


def test_what_an_unfinished_run_left_is_listed_and_removed_with_old_versions(folder: Path, local: LocalAgent) -> None:
    begin(local)
    (folder / f"{DIGEST}.npz").write_bytes(DATA)
    # Not while its client is there.
    other = LocalAgent()
    assert other.call("status")["models"][0]["tuning_bytes"] == len(DATA)
    assert other.call("remove", name=NAME)["bytes"] == 0
    local.end()
    assert other.call("remove", name=NAME)["bytes"] == len(DATA)
    assert other.call("status")["models"][0]["tuning_bytes"] == 0
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_push_without_space_takes_that_of_an_unfinished_run(
    folder: Path, local: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(local)
    path = folder / f"{DIGEST}.npz"
    path.write_bytes(DATA)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 0 if path.exists() else 1 << 30)
    other = LocalAgent()
    assert "bytes are needed in" in refused(lambda: other.begin(seed(2)), 13)
    assert path.exists()  # its client is there
    local.end()
    assert other.begin(seed(2))["state"] == "partial"
    assert not path.exists()
