"""Pushes, rollbacks and removals: the agent's answers, and the state of the device afterwards."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime import backends
from seed_runtime.agent.protocol import schema, transport
from seed_runtime.agent.service import service
from seed_runtime.agent.store import history
from seed_runtime.agent.store.store import Store
from seed_runtime.assembly import cache
from seed_runtime.errors import UsageError
from tests.runtime.agent.support.device_agent import (
    NAME,
    LocalAgent,
    RefusedError,
    agent,
    digest_of,
    push,
    refused,
    running,
    seed,
    tree,
)

ONE, TWO, THREE, FOUR, FIVE = (digest_of(seed(version)) for version in range(1, 6))


def test_a_push_checks_assembles_runs_the_golden_sample_and_switches(local: LocalAgent) -> None:
    begun = local.send(seed())
    assert (begun["state"], begun["have"]) == ("partial", 0)
    assert begun["path"] == str(Store().home / "incoming" / f"{ONE}.part")
    installed = local.install(seed())
    assert running() is None
    record = installed["record"]
    assert record == {
        "digest": ONE,
        "model_id": NAME,
        "model_version": 1,
        "base": None,
        "bytes": len(seed()),
        "weights_bytes": seed_runtime.open(Store().model(NAME).seed_path(ONE)).header.weights.size,
        "golden": True,
        "golden_distance": record["golden_distance"],
        "planned_bytes": None,  # measured by no quick export
        "backend": "onnxruntime",
        "pushed": record["pushed"],
    }
    assert 0 <= record["golden_distance"] <= 1
    assert set(installed["seconds"]) == {"verify", "assemble", "golden", "place"}
    assert installed["peak_rss"] > 1 << 20
    assert (cache.default_root() / ONE / "model.weights").is_file()
    assert local.switch(seed()) == {"ok": True, "previous": None, "removed": []}
    assert running() == ONE
    local.end()
    assert os.listdir(Store().incoming) == []


def test_a_push_of_the_running_version_does_nothing_and_of_a_stored_one_only_switches(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    assert local.begin(seed(2))["state"] == "current"
    begun = local.begin(seed(1))
    assert (begun["state"], begun["have"]) == ("kept", len(seed(1)))
    assert local.switch(seed(1))["previous"] == TWO
    assert running() == ONE


def test_another_model_takes_the_place_of_one_only_when_asked_for(local: LocalAgent) -> None:
    other = seed(1, model_id="other")
    push(seed(1))
    local.send(other)
    local.install(other)
    with pytest.raises(RefusedError, match=f"{NAME} is {NAME} here, and .* is other: another model") as caught:
        local.switch(other)
    assert (caught.value.exit, caught.value.kind) == (2, "OtherModelError")
    assert running() == ONE
    assert local.switch(other, replace=True)["previous"] == ONE
    # Back to what ran before is no replacement that needs a word.
    assert local.call("rollback", name=NAME)["current"] == ONE


def test_a_switch_that_was_killed_before_its_line_in_the_history_is_repeated(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    path = Store().model(NAME).folder / history.FILE
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert local.begin(seed(2))["state"] == "kept"
    assert local.switch(seed(2))["previous"] == ONE
    assert local.begin(seed(2))["state"] == "current"


def test_a_cut_transfer_resumes_where_it_was_cut(local: LocalAgent) -> None:
    begun = local.begin(seed())
    Path(begun["path"]).write_bytes(seed()[:-10])
    local.end()
    again = LocalAgent()
    (model,) = again.call("status")["models"]
    assert (model["partial"], model["partial_digest"]) == (len(seed()) - 10, ONE)
    begun = again.begin(seed())
    assert 0 < begun["have"] < len(seed()) - 10
    assert Path(begun["path"]).read_bytes() == seed()[: begun["have"]]
    again.push(seed())
    assert running() == ONE
    (model,) = again.call("status")["models"]
    assert (model["partial"], model["partial_digest"]) == (None, None)


def test_a_version_that_was_damaged_on_the_disk_is_transferred_again(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    path = Store().model(NAME).seed_path(TWO)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert local.begin(seed(2))["state"] == "partial"
    local.push(seed(2))
    assert running() == TWO
    assert Store().model(NAME).digests() == sorted([ONE, TWO])


def test_old_versions_are_removed_but_not_the_running_one_and_the_rollback_target(local: LocalAgent) -> None:
    for version in range(1, 5):
        local.push(seed(version), keep=10)
    local.call("rollback", name=NAME, to=ONE[:8])
    assert local.push(seed(5), keep=1)["removed"] == [FOUR, THREE, TWO]
    assert Store().model(NAME).digests() == sorted([ONE, FIVE])
    assert not (cache.default_root() / FOUR).exists()
    assert (cache.default_root() / FIVE).exists()


def test_one_seed_under_two_names_is_stored_twice(local: LocalAgent) -> None:
    local.push(seed(), "a")
    local.push(seed(), "b")
    assert [model["name"] for model in local.call("status")["models"]] == ["a", "b"]
    local.call("remove", name="a", all=True)
    assert running("b") == ONE
    assert (cache.default_root() / ONE).exists()


def test_a_device_without_onnx_runtime_assembles_and_reports_that_nothing_ran(
    local: LocalAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(backends.get("onnxruntime")), "available", lambda self: False)
    local.send(seed())
    record = local.install(seed())["record"]
    assert (record["golden"], record["backend"]) == (None, None)
    assert record["planned_bytes"] > 0
    local.switch(seed())
    assert running() == ONE


def test_phases_are_reported_in_order() -> None:
    with agent() as client:
        assert client.hello == {
            "agent": 1, "runtime": seed_runtime.__version__, "python": ".".join(map(str, sys.version_info[:3]))
        }  # fmt: skip
        client.push(seed())
        assert client.phases == list(schema.PHASES)
        assert client.end() == 0


# Looking and changing


def test_status_says_of_each_version_whether_it_runs_and_is_intact(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    path = Store().model(NAME).seed_path(ONE)
    path.write_bytes(path.read_bytes()[:-1])
    answer = local.call("status")
    assert (answer["runtime"], answer["disk_free"] > 0) == (seed_runtime.__version__, True)
    (model,) = answer["models"]
    assert (model["name"], model["current"], model["previous"]) == (NAME, TWO, ONE)
    assert (model["service"], model["partial"], model["last"]["what"]) == (None, None, "switch")
    reported = [(each["digest"], each["running"], each["intact"], each["model_version"]) for each in model["versions"]]
    assert reported == [(TWO, True, True, 2), (ONE, False, False, 1)]
    assert local.call("status", name=NAME)["models"] == [model]


def test_answers_fit_into_a_line_however_many_versions_there_are(local: LocalAgent) -> None:
    push(seed(1))
    model = Store().model(NAME)
    record = json.dumps({**model.record(ONE), "model_id": "\N{GREEK SMALL LETTER PI}" * 120, "other": "x" * 10_000})
    for number in range(400):
        (model.versions / f"{number:064x}").mkdir()
        (model.versions / f"{number:064x}" / "record.json").write_text(record)
    line = json.dumps({"what": "switch", "digest": ONE, "result": "\N{GREEK SMALL LETTER PI}" * 500})
    (model.folder / history.FILE).write_text(f"{line}\n" * 400)
    answer = local.call("status")
    (reported,) = answer["models"]
    assert len(json.dumps(answer)) < transport.LINE_MAX // 2
    assert reported["versions"][0]["running"]
    assert len(reported["versions"]) + reported["left_out"] == 401
    assert len(reported["versions"]) > 100
    answer = local.call("log", name=NAME, lines=1000)
    assert len(json.dumps(answer)) < transport.LINE_MAX // 2
    assert answer["lines"][-1] == history.read(model.folder)[-1]


def test_a_rollback_activates_the_version_before_and_a_second_one_goes_further_back(local: LocalAgent) -> None:
    push(seed(1), seed(2), seed(3))
    assert local.call("rollback", name=NAME) == {"ok": True, "current": TWO, "previous": ONE}
    assert running() == TWO
    assert local.call("rollback", name=NAME)["current"] == ONE
    assert local.call("rollback", name=NAME, to=THREE[:6])["current"] == THREE
    assert running() == THREE


def test_a_rollback_without_an_older_version_is_refused(local: LocalAgent) -> None:
    push(seed())
    assert "no other version ran before" in refused(lambda: local.call("rollback", name=NAME), 2)
    assert running() == ONE


def test_a_rollback_to_a_damaged_version_is_refused(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    path = Store().model(NAME).seed_path(ONE)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "damaged" in refused(lambda: local.call("rollback", name=NAME), 10)
    assert running() == TWO


def test_the_running_version_is_removed_only_with_the_whole_model(local: LocalAgent, home: Path) -> None:
    push(seed(1), seed(2), seed(3))
    assert "is running" in refused(lambda: local.call("remove", name=NAME, digest=THREE[:12]), 2)
    assert local.call("remove", name=NAME, digest=ONE[:12])["removed"] == [ONE]
    answer = local.call("remove", name=NAME)
    assert (answer["removed"], answer["bytes"] > len(seed(2))) == ([TWO], True)
    assert running() == THREE
    assert local.call("remove", name=NAME, all=True)["removed"] == [THREE]
    assert tree(home) == {"incoming": None, "models": None}


def test_the_log_gives_the_newest_lines(local: LocalAgent) -> None:
    push(seed(1), seed(2))
    answer = local.call("log", name=NAME, lines=2)
    assert [(line["what"], line["digest"]) for line in answer["lines"]] == [("install", TWO), ("switch", TWO)]
    assert answer["service"] == []


def test_the_agent_reports_facts(local: LocalAgent) -> None:
    assert local.call("facts")["facts"]["seed_runtime"] == seed_runtime.__version__


# Its service. What systemd does is tested with it; here, that a switch asks for it.


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Return a list of the version at each restart of the service; a restart with TWO fails."""
    push(seed(1))
    (Store().model(NAME).folder / "service.json").write_text("{}")
    restarts: list[str | None] = []

    def restart(store: Store, name: str, planned: object = None) -> None:
        restarts.append(running(name))
        if restarts[-1] == TWO:
            raise UsageError("it does not answer")

    monkeypatch.setattr(service, "restart", restart)
    return restarts


def test_a_switch_restarts_the_service(local: LocalAgent, served: list[str | None]) -> None:
    local.push(seed(3))
    assert served == [THREE]
    local.call("rollback", name=NAME)
    assert served == [THREE, ONE]


def test_a_service_that_does_not_become_ready_undoes_the_switch(local: LocalAgent, served: list[str | None]) -> None:
    line = refused(lambda: local.push(seed(2)), 2)
    assert "did not become ready" in line
    assert "(it does not answer)" in line
    assert f"{ONE[:12]} is served again" in line
    assert served == [TWO, ONE]
    assert running() == ONE
    assert local.call("status")["models"][0]["last"]["result"] == line
    assert local.begin(seed(2))["state"] == "kept"
