"""Services that a kill or a power cut interrupted, and their repair."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest

from seed_runtime.agent import activation
from seed_runtime.agent.__main__ import main
from seed_runtime.agent.operations import Agent
from seed_runtime.agent.protocol.transport import Transport
from seed_runtime.agent.service import plan, service, settings, systemd
from seed_runtime.agent.store import history
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.agent.store.store import Store
from tests.runtime.agent.support.services import make_current, unit_file
from tests.support.model_seeds import classifier

OLD, NEW = "a" * 64, "b" * 64
MIB = 1 << 20


@pytest.fixture
def board(store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """Return the memory that each version's server needs, None if unknown. OLD runs, and no systemd is called."""
    for digest in (NEW, OLD):
        make_current(store, digest, classifier(footprint=False))
    needs: dict[str, int | None] = {OLD: 90 * MIB}
    monkeypatch.setattr(plan, "planned_bytes", lambda seed, most: needs[seed.resolve().parent.name])
    monkeypatch.setattr(service, "await_ready", lambda planned: None)
    monkeypatch.setattr(systemd, "enable_linger", lambda: True)
    monkeypatch.setattr(systemd, "await_manager", lambda: None)
    monkeypatch.setattr(systemd, "properties", lambda unit: {})
    return needs


def limits(text: str) -> tuple[int | None, int | None]:
    """Return --max-memory and MemoryMax= of a unit."""
    limit, wall = (re.search(pattern, text) for pattern in (r'"--max-memory" "(\d+)"', r"MemoryMax=(\d+)"))
    return int(limit[1]) if limit else None, int(wall[1]) if wall else None


@pytest.mark.parametrize("asked", [None, 300 * MIB])
@pytest.mark.parametrize("needed", [50 * MIB, 200 * MIB, None])
@pytest.mark.parametrize("ready", [True, False])
def test_after_a_power_cut_within_a_switch_either_version_has_the_memory_to_start(
    store: Store,
    board: dict[str, int | None],
    monkeypatch: pytest.MonkeyPatch,
    asked: int | None,
    needed: int | None,
    ready: bool,
) -> None:
    model, states, restarts = store.model("m"), [], []
    board[NEW] = needed
    rename = os.replace

    def systemctl(*words: str, **options: Any) -> None:
        if words[0] == "restart":
            restarts.append(model.running)
            if model.running == NEW and not ready:
                raise systemd.ServiceError("it does not start")

    def replace(source: Any, target: Any) -> None:
        rename(source, target)
        states.append(model.running)
        need, reported = board[str(model.running)], settings.read(store, "m")
        assert reported is not None
        # The unit starts what is current; service.json is what the next switch goes by.
        for limit, wall in (limits(unit_file().read_text()), (reported.max_memory, reported.memory_max)):
            if need is None:
                assert limit is None
            elif limit is None:
                assert wall is None  # nothing keeps it within a limit
            else:
                assert limit >= need
                assert wall == limit + plan.MARGIN

    def change(digest: str, what: str) -> None:
        with model.locked(0):
            activation.activate(model, digest, what, {OLD, NEW}, lambda *phase: None)

    monkeypatch.setattr(systemd, "systemctl", systemctl)
    service.install(store, "m", "unix", asked)
    installed = unit_file().read_text()
    monkeypatch.setattr(os, "replace", replace)
    if ready:
        change(NEW, "switch")
        exact = plan.plan_service(model.seed_path(NEW), "m", "unix", asked, True)
        assert unit_file().read_text() == service.unit_text(store, "m", exact)
        change(OLD, "rollback")
    else:
        with pytest.raises(systemd.ServiceError, match=f"{OLD[:12]} is served again"):
            change(NEW, "switch")
    assert (NEW in states, restarts) == (True, [OLD, NEW, OLD])
    assert unit_file().read_text() == installed


