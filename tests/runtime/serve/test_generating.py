"""Prompts to a server: texts in one answer and as events, what is refused, and clients that don't wait."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_runtime.backends import Array, Feeds
from seed_runtime.errors import MemoryBudgetError
from seed_runtime.memory.process import baseline
from seed_runtime.serve import ServedModel, Server, Writer, generation_of, limits, plan_server, planned_bytes
from tests.runtime.serve.support.serving import Answer, Client, command, doubler, in_process, wait_for
from tests.support.decoder_model import CONTEXT, decoder_seed, wide_seed

pytest.importorskip("tokenizers")


class Alphabet:
    """A model that writes the letters from a on, one a run, without a cache."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate: threading.Semaphore | None = None
        """One permit a run; None for any number."""

    def run_into(self, feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.runs += 1
        if self.gate is not None:
            assert self.gate.acquire(timeout=20)
        ids = feeds["input_ids"]
        scores = np.zeros((1, ids.shape[1], 258), np.float32)
        last = int(ids[0, -1])
        scores[0, -1, last + 1 if ord("a") <= last < ord("z") else ord("a")] = 1
        return {"logits": scores}


def served(model: Alphabet, *, room: int = CONTEXT, **changes: Any) -> ServedModel:
    seed = seed_runtime.open(io.BytesIO(decoder_seed(cached=False, **changes)))
    found = generation_of(seed)
    assert found is not None

    def admit(feeds: Feeds, beside: int) -> None:
        if feeds["input_ids"].shape[1] > room:
            raise MemoryBudgetError("the run", 2, 1)

    writer = Writer(*found, model.run_into, admit)
    return ServedModel("decoder", "1", seed.inputs(), (), lambda feeds: {}, writer=writer)


@pytest.fixture
def model() -> Alphabet:
    return Alphabet()


@pytest.fixture
def serving(model: Alphabet) -> Iterator[tuple[Client, Server]]:
    with in_process(":0", served(model)) as (client, server):
        client.name, server.asked_max = "decoder", limits.PROMPT_BODY
        yield client, server


@pytest.fixture
def client(serving: tuple[Client, Server]) -> Client:
    return serving[0]


def ask(client: Client, request: Any, call: str = "generate") -> Answer:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return client.ask("POST", f"/v2/models/{client.name}/{call}", body)


def events(answer: Answer) -> list[Any]:
    """The values of all events."""
    assert answer.body.endswith(b"\n\n")
    lines = answer.body.decode().removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_prompt_gets_a_text(client: Client) -> None:
    found = ask(client, {"id": "a", "text_input": "hi", "parameters": {"max_tokens": 5}})
    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    assert found.json == {
        "model_name": "decoder", "model_version": "1", "id": "a", "text_output": "abcde",
        "stop": "max tokens", "tokens": 5, "prompt_tokens": 4,
    }  # fmt: skip
    assert client.get("/v2/models/decoder").json["parameters"] == {"generates_text": True}


def test_a_text_comes_piece_by_piece_as_events_and_the_last_one_says_why_it_ended(client: Client) -> None:
    found = ask(client, {"text_input": "hi", "parameters": {"max_tokens": 3}}, "generate_stream")
    assert (found.status, found.headers["content-type"]) == (200, "text/event-stream")
    name = {"model_name": "decoder", "model_version": "1"}
    assert events(found) == [
        *({**name, "text_output": piece} for piece in "abc"),
        {**name, "text_output": "", "stop": "max tokens", "tokens": 3, "prompt_tokens": 4},
    ]


def test_each_piece_is_sent_before_the_next_one_is_written(client: Client, model: Alphabet) -> None:
    model.gate = threading.Semaphore(1)
    link = client.connection()
    body = json.dumps({"text_input": "hi", "parameters": {"max_tokens": 2}})
    link.request("POST", "/v2/models/decoder/generate_stream", body, {"Content-Type": "application/json"})
    answer = link.getresponse()
    assert b'"a"' in answer.readline()
    assert model.runs <= 2
    model.gate.release()
    assert b'"b"' in answer.read()
    link.close()


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (b"{", "the request is no JSON"),
        (b"[" * 60_000, "the request is no JSON"),
        ([1], "a request is an object with id, text_input, parameters"),
        (b'{"text_input": [' + b"[]," * 60_000 + b"0]}", "beside its strings, and 65,536 are allowed"),
        ({"text_input": "hi", "stream": True}, "a request is an object with"),
        ({}, "text_input must be a string"),
        ({"text_input": 7}, "text_input must be a string"),
        ({"text_input": "hi", "id": 7}, "id must be a string"),
        ({"text_input": "hi", "parameters": []}, "parameters must be an object with"),
        ({"text_input": "hi", "parameters": {"beams": 4}}, "parameters must be an object with max_tokens"),
        ({"text_input": "hi", "parameters": {"max_tokens": 0}}, "max_tokens must be a whole number from 1 to 48"),
        ({"text_input": "hi", "parameters": {"max_tokens": 10**30}}, "max_tokens must be a whole number from 1 to 48"),
        ({"text_input": "hi", "parameters": {"max_tokens": True}}, "max_tokens must be a whole number"),
        ({"text_input": "hi", "parameters": {"max_tokens": 2.5}}, "max_tokens must be a whole number"),
        ({"text_input": "hi", "parameters": {"rng_seed": -1}}, "rng_seed must be a whole number from 0"),
        (b'{"text_input": "hi", "parameters": {"temperature": NaN}}', "temperature must be a number from 0 to 10"),
        ({"text_input": "hi", "parameters": {"top_p": 1.5}}, "top_p must be a number from 0 to 1"),
        ({"text_input": "x" * 60}, "the prompt has 62 tokens, 15 more than the model takes"),
        ({"text_input": "\ud800"}, "half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("call", ["generate", "generate_stream"])
def test_a_request_that_can_not_be_used_is_refused_before_the_model_runs(
    client: Client, model: Alphabet, request_: Any, problem: str, call: str
) -> None:
    found = ask(client, request_, call)
    assert (found.status, problem in found.error) == (400, True), found.error
    assert model.runs == 0


def test_a_prompt_larger_than_a_body_may_be_is_refused_unread(client: Client) -> None:
    found = ask(client, {"text_input": "x" * limits.PROMPT_BODY})
    assert found.status == 413


def test_a_text_that_memory_has_no_room_for_is_refused_before_the_model_runs(model: Alphabet) -> None:
    with in_process(":0", served(model, room=10)) as (client, server):
        client.name, server.asked_max = "decoder", limits.PROMPT_BODY
        assert ask(client, {"text_input": "hi", "parameters": {"max_tokens": 5}}).status == 200
        runs = model.runs
        assert ask(client, {"text_input": "hi", "parameters": {"max_tokens": 40}}, "generate_stream").status == 413
        assert model.runs == runs


@pytest.mark.parametrize("call", ["generate", "generate_stream"])
def test_the_work_ends_when_the_client_goes_away(serving: tuple[Client, Server], model: Alphabet, call: str) -> None:
    client, server = serving
    model.gate = threading.Semaphore(2)
    link = client.connection()
    body = json.dumps({"text_input": "hi", "parameters": {"max_tokens": 40}})
    link.request("POST", f"/v2/models/decoder/{call}", body, {"Content-Type": "application/json"})
    wait_for(lambda: model.runs == 3)
    link.close()
    wait_for(lambda: all(ending.is_gone for ending in server.endings))
    gate, model.gate = model.gate, None
    gate.release()
    other = ask(client, {"text_input": "hi", "parameters": {"max_tokens": 2}})
    assert other.json["text_output"] == "ab"
    assert model.runs < 40


def test_a_text_that_takes_too_long_ends_with_what_there_is(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GENERATE_S", -1.0)
    found = ask(client, {"text_input": "hi"})
    assert (found.status, found.json["text_output"], found.json["stop"]) == (200, "", "time")
    assert events(ask(client, {"text_input": "hi"}, "generate_stream"))[-1]["stop"] == "time"


def test_others_wait_for_the_model_and_not_for_ever(
    client: Client, model: Alphabet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WAIT_S", 0.05)
    model.gate = threading.Semaphore(0)
    answers: list[Answer] = []
    first = threading.Thread(target=lambda: answers.append(ask(client, {"text_input": "hi"})))
    first.start()
    wait_for(lambda: model.runs == 1)
    second = ask(client, {"text_input": "hi"})
    assert (second.status, second.headers["retry-after"]) == (503, "1")
    assert client.get("/v2/health/ready").status == 200
    for _ in range(20):
        model.gate.release()
    first.join(20)
    assert answers[0].status == 200


def test_a_server_that_ends_gives_out_what_was_written(model: Alphabet) -> None:
    model.gate = threading.Semaphore(2)
    answers: list[Answer] = []
    with in_process(":0", served(model)) as (client, server):
        client.name, server.asked_max = "decoder", limits.PROMPT_BODY
        asking = threading.Thread(target=lambda: answers.append(ask(client, {"text_input": "hi"})))
        asking.start()
        wait_for(lambda: model.runs == 3)
        threading.Thread(target=_go_on_at_the_end, args=(server, model.gate)).start()
    asking.join(20)
    assert answers[0].json["stop"] == "interrupted"
    assert answers[0].json["text_output"].startswith("ab")


def _go_on_at_the_end(server: Server, gate: threading.Semaphore) -> None:
    """Let the model run once the text that it writes is to end."""
    wait_for(lambda: any(ending.is_stopping for ending in server.endings))
    for _ in range(20):
        gate.release()


def test_texts_that_wait_for_the_model_when_the_server_ends_are_refused(model: Alphabet) -> None:
    model.gate = threading.Semaphore(0)
    answers: dict[int, Answer] = {}

    def post(number: int) -> threading.Thread:
        thread = threading.Thread(
            target=lambda: answers.update({number: ask(client, {"text_input": "hi"}, "generate_stream")})
        )
        thread.start()
        return thread

    with in_process(":0", served(model)) as (client, server):
        client.name, server.asked_max = "decoder", limits.PROMPT_BODY
        threads = [post(1)]
        wait_for(lambda: model.runs == 1)
        threads.append(post(2))
        wait_for(lambda: server.requests == 2)
        threading.Thread(target=_go_on_at_the_end, args=(server, model.gate)).start()
    for thread in threads:
        thread.join(20)
    assert events(answers[1])[-1]["stop"] == "interrupted"
    assert (answers[2].status, "the server is ending" in answers[2].error) == (503, True)
    assert model.runs < 20


def test_a_client_that_leaves_its_stream_counts_as_a_failure(serving: tuple[Client, Server], model: Alphabet) -> None:
    client, server = serving
    gate = model.gate = threading.Semaphore(1)
    link = client.connection()
    body = json.dumps({"text_input": "hi", "parameters": {"max_tokens": 40}})
    link.request("POST", "/v2/models/decoder/generate_stream", body, {"Content-Type": "application/json"})
    assert b'"a"' in link.getresponse().readline()
    wait_for(lambda: model.runs == 2)
    link.sock.shutdown(socket.SHUT_WR)
    wait_for(lambda: all(ending.is_gone for ending in server.endings))
    model.gate = None
    gate.release()
    wait_for(lambda: _counts(client) == (0, 1))
    link.close()


def _counts(client: Client) -> tuple[int, int]:
    """Texts that succeeded, and those that failed."""
    (found,) = client.get("/v2/models/decoder/stats").json["model_stats"]
    return found["inference_stats"]["success"]["count"], found["inference_stats"]["fail"]["count"]


def test_line_feeds_are_escaped_in_events_and_characters_are_whole(
    serving: tuple[Client, Server], model: Alphabet
) -> None:
    client, server = serving
    # The last character lacks its second byte.
    written = "\n\n€\r\u2028é".encode()[:-1]

    def write(feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        model.runs += 1
        scores = np.zeros((1, feeds["input_ids"].shape[1], 258), np.float32)
        scores[0, -1, written[model.runs - 1]] = 1
        return {"logits": scores}

    assert server.model.writer is not None
    server.model = replace(server.model, writer=replace(server.model.writer, run_into=write))
    request = {"text_input": "hi", "parameters": {"max_tokens": len(written)}}
    pieces = [each["text_output"] for each in events(ask(client, request, "generate_stream"))]
    assert pieces == ["\n", "\n", "€", "\r", "\u2028", "\ufffd", ""]


@pytest.mark.parametrize("good_runs", [0, 2])
def test_faulty_scores_end_the_events_with_an_error(
    serving: tuple[Client, Server], model: Alphabet, good_runs: int
) -> None:
    client, server = serving
    scores = model.run_into

    def faulty(feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        found = scores(feeds, into, outputs)
        return found if model.runs <= good_runs else {"logits": found["logits"] * np.float32(np.nan)}

    assert server.model.writer is not None
    server.model = replace(server.model, writer=replace(server.model.writer, run_into=faulty))
    found = events(ask(client, {"text_input": "hi"}, "generate_stream"))
    assert [each.get("text_output") for each in found] == [*"ab"[:good_runs], None]
    assert "a finite one is needed" in found[-1]["error"]
    assert _counts(client) == (0, 1)


def test_models_that_write_no_texts_say_so() -> None:
    with in_process(":0", doubler()) as (client, _):
        found = ask(client, {"text_input": "hi"})
        assert (found.status, "its seed says nothing of generation" in found.error) == (404, True)
        assert ask(client, {"text_input": "hi"}, "generate_stream").status == 404


def test_texts_are_counted_in_the_metrics(client: Client) -> None:
    ask(client, {"text_input": "hi", "parameters": {"max_tokens": 2}})
    ask(client, {"text_input": "hi", "parameters": {"max_tokens": 2}}, "generate_stream")
    ask(client, {"text_input": 7})
    text = client.get("/metrics").body.decode()
    assert 'seed_requests_total{call="generate"} 3' in text
    assert 'seed_request_errors_total{call="generate",code="400"} 1' in text
    assert "seed_inference_duration_seconds_count 2" in text


def test_seed_run_serves_a_decoder_within_the_plan_that_a_service_gets(tmp_path: Path) -> None:
    path = tmp_path / "decoder.seed"
    path.write_bytes(decoder_seed())
    assert planned_bytes(seed_runtime.open(path)) is None  # nothing was measured
    with command(path, "decoder", "--serve", ":0") as client:
        whole = ask(client, {"text_input": "hello"})
        assert (whole.status, whole.json["stop"], whole.json["tokens"]) == (200, "max tokens", 12)
        pieces = events(ask(client, {"text_input": "hello"}, "generate_stream"))
        assert "".join(each["text_output"] for each in pieces) == whole.json["text_output"]
        hot = {"text_input": "hello", "parameters": {"temperature": 3, "rng_seed": 1}}
        assert ask(client, hot).json == ask(client, hot).json != whole.json


def test_a_server_without_tokenizers_says_so_when_it_starts_and_when_it_is_asked(tmp_path: Path) -> None:
    path, missing = tmp_path / "decoder.seed", tmp_path / "missing"
    path.write_bytes(decoder_seed())
    missing.mkdir()
    (missing / "tokenizers.py").write_text("raise ImportError")
    paths = os.pathsep.join(filter(None, (str(missing), os.environ.get("PYTHONPATH"))))
    with command(path, "decoder", "--serve", ":0", env={"PYTHONPATH": paths}) as client:
        assert "pip install 'seed-runtime[text]'" in client.said[0]
        found = ask(client, {"text_input": "hello"})
        assert (found.status, "pip install 'seed-runtime[text]'" in found.error) == (501, True)


def test_a_prompt_that_takes_too_much_memory_to_be_split_is_refused() -> None:
    seed = seed_runtime.open(io.BytesIO(decoder_seed(cached=False)))
    found = generation_of(seed, baseline().resident + (64 << 20))
    assert found is not None
    tokenizer = found[1]
    assert tokenizer.encode("hi", special=False)
    with pytest.raises(MemoryBudgetError, match="splitting the prompt needs"):
        tokenizer.encode("x" * limits.PROMPT_BODY, special=False)


def test_a_limit_is_for_texts_before_it_is_for_tensors_in_json() -> None:
    seed = seed_runtime.open(io.BytesIO(wide_seed()))
    assert plan_server(seed, 1 << 40).body_max == limits.BODY_BESIDE_TEXTS < plan_server(seed).body_max
