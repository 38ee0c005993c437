"""The folders of a store: links, histories, locks, and leftovers of killed processes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seed_runtime.agent.store import history
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.agent.store.store import PARTS_KEPT, Store
from seed_runtime.errors import UsageError
from seed_runtime.system.locks import BusyError, lock_within
from seed_runtime.system.sync import make_folder
from tests.runtime.agent.support.device_agent import tree

A, B, C, D = (letter * 64 for letter in "abcd")


@pytest.fixture
def model(store: Store) -> InstalledModel:
    return store.model("m")


def place(model: InstalledModel, digest: str, text: bytes = b"seed") -> None:
    make_folder(model.store.incoming)
    part = model.store.partial_path(digest)
    part.write_bytes(text)
    with model.locked(0):
        model.add_version(digest, part, {"digest": digest, "bytes": len(text)})


def run(model: InstalledModel, digest: str, what: str = "switch") -> None:
    with model.locked(0), model.switched_to(digest):
        history.append(model.folder, what, digest)


# Versions and the link


def test_a_version_appears_whole_and_its_partial_file_is_gone(model: InstalledModel) -> None:
    place(model, A)
    assert model.digests() == [A]
    assert model.record(A) == {"digest": A, "bytes": 4}
    assert tree(model.versions) == {A: None, f"{A}/model.seed": b"seed", f"{A}/record.json": b"%b\n" % json.dumps(
        {"bytes": 4, "digest": A}).encode()}  # fmt: skip
    assert os.listdir(model.store.incoming) == []
    assert model.running is None


def test_a_damaged_version_is_replaced(model: InstalledModel) -> None:
    place(model, A, b"damaged")
    run(model, A)
    place(model, A, b"right")
    assert model.seed_path(A).read_bytes() == b"right"
    assert os.listdir(model.versions) == [A]
    assert model.running == A


def test_current_names_a_version_and_goes_back_if_the_block_fails(model: InstalledModel) -> None:
    place(model, A)
    place(model, B)
    with pytest.raises(ZeroDivisionError), model.locked(0), model.switched_to(A):
        raise ZeroDivisionError
    assert model.running is None
    run(model, A)
    with model.locked(0), pytest.raises(ZeroDivisionError), model.switched_to(B):
        raise ZeroDivisionError
    assert model.running == A
    assert sorted(os.listdir(model.folder)) == ["current", "history.jsonl", "lock", "versions"]


@pytest.mark.parametrize(
    "target",
    [f"../m/versions/{A}", f"versions/{A}/", f"versions/{B}", "versions/abc", "/etc", f"versions/{A}/../{A}", "."],
)
def test_a_link_of_any_other_form_runs_nothing(model: InstalledModel, target: str) -> None:
    place(model, A)
    model.link.symlink_to(target)
    assert model.running is None


def test_a_version_that_is_a_link_does_not_count(model: InstalledModel, tmp_path: Path) -> None:
    place(model, A)
    (model.versions / B).symlink_to(model.versions / A)
    model.link.symlink_to(f"versions/{B}")
    assert model.digests() == [A]
    assert model.running is None


@pytest.mark.parametrize("place_of_link", ["models", "incoming", "models/m", "models/m/versions"])
def test_a_link_in_the_place_of_a_folder_is_refused(store: Store, tmp_path: Path, place_of_link: str) -> None:
    link = store.home / place_of_link
    link.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link and must be a folder"):
        store.model("m")


def test_the_store_itself_may_be_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    monkeypatch.setenv("SEED_HOME", str(tmp_path / "link"))
    place(Store().model("m"), A)
    assert (tmp_path / "disk/models/m/versions" / A).is_dir()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "-", "a" * 65, "a\n", "ä", "a b"])
def test_a_name_that_is_not_a_plain_file_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="can't name a model"):
        store.model(name)


@pytest.mark.parametrize("name", ["a", "A-1.b_c", "9", "a" * 64, "a.old", "lock"])
def test_an_ordinary_name_is_a_folder(store: Store, name: str) -> None:
    place(store.model(name), A)
    assert store.names() == [name]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b"\0" * 100])
def test_a_record_that_cannot_be_read_leaves_the_digest(model: InstalledModel, text: bytes) -> None:
    place(model, A)
    (model.versions / A / "record.json").write_bytes(text)
    gc.collect()  # what other tests left must not be finalized where nesting is at the stack's end
    assert model.record(A) == {"digest": A}


def test_a_version_is_found_by_the_beginning_of_its_digest(model: InstalledModel) -> None:
    other = "a" * 63 + "b"
    for digest in (A, other, B):
        place(model, digest)
    assert model.find("bbbbbb") == B
    assert model.find(other) == other
    with pytest.raises(UsageError, match="more than one version begins with aaaaaa; there are: aaaaaaaaaaaa, aaaa"):
        model.find("aaaaaa")
    with pytest.raises(UsageError, match="no version begins with cccccc; there are: "):
        model.find("cccccc")


def test_removing_versions_leaves_the_others_and_returns_their_size(model: InstalledModel) -> None:
    for digest in (A, B, C):
        place(model, digest)
    size = sum(path.stat().st_size for digest in (A, C) for path in (model.versions / digest).iterdir())
    with model.locked(0):
        assert model.remove_versions([A, C, D]) == size
    assert os.listdir(model.versions) == [B]


# What killed processes leave


def test_leftovers_are_removed_by_the_next_lock(model: InstalledModel) -> None:
    place(model, A)
    run(model, A)
    before = tree(model.store.home)
    (model.folder / ".current.0123abcd").symlink_to(f"versions/{B}")
    (model.folder / ".seed-0123abcd.part").write_text("half")
    (model.folder / "wanted").write_text("...")
    (model.folder / "pushing").write_text(B)
    (model.versions / f".{B}.new").mkdir()
    (model.versions / f".{C}.old").mkdir()
    (model.versions / f".{C}.old" / "model.seed").write_text("old")
    with model.locked(0):
        pass
    assert tree(model.store.home) == before


def test_a_seed_that_was_checked_and_not_installed_is_not_transferred_again(model: InstalledModel) -> None:
    make_folder(model.store.incoming)
    new = model.versions / f".{A}.new"
    new.mkdir(parents=True)
    (new / "model.seed").write_bytes(b"seed")
    with model.locked(0):
        assert model.store.partial_path(A).read_bytes() == b"seed"
    assert not new.exists()


def test_a_running_version_that_was_hidden_is_restored(model: InstalledModel) -> None:
    place(model, A)
    run(model, A)
    (model.versions / A).rename(model.versions / f".{A}.old")
    assert model.running is None
    with model.locked(0):
        assert model.running == A


def test_other_peoples_files_are_left_alone(model: InstalledModel) -> None:
    place(model, A)
    for path in (model.folder / "notes", model.versions / "notes", model.store.models / ".notes", model.folder / ".x"):
        path.write_text("mine")
    before = tree(model.store.home)
    with model.locked(0):
        pass
    assert tree(model.store.home) == before
    assert model.digests() == [A]


def test_leftovers_of_other_models_are_removed_as_well(store: Store, model: InstalledModel) -> None:
    place(model, A)
    before = tree(store.home)
    (store.models / ".other.0123abcd.old" / "versions").mkdir(parents=True)
    (store.models / "half" / "versions" / f".{B}.old").mkdir(parents=True)
    (store.models / "empty").mkdir()
    (store.models / ".notes.old").mkdir()
    store.clean_up(A)
    assert tree(store.home) == {**before, "models/.notes.old": None}


def test_a_model_without_a_version_leaves_nothing(model: InstalledModel) -> None:
    with model.locked(0):
        assert model.folder.is_dir()
    assert tree(model.store.home) == {"models": None}


# Partial transfers


def test_only_the_newest_partial_transfers_stay_and_those_that_are_locked(model: InstalledModel) -> None:
    place(model, A)
    names = [f"{number:064x}" for number in range(PARTS_KEPT + 3)]
    for age, digest in enumerate(names):
        model.store.partial_path(digest).write_bytes(b"part")
        os.utime(model.store.partial_path(digest), (1000 + age, 1000 + age))
    model.store.partial_path(A).write_bytes(b"installed")
    (model.store.incoming / "notes.part").write_text("mine")
    held = lock_within(model.store.partial_path(names[0]), 0, "")
    model.store.clean_up(names[1])
    left = {name.removesuffix(".part") for name in os.listdir(model.store.incoming)}
    assert left == {"notes", names[0], names[1], *names[-PARTS_KEPT:]}
    held.close()


# History


def test_lines_are_read_in_the_order_of_events(model: InstalledModel) -> None:
    make_folder(model.folder)
    for digest in (A, B):
        history.append(model.folder, "switch", digest)
    history.append(model.folder, "switch", C, "the service did not start")
    assert [(line["what"], line["digest"]) for line in history.read(model.folder)] == [
        ("switch", A), ("switch", B), ("switch", C)
    ]  # fmt: skip
    assert history.runs(history.read(model.folder)) == [A, B]


@pytest.mark.parametrize("tail", [b'{"what": "swi', b"\0" * 300, b"\xff\xfe", b"[" * 50_000, b'{"what": 1}', b"5\n"])
def test_a_torn_line_is_skipped_and_the_next_ones_are_read(model: InstalledModel, tail: bytes) -> None:
    make_folder(model.folder)
    history.append(model.folder, "switch", A)
    with (model.folder / history.FILE).open("ab") as file:
        file.write(tail)
    assert history.runs(history.read(model.folder)) == [A]
    history.append(model.folder, "switch", B)
    assert history.runs(history.read(model.folder)) == [A, B]


def test_a_long_history_keeps_its_newest_half(model: InstalledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FILE_MAX", 6_000)
    make_folder(model.folder)
    for number in range(60):
        history.append(model.folder, "switch", f"{number:064x}")
    assert (model.folder / history.FILE).stat().st_size < 6_300
    numbers = [int(digest, 16) for digest in history.runs(history.read(model.folder))]
    assert numbers == list(range(numbers[0], 60))
    assert 15 < len(numbers) < 60


def lines(*events: str) -> list[history.Line]:
    """ "A" a switch to a..., "<A" a rollback, "!A" a switch that failed, "+A" an install."""
    kinds = {"<": "rollback", "+": "install"}
    return [
        {
            "what": kinds.get(event[0], "switch"),
            "digest": event[-1].lower() * 64,
            "result": "failed" if event[0] == "!" else "ok",
        }
        for event in events
    ]


@pytest.mark.parametrize(
    ("events", "running", "expected"),
    [
        ("", None, None),
        ("A", A, None),
        ("A B", B, A),
        ("A B C", C, B),
        ("A B C <B", B, A),
        ("A B C <B <A", A, B),  # nothing older: what ran last
        ("A B <A", A, B),
        ("A B <A C", C, A),
        ("A B C <A", A, C),
        ("A B A", A, B),
        ("A +B", A, None),
        ("A !B", A, None),
        ("A B !C", B, A),
        ("A B", C, B),  # killed behind the switch to c, before its line
        ("A D", D, A),
        ("A D B", B, A),  # d is not kept
        ("B <A", A, B),
    ],
)
def test_a_rollback_leads_to_the_version_that_ran_before(
    events: str, running: str | None, expected: str | None
) -> None:
    assert history.previous(lines(*events.split()), running, {A, B, C}) == expected


def test_the_newest_versions_are_those_that_were_installed_or_ran_last() -> None:
    reported = lines("+A", "A", "+B", "B", "+C", "!C", "<A")
    assert history.newest_first(reported, {A, B, C, D}) == [A, C, B, D]


# Locks

HOLDER = """
import sys
from seed_runtime.agent.store.store import Store
with Store().model("m").locked(0):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def locked(model: InstalledModel, wait_s: float) -> None:
    with model.locked(wait_s):
        pass


