"""Questions about pictures and texts to a server."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_runtime.backends import Array, Feeds
from seed_runtime.serve import ServedModel, limits, plan_server
from tests.runtime.serve.support.serving import Answer, Client, command, doubler, in_process
from tests.support.described_models import claimed_png, color_description, color_model, color_seed, described, png
from tests.support.model_seeds import classifier

pytest.importorskip("PIL")

GREEN = base64.b64encode(png(5, 5, (0, 255, 0))).decode()


def colors() -> ServedModel:
    """Return the color model, as a function."""
    seed = seed_runtime.open(io.BytesIO(color_seed()))

    def run(feeds: Feeds) -> Mapping[str, Array]:
        return {"scores": 4 * feeds["image"].mean(axis=(2, 3))}

    from seed_runtime.backends import TensorSpec

    outputs = (TensorSpec("scores", "float32", ("n", 3)),)
    return ServedModel("colors", "1", seed.inputs(), outputs, run, processing=seed.processing())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with in_process(":0", colors()) as (found, server):
        found.name, server.asked_max = "colors", 1 << 20
        yield found


def ask(client: Client, question: Any) -> Answer:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    return client.ask("POST", f"/v2/models/{client.name}/ask", body)


def test_a_picture_in_base64_gets_its_labels(client: Client) -> None:
    found = ask(client, {"id": "a", "samples": [{"picture": GREEN}, {"picture": GREEN}], "top": 1})
    assert found.status == 200
    label = {"index": 1, "label": "green", "score": pytest.approx(0.9647, abs=1e-4)}
    answer = {"notes": [], "outputs": [{"kind": "labels", "labels": [label]}]}
    assert found.json == {
        "model_name": "colors", "model_version": "1", "id": "a", "comparisons": [],
        "answers": [{"source": "sample 1", **answer}, {"source": "sample 2", **answer}],
    }  # fmt: skip
    assert client.get("/v2/models/colors").json["parameters"] == {"asked_about": ["picture"]}


@pytest.mark.parametrize(
    ("question", "status", "problem"),
    [
        (b"{", 400, "the question is no JSON"),
        (b"[" * 60_000, 400, "the question is no JSON"),
        ([1], 400, "a question is an object with id, samples, top"),
        ({"samples": [{"picture": GREEN}], "inputs": []}, 400, "a question is an object"),
        ({}, 400, "samples must be a list of 1 to 64 objects"),
        ({"samples": [{"picture": GREEN}] * 65}, 400, "samples must be a list of 1 to 64"),
        ({"samples": [{"text": "hello"}]}, 400, "sample 1 must be an object with picture"),
        ({"samples": [{"picture": 7}]}, 400, "sample 1: picture must be a string"),
        ({"samples": [{"picture": "no base64!"}]}, 400, "sample 1: picture is no base64"),
        ({"samples": [{"picture": "aGVsbG8="}]}, 400, "sample 1 can't be read as a picture"),
        (
            {"samples": [{"picture": base64.b64encode(claimed_png(8000, 8000)).decode()}]},
            400,
            "sample 1 has 64,000,000 pixels",
        ),
        ({"samples": [{"picture": GREEN}], "top": 0}, 400, "top must be a whole number"),
        ({"samples": [{"picture": GREEN}], "top": 1001}, 400, "from 1 to 1,000"),
        ({"samples": [{"picture": GREEN}], "id": 5}, 400, "id must be a string"),
        (b" " * ((1 << 20) + 1), 413, "at most 1,048,576 are read"),
    ],
)
def test_a_question_that_can_not_be_used_is_refused(client: Client, question: Any, status: int, problem: str) -> None:
    found = ask(client, question)
    assert found.status == status
    assert problem in found.error


def test_a_model_that_says_nothing_of_pictures_is_asked_with_tensors(client: Client) -> None:
    with in_process(":0", doubler()) as (plain, _):
        found = ask(plain, {"samples": [{"picture": GREEN}]})
        assert (found.status, "send tensors to infer" in found.error) == (404, True)
        assert "parameters" not in plain.get("/v2/models/doubler").json
    assert client.get("/v2/models/colors/ask").status == 405
    image = np.zeros((1, 3, 4, 4), np.float32)
    tensor = {"name": "image", "shape": list(image.shape), "datatype": "FP32", "data": image.reshape(-1).tolist()}
    assert client.infer({"inputs": [tensor]}).status == 200


def test_the_plan_counts_questions() -> None:
    asked = plan_server(seed_runtime.open(io.BytesIO(color_seed())))
    plain = plan_server(seed_runtime.open(io.BytesIO(classifier())))
    assert (asked.asked_max, plain.asked_max) == (limits.ASKED_BODY, 0)
    assert asked.bodies_max >= limits.ASKED_BODY
    newer = described(color_model(), color_description(kind="smell"), labels=b"a\nb\nc")
    assert plan_server(seed_runtime.open(io.BytesIO(newer))).asked_max == 0


@pytest.mark.slow
def test_the_command_answers_questions(tmp_path: Path) -> None:
    (tmp_path / "colors.seed").write_bytes(color_seed())
    with command(tmp_path / "colors.seed", "described", "--serve", ":0") as client:
        found = ask(client, {"samples": [{"picture": GREEN}], "top": 1})
        assert found.json["answers"][0]["outputs"][0]["labels"][0]["label"] == "green"


def test_scores_that_are_no_numbers_are_null() -> None:
    def broken(feeds: Feeds) -> Mapping[str, Array]:
        return {"scores": np.array([[np.nan, np.inf, 0]], np.float32)}

    with in_process(":0", dataclasses.replace(colors(), run=broken)) as (client, server):
        client.name, server.asked_max = "colors", 1 << 20
        found = ask(client, {"samples": [{"picture": GREEN}], "top": 3})
    assert found.status == 200
    assert [each["score"] for each in found.json["answers"][0]["outputs"][0]["labels"]] == [None, None, None]


def test_a_question_that_needs_a_missing_package_is_answered_with_the_command_that_installs_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    found = ask(client, {"samples": [{"picture": GREEN}]})
    assert (found.status, "pip install 'seed-runtime[pictures]'" in found.error) == (501, True)