def test_a_version_that_needs_too_much_memory_is_refused_and_the_other_one_serves(
    store: Store, board: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(systemd, "systemctl", lambda *words, **options: calls.append(words))
    service.install(store, "m", "unix", 300 * MIB)

    def refuse(seed: Path, most: int) -> int:
        raise systemd.ServiceError(f"{seed.parent.name} needs more", 14)

    monkeypatch.setattr(plan, "planned_bytes", refuse)
    installed, calls[:] = unit_file().read_text(), []
    with store.model("m").locked(0), pytest.raises(systemd.ServiceError, match=f"{NEW} needs more") as caught:
        activation.activate(store.model("m"), NEW, "switch", {NEW}, lambda *phase: None)
    assert (caught.value.exit_code, calls) == (14, [])
    assert (store.model("m").running, unit_file().read_text()) == (OLD, installed)


@pytest.fixture
def interrupted(
    store: Store, board: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> tuple[InstalledModel, list[tuple[str, ...]]]:
    """Return the model after a switch to NEW that was killed before the service answered, and calls of systemctl."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(systemd, "systemctl", lambda *words, **options: calls.append(words))
    model = store.model("m")
    service.install(store, "m", "unix")
    with model.locked(0):
        history.append(model.folder, "switch", OLD)
        model.set_current(NEW)
    board[NEW] = 90 * MIB
    calls.clear()
    return model, calls


def ask(op: str, **fields: Any) -> dict[str, Any]:
    agent = Agent(Transport(0, io.BytesIO()))
    answer = agent.answer({"op": op, **fields})
    agent.release()
    assert answer.pop("ok"), answer
    return answer


def test_a_switch_that_was_killed_before_the_service_answered_is_undone_by_the_next_push(
    interrupted: tuple[InstalledModel, list[tuple[str, ...]]],
) -> None:
    model, calls = interrupted
    ask("begin", name="m", digest="c" * 64, file_size=1000)
    assert model.running == OLD
    assert [words[0] for words in calls] == ["daemon-reload", "restart"]
    last = history.read(model.folder)[-1]
    assert (last["what"], last["digest"]) == ("switch", NEW)
    assert "interrupted" in last["result"]
    calls.clear()
    ask("begin", name="m", digest="c" * 64, file_size=1000)
    assert (model.running, calls) == (OLD, [])


def test_a_switch_that_a_power_cut_ended_is_undone_when_the_service_starts(
    interrupted: tuple[InstalledModel, list[tuple[str, ...]]], capsys: pytest.CaptureFixture[str]
) -> None:
    model, calls = interrupted
    with model.locked(0):  # which whoever switches holds
        assert main(["settle", "m"]) == 0
        assert model.running == NEW
    assert main(["settle", "m"]) == 0
    assert (model.running, calls) == (OLD, [])
    assert "m: the last switch was interrupted" in capsys.readouterr().out
    with model.locked(0):
        activation.activate(model, NEW, "switch", {OLD, NEW}, lambda *phase: None)
    assert main(["settle", "m"]) == 0
    assert (model.running, capsys.readouterr().out) == (NEW, "")


def test_an_interrupted_switch_without_a_service_stays(
    interrupted: tuple[InstalledModel, list[tuple[str, ...]]],
) -> None:
    model, _ = interrupted
    (model.folder / "service.json").unlink()
    assert main(["settle", "m"]) == main(["settle", "other"]) == 0
    assert os.listdir(model.store.models) == ["m"]
    assert model.running == NEW
    # What has answered as a service since then is confirmed.
    ask("service", name="m", action="install")
    assert main(["settle", "m"]) == 0
    assert model.running == NEW


def test_an_installation_that_was_killed_is_completed_by_the_next_switch(
    store: Store, board: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []

    def systemctl(*words: str, **options: Any) -> None:
        if words[0] == "restart" and os.getpid() != parent:
            os._exit(9)
        calls.append(words)

    parent, model = os.getpid(), store.model("m")
    monkeypatch.setattr(systemd, "systemctl", systemctl)
    child = os.fork()
    if not child:
        try:
            service.install(store, "m", "unix")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (model.has_service, unit_file().exists()) == (True, True)
    reported = service.status(store, "m")
    assert reported is not None
    assert reported["installing"]
    board[NEW] = 90 * MIB
    with model.locked(0):
        activation.activate(model, NEW, "switch", {OLD, NEW}, lambda *phase: None)
    assert ("enable", "seed-m.service") in calls
    reported = service.status(store, "m")
    assert reported is not None
    assert not reported["installing"]
    ask("remove", name="m", all=True)
    assert not unit_file().exists()


@pytest.mark.parametrize("first", [True, False])
def test_a_service_whose_settings_cannot_be_written_leaves_no_unit(
    store: Store, board: dict[str, int | None], monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    write = settings.write

    def fail(store: Store, name: str, planned: service.Service) -> None:
        if planned.installing == first:
            raise OSError(28, "No space left on device")
        write(store, name, planned)

    monkeypatch.setattr(systemd, "systemctl", lambda *words, **options: None)
    monkeypatch.setattr(settings, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        service.install(store, "m", "unix")
    assert (store.model("m").has_service, unit_file().exists()) == (False, False)
