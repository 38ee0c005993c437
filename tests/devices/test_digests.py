"""A version is named by the beginning of its digest; one that names none, or several, is explained."""

from __future__ import annotations

from typing import Any

import pytest

from seed_devices.cli.fleet_request import find_version
from seed_devices.fleet.target import Target
from seed_runtime.errors import UsageError

ONE, TWO, THREE = "9b0" + "1" * 61, "9b0" + "2" * 61, "c" * 64
VERSIONS = [
    {"digest": ONE, "model_version": 3, "running": True},
    {"digest": TWO, "model_version": 2},
    {"digest": THREE, "model_version": 1},
]
LISTED = ("9b0111111111 (version 3, runs)", "9b0222222222 (version 2)", "cccccccccccc (version 1)")


class Agent:
    """A device with these models."""

    def __init__(self, *models: dict[str, Any]) -> None:
        self._models = models

    def call(self, op: str, name: str | None = None) -> dict[str, Any]:
        return {"models": [model for model in self._models if name in (None, model["name"])]}


def found(beginning: str, name: str = "bell", **more: Any) -> str:
    agent: Any = Agent({"name": "bell", "versions": VERSIONS, **more})
    return find_version(agent, Target("pi@porch"), name, beginning)


@pytest.mark.parametrize(("beginning", "digest"), [("9b01", ONE), ("c", THREE), ("C" * 64, THREE)])
def test_a_beginning_that_only_one_version_has_is_enough(beginning: str, digest: str) -> None:
    assert found(beginning) == digest


@pytest.mark.parametrize(
    ("beginning", "text"),
    [
        (
            "9b",
            "2 versions of bell begin with '9b'; write one of: " + ", ".join(LISTED[:2]),
        ),
        (
            "9c",
            "no version of bell begins with '9c'; write one of: " + ", ".join(LISTED),
        ),
    ],
)
def test_a_beginning_that_names_none_or_several_is_explained_with_those_that_there_are(
    beginning: str, text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        found(beginning)
    assert str(caught.value) == f"pi@porch: {text}"


def test_digests_that_differ_late_are_written_as_far_as_needed() -> None:
    late = [{"digest": "a" * 63 + letter} for letter in "bc"]
    with pytest.raises(UsageError, match=f"{late[0]['digest']}, {late[1]['digest']}"):
        found("a", versions=late)


def test_a_model_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="there is no model bel; there are: bell"):
        found("9b", name="bel")


def test_of_more_versions_than_an_answer_holds_the_device_searches_all() -> None:
    assert found("9b", left_out=7) == "9b"