def test_a_model_that_another_process_changes_is_busy_until_that_one_ends(model: InstalledModel) -> None:
    with holder() as process:
        with pytest.raises(BusyError, match=r"another push to m is under way on .*; wait for it, or run this again"):
            locked(model, 0)
        locked(model.store.model("other"), 0)
        process.kill()
        process.wait()
        locked(model, 0)


def test_a_waiting_process_shows_that_it_waits_and_gets_the_lock(model: InstalledModel) -> None:
    with holder() as process:
        before = model.waiting_mark()
        with pytest.raises(BusyError):
            locked(model, 0.3)
        assert before is None
        assert model.waiting_mark()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        locked(model, 10)
        assert process.wait() == 0


def test_a_lock_on_a_removed_model_does_not_count(model: InstalledModel) -> None:
    place(model, A)
    with model.locked(0):
        model.remove()
        # Made anew by another one, who holds it now.
        make_folder(model.folder)
        lock = lock_within(model.folder / "lock", 0, "busy")
    assert (model.folder / "lock").exists()
    lock.close()


def test_waiting_ends_in_time(model: InstalledModel) -> None:
    with holder() as process:
        start = time.monotonic()
        with pytest.raises(BusyError):
            locked(model, 0.25)
        assert 0.2 < time.monotonic() - start < 5
        process.kill()
