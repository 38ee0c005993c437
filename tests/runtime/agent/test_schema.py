"""The agent answers with exactly the fields that the table of its protocol says, which hosts check answers with."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Any

import pytest

from seed_runtime.agent import facts
from seed_runtime.agent.operations import Agent
from seed_runtime.agent.protocol.checks import record
from seed_runtime.agent.protocol.schema import FACTS, OPERATIONS
from seed_runtime.agent.service import service
from seed_runtime.agent.service.settings import Service
from tests.runtime.agent.support.device_agent import NAME, LocalAgent, digest_of, seed

SERVICE = Service("seed-m.service", "unix", "unix:/run/seed-m.sock", None, 1, 2, False, installing=True)


@pytest.mark.parametrize("op", OPERATIONS)
def test_an_operation_takes_the_fields_of_its_request(op: str) -> None:
    assert list(inspect.signature(getattr(Agent, op)).parameters)[1:] == list(OPERATIONS[op].request)


def test_an_operation_answers_with_the_fields_of_the_table(local: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    served = {**service._describe(SERVICE, {"ActiveState": "active"}), "stale": True}
    monkeypatch.setattr(service, "status", lambda store, name: served)
    data = seed()
    answers: list[tuple[str, dict[str, Any]]] = [
        ("begin", local.send(data)),
        ("resume", local.call("resume", have=len(data))),
        ("install", local.install(data)),
        ("switch", local.switch(data)),
        ("status", local.call("status")),
        ("log", local.call("log", name=NAME)),
        ("facts", local.call("facts")),
        ("service", local.call("service", name=NAME, action="status")),
        ("health", local.call("health", name=NAME)),
        ("rollback", local.call("rollback", name=NAME, to=digest_of(data))),
        ("remove", local.call("remove", name=NAME, all=True)),
        ("release", local.call("release")),
    ]
    for op, answer in answers:
        assert answer.pop("ok")
        assert record(**OPERATIONS[op].answer)(answer) == answer
        assert set(answer) == set(OPERATIONS[op].answer)
    # Those of a fine-tune take a seed of the exporter: tests/devices/test_tune.py.
    assert {op for op, _ in answers} == set(OPERATIONS) - {"tuning_inputs", "begin_tuning", "tune", "stop"}


def test_the_facts_are_those_of_the_table() -> None:
    found = facts.collect()
    assert set(found) == set(FACTS)
    assert OPERATIONS["facts"].answer["facts"](found) == found


def test_what_is_noted_about_a_service_is_in_the_table() -> None:
    assert OPERATIONS["service"].answer["service"](asdict(SERVICE)) == asdict(SERVICE)
