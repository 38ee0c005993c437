"""Texts side by side: whose turn it is, how many there are at once, and what a client that leaves gives free."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import seed_runtime
from seed_runtime.backends import Array, Feeds
from seed_runtime.backends.onnxruntime_releases import is_older
from seed_runtime.errors import MemoryBudgetError, UnsupportedError
from seed_runtime.memory.plan import SLACK
from seed_runtime.serve import ServedModel, Server, Writer, generating, generation_of, limits
from seed_runtime.serve.bodies import BodyBudget
from seed_runtime.serve.writing import Desk, Text
from tests.runtime.serve.support.serving import Answer, Client, command, in_process, wait_for
from tests.support.decoder_model import WIDE_CONTEXT, WIDE_TOKEN, decoder_seed, wide_seed

pytest.importorskip("tokenizers")
newer_attention = pytest.mark.skipif(
    is_older(pytest.importorskip("onnxruntime").__version__, "1.23"),
    reason="ONNX Runtime takes models of IR version 11 from 1.23 on",
)

Model = Callable[[Feeds, Mapping[str, Array], Sequence[str]], dict[str, Array]]


class Turns:
    """A model without a cache that writes the letter a, and notes the first letter of the prompt of each run."""

    def __init__(self) -> None:
        self.order = ""
        self.gate = threading.Semaphore(0)
        """One permit a run."""

    def run_into(self, feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        ids = feeds["input_ids"]
        self.order += chr(ids[0, 1])
        assert self.gate.acquire(timeout=20)
        scores = np.zeros((1, ids.shape[1], 258), np.float32)
        scores[0, -1, ord("a")] = 1
        return {"logits": scores}

    def go_on(self) -> None:
        for _ in range(100):
            self.gate.release()


def anything(feeds: Feeds, beside: int) -> None:
    """Have room for all."""


class Line(asyncio.Lock):
    """A lock that counts who asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def acquire(self) -> Literal[True]:
        self.asked += 1
        return await super().acquire()


class Serving:
    """A server in this process, and clients that ask it at once."""

    def __init__(self, client: Client, server: Server, pool: ThreadPoolExecutor) -> None:
        self.client, self.server, self._pool = client, server, pool
        self.line = self.server.run_lock = Line()
        self.server.desk = Desk(server.worker, self.line)

    def ask(self, prompt: str, tokens: int, call: str = "generate", **parameters: Any) -> Future[Answer]:
        """Send a prompt. On return it is written, or waits."""
        before = len(self.server.endings)
        body = json.dumps({"text_input": prompt, "parameters": {"max_tokens": tokens, **parameters}}).encode()
        answer = self._pool.submit(self.client.ask, "POST", f"/v2/models/decoder/{call}", body)
        wait_for(lambda: answer.done() or len(self.server.endings) > before)
        return answer

    def infer(self) -> Future[Answer]:
        """Send tensors. On return the model runs on them, or they wait for it."""
        before = self.line.asked
        one = {"shape": [1, 1], "datatype": "INT64", "data": [1]}
        body = json.dumps({"inputs": [{"name": name, **one} for name in ("input_ids", "position_ids")]}).encode()
        answer = self._pool.submit(self.client.ask, "POST", "/v2/models/decoder/infer", body)
        wait_for(lambda: self.line.asked > before)
        return answer

    def leave(self, prompt: str, link: Any) -> Any:
        """Send a prompt and return its connection, to be closed."""
        before = len(self.server.endings)
        body = json.dumps({"text_input": prompt, "parameters": {"max_tokens": 9}})
        link.request("POST", "/v2/models/decoder/generate", body, {"Content-Type": "application/json"})
        wait_for(lambda: len(self.server.endings) > before)
        return link


