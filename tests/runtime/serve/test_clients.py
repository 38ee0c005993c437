"""Clients made for Triton and KServe, as they are installed from the package index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seed_runtime.backends import TensorSpec
from seed_runtime.serve import ServedModel, server
from tests.runtime.serve.support import clients
from tests.runtime.serve.support.serving import in_process
from tests.support.project import run_checked

pytestmark = pytest.mark.slow

EXPECTED = [(2 * clients.X).tolist(), int(clients.N) + 1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_POLL_S", 0.05)


def ask(python: Path, which: str, model: ServedModel | None = None) -> dict[str, Any]:
    with in_process(":0", model) as (client, _):
        said = run_checked([str(python), clients.__file__, which, str(client.address.port)])
    got: dict[str, Any] = json.loads(said)
    return got


def test_tritonclient_gets_answers_from_every_call(clients_python: Path) -> None:
    got = ask(clients_python, "tritonclient")
    assert [got[key] for key in ("live", "ready", "model_ready", "other_ready")] == [True, True, True, False]
    assert got["server"]["extensions"] == ["binary_tensor_data", "statistics"]
    assert got["model"]["versions"] == ["7"]
    assert got["infer"] == [EXPECTED] * 12
    assert got["refused"] == ["400", "input 'n' is missing; the model expects x: FP32[-1, 4], n: INT64[]"]
    (found,) = got["statistics"]["model_stats"]
    assert (found["name"], found["inference_count"], found["inference_stats"]["fail"]["count"]) == ("doubler", 12, 1)
    assert got["all_statistics"]["model_stats"] == [found]


def test_tritonclient_sends_and_reads_texts(clients_python: Path) -> None:
    specs = [(TensorSpec(name, "string", ("n",)),) for name in "st"]
    echo = ServedModel("echo", "1", *specs, lambda feeds: {"t": feeds["s"]})
    assert ask(clients_python, "texts", echo)["texts"] == [clients.TEXTS] * 2


def test_the_client_of_kserve_gets_answers_from_every_call(clients_python: Path) -> None:
    got = ask(clients_python, "kserve")
    assert [got[key] for key in ("live", "ready", "model_ready")] == [True, True, True]
    assert got["infer"] == [EXPECTED] * 2
    assert got["refused"] == ["400", "input 'n' is missing; the model expects x: FP32[-1, 4], n: INT64[]"]