@contextlib.contextmanager
def serve(
    run_into: Model, admit: Callable[[Feeds, int], None] = anything, *, seed: bytes | None = None
) -> Iterator[Serving]:
    """Serve a seed, or the decoder without a cache."""
    opened = seed_runtime.open(io.BytesIO(seed or decoder_seed(cached=False)))
    found = generation_of(opened)
    assert found is not None
    writer = Writer(*found, run_into, admit)
    model = ServedModel("decoder", "1", opened.inputs(), (), lambda feeds: {}, writer=writer)
    with in_process(":0", model) as (client, server), ThreadPoolExecutor(8) as pool:
        server.asked_max = limits.PROMPT_BODY
        yield Serving(client, server, pool)


@pytest.fixture
def model() -> Turns:
    return Turns()


@pytest.fixture
def serving(model: Turns) -> Iterator[Serving]:
    with serve(model.run_into) as found:
        yield found


@pytest.mark.parametrize("call", ["generate", "generate_stream"])
def test_texts_are_written_in_turn_run_by_run(serving: Serving, model: Turns, call: str) -> None:
    answers = [serving.ask("A", 4, call)]
    wait_for(lambda: model.order == "A")
    answers.append(serving.ask("B", 4, call))
    model.go_on()
    assert {answer.result().status for answer in answers} == {200}
    # While B's prompt is tokenized, A waits for its second turn.
    assert model.order == "AABABABB"


def test_an_inference_waits_for_one_run_and_not_for_the_text(serving: Serving, model: Turns) -> None:
    text = serving.ask("A", 9)
    wait_for(lambda: model.order == "A")
    tensors = serving.infer()
    model.gate.release()
    assert tensors.result().status == 200
    assert not text.done()
    model.go_on()
    assert text.result().json["tokens"] == 9


def test_a_text_beyond_their_number_waits_until_another_one_is_whole(
    serving: Serving, model: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WRITTEN_MAX", 2)
    answers = [serving.ask("A", 3)]
    wait_for(lambda: model.order == "A")
    answers += [serving.ask(prompt, 3) for prompt in "BCD"]
    model.go_on()
    assert {answer.result().status for answer in answers} == {200}
    assert {prompt: model.order.count(prompt) for prompt in "ABCD"} == dict.fromkeys("ABCD", 3)
    places = {prompt: (model.order.index(prompt), model.order.rindex(prompt)) for prompt in "ABCD"}
    assert places["B"][0] < places["A"][1] < places["C"][0] < places["D"][0]
    assert places["B"][1] < places["D"][0]


def test_texts_that_memory_has_no_room_for_side_by_side_follow_one_another(model: Turns) -> None:
    def admit(feeds: Feeds, beside: int) -> None:
        if beside:
            raise MemoryBudgetError("the run", 2, 1)

    with serve(model.run_into, admit) as serving:
        answers = [serving.ask("A", 3)]
        wait_for(lambda: model.order == "A")
        tensors = serving.infer()
        answers += [serving.ask(prompt, 3) for prompt in "BC"]
        model.go_on()
        assert {answer.result().status for answer in answers} == {200}
        refused = tensors.result()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "the texts that are being written" in refused.error
        assert model.order == "AAABBBCCC"
        wait_for(lambda: serving.server.desk.held_bytes == 0)


def test_a_text_that_never_has_room_is_refused_at_once_and_holds_nobody_up(model: Turns) -> None:
    def admit(feeds: Feeds, beside: int) -> None:
        if feeds["input_ids"].shape[1] > 20:
            raise MemoryBudgetError("the run", 2, 1)

    with serve(model.run_into, admit) as serving:
        first = serving.ask("A", 9)
        wait_for(lambda: model.order == "A")
        second, third = serving.ask("B", 30), serving.ask("C", 3)
        model.gate.release()
        assert (second.result().status, first.done()) == (413, False)
        model.go_on()
        assert (first.result().status, third.result().status) == (200, 200)
        assert "B" not in model.order


def test_a_prompt_that_can_never_be_split_is_refused_at_once_and_one_that_can_later_waits(
    serving: Serving, model: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(name: str, size: int, limit: int | None) -> None:
        more = {30: 1 << 30, 20: min(serving.server.desk.held_bytes, 1)}.get(size, 0)
        if more:
            raise MemoryBudgetError(f"splitting {name}", 1000 + more + SLACK, 1000)

    monkeypatch.setattr("seed_runtime.processing.generation.tokens.check_splitting", check)
    first = serving.ask("A", 9)
    wait_for(lambda: model.order == "A")
    never, later = serving.ask("B" * 30, 3), serving.ask("C" * 20, 3)
    model.gate.release()
    assert (never.result().status, first.done()) == (413, False)
    model.go_on()
    assert (first.result().status, later.result().status) == (200, 200)
    assert model.order == "A" * 9 + "C" * 3


def test_what_the_backend_is_too_old_for_is_answered_501() -> None:
    def run_into(feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        raise UnsupportedError("install a newer one")

    with serve(run_into) as serving:
        answer = serving.ask("A", 3).result()
        assert (answer.status, answer.error) == (501, "install a newer one")
        assert b'data: {"error": "install a newer one"}' in serving.ask("A", 3, "generate_stream").result().body
        assert serving.server.desk.held_bytes == 0


def test_texts_leave_places_for_inferences(serving: Serving, model: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUESTS_MAX", 3)
    monkeypatch.setattr(limits, "PROMPTS_MAX", 2)
    monkeypatch.setattr(limits, "ADMIT_S", 0.1)
    answers = [serving.ask(prompt, 3) for prompt in "AB"]
    refused = serving.ask("C", 3).result()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    tensors = serving.infer()
    model.go_on()
    assert {answer.result().status for answer in (*answers, tensors)} == {200}
    wait_for(lambda: serving.server.requests == 0)
    assert serving.server.prompts == 0


def test_the_memory_of_a_request_is_free_once_its_text_begins(
    serving: Serving, model: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[weakref.ref[memoryview]] = []
    prepare = generating._prepare

    def noting(model: ServedModel, body: memoryview, others: Sequence[Text]) -> Text:
        bodies.append(weakref.ref(body))
        return prepare(model, body, others)

    monkeypatch.setattr(generating, "_prepare", noting)
    budget = serving.server.bodies = BodyBudget(100, lambda: None)
    answer = serving.ask("A", 3)
    wait_for(lambda: model.order == "A")
    assert [body() for body in bodies] == [None]
    assert budget._free == 100
    model.go_on()
    assert answer.result().status == 200
    wait_for(lambda: serving.server.requests == 0)
    assert budget._free == 100


def test_a_text_whose_last_run_has_no_room_is_refused_before_the_first(tmp_path: Path) -> None:
    path = tmp_path / "wide.seed"
    path.write_bytes(wide_seed(past_max=20))
    runs = []
    with seed_runtime.open(path).session(max_memory=1 << 40, threads=1) as session:

        def run_into(feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
            runs.append(feeds["past"].shape[2])
            return session.run_into(feeds, into, outputs)

        with serve(run_into, session.admit, seed=wide_seed(past_max=20)) as serving:
            # 12 tokens with those around it, 11 of them in one run, which leaves a past of at most 20 for it.
            refused = serving.ask("x" * 10, 20, "generate_stream").result()
            assert refused.status == 400
            assert "memory was measured up to" in refused.error
            assert runs == []
            assert serving.ask("x" * 10, 10).result().json["tokens"] == 10
    assert runs == [0, *range(11, 21)]


def test_each_text_counts_what_the_others_hold(model: Turns) -> None:
    seen: list[tuple[int, int]] = []
    with serve(model.run_into, lambda feeds, beside: seen.append((feeds["input_ids"].shape[1], beside))) as serving:
        answers = [serving.ask("A", 3)]
        wait_for(lambda: model.order == "A")
        alone = serving.server.desk.held_bytes
        answers.append(serving.ask("B", 5))
        model.go_on()
        assert {answer.result().status for answer in answers} == {200}
    first = seen[0][0]
    assert alone > 0
    # Each alone; then A must still fit beside B, and B beside A.
    assert seen == [(first, 0)] * 2 + [(first + 2, 0), (first, alone * (first + 2) // first), (first + 2, alone)]


def test_a_client_that_leaves_frees_its_place_while_another_text_runs(
    serving: Serving, model: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WRITTEN_MAX", 2)
    links = [serving.leave("A", serving.client.connection())]
    wait_for(lambda: model.order == "A")
    one = serving.server.desk.held_bytes
    links.append(serving.leave("B", serving.client.connection()))
    model.gate.release()  # A's first run, then B is tokenized
    wait_for(lambda: model.order == "AA")
    assert serving.server.desk.held_bytes == 2 * one
    links.append(serving.leave("C", serving.client.connection()))
    for link, left in zip(links[:0:-1], (2, 1), strict=True):
        link.close()
        wait_for(lambda left=left: serving.server.requests == left)
    # The model still runs for A.
    assert (serving.server.desk.held_bytes, model.order) == (one, "AA")
    links[0].close()
    wait_for(lambda: any(ending.is_gone for ending in serving.server.endings))
    model.gate.release()
    wait_for(lambda: serving.server.requests == 0)
    assert (serving.server.desk.held_bytes, model.order) == (0, "AA")


def test_a_client_that_leaves_behind_its_next_request_is_missed(serving: Serving, model: Turns) -> None:
    link = serving.leave("A", serving.client.connection())
    wait_for(lambda: model.order == "A")
    link.sock.sendall(b"GET /v2 HTTP/1.1\r\n")
    (ending,) = serving.server.endings
    link.close()
    wait_for(lambda: ending.is_gone)
    model.gate.release()
    wait_for(lambda: serving.server.requests == 0)
    assert (serving.server.desk.held_bytes, model.order) == (0, "A")


@pytest.mark.parametrize("in_place", [False, pytest.param(True, marks=newer_attention)])
def test_texts_side_by_side_are_what_they_are_alone(tmp_path: Path, in_place: bool) -> None:
    path, data = tmp_path / "decoder.seed", decoder_seed(in_place=in_place)
    path.write_bytes(data)
    begun, gate = threading.Event(), threading.Event()
    with seed_runtime.open(path).session(threads=1) as session:

        def run_into(feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
            begun.set()
            assert gate.wait(20)
            return session.run_into(feeds, into, outputs)

        with serve(run_into, seed=data) as serving:
            asked = [("hello", {}), ("Hi", {"temperature": 3, "rng_seed": 1}), ("good morning", {})]
            first = serving.ask("hello", 12)
            assert begun.wait(20)
            others = [serving.ask(prompt, 12, **given) for prompt, given in asked[1:]]
            gate.set()
            together = [answer.result().json for answer in (first, *others)]
            alone = [serving.ask(prompt, 12, **given).result().json for prompt, given in asked]
    assert together == alone
    assert len({answer["text_output"] for answer in alone}) == 3


@pytest.mark.slow
def test_texts_side_by_side_stay_within_the_plan_of_the_server(tmp_path: Path) -> None:
    path = tmp_path / "wide.seed"
    path.write_bytes(wide_seed())
    with command(path, "wide", "--serve", f"unix:{tmp_path}/s") as client:
        resident = client.memory()[0]
    cache = 2 * WIDE_CONTEXT * WIDE_TOKEN
    # Bodies and a run with its keys and values take less than three caches; four texts side by side would take more.
    limit = resident + 3 * cache
    body = json.dumps({"text_input": "x" * 30, "parameters": {"max_tokens": WIDE_CONTEXT}}).encode()

    def ask(client: Client) -> Answer:
        # A busy machine may take longer than a text may wait.
        while True:
            with contextlib.closing(client.connection()) as link:
                link.sock.settimeout(120)
                answer = client.ask("POST", "/v2/models/wide/generate", body, connection=link)
            if answer.status != 503:
                return answer
            time.sleep(int(answer.headers["retry-after"]))

    with command(path, "wide", "--serve", f"unix:{tmp_path}/s", "--max-memory", str(limit)) as client:
        alone = ask(client)
        assert (alone.status, alone.json["text_output"][:3], alone.json["stop"]) == (200, "abc", "context")
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(ask, [client] * 5))
        assert [(answer.status, answer.json) for answer in answers] == [(200, alone.json)] * 5
        assert client.memory()[1] <= limit
