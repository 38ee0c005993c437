"""Text generation: the loop with its cache, how it ends, and descriptions that are refused."""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_runtime.backends import Feeds
from seed_runtime.backends.onnxruntime_releases import is_older
from seed_runtime.errors import FormatError, InputError, LimitError, UnsupportedError
from seed_runtime.limits import PROMPT_MAX
from seed_runtime.processing.generation import Generation, Generator, Sampling, Tokenizer
from seed_runtime.session import Session
from tests.support.decoder_model import CONTEXT, PAST, decoder_seed, tokenizer_json

pytest.importorskip("tokenizers")
onnxruntime = pytest.importorskip("onnxruntime")
newer_attention = pytest.mark.skipif(
    is_older(onnxruntime.__version__, "1.23"), reason="ONNX Runtime takes models of IR version 11 from 1.23 on"
)


@contextlib.contextmanager
def opened(folder: Path, data: bytes) -> Iterator[tuple[Generation, Tokenizer, Session]]:
    path = folder / "decoder.seed"
    path.write_bytes(data)
    seed = seed_runtime.open(path)
    steps = seed.processing()
    assert steps is not None
    assert steps.generation is not None
    with seed.session(threads=1) as session:
        yield steps.generation, Tokenizer(steps.generation.tokenizer), session


def written(folder: Path, data: bytes, prompt: str = "hello", **options: Any) -> tuple[str, Generator]:
    with opened(folder, data) as (generation, tokenizer, session):
        generator = Generator(generation, tokenizer, prompt, **options)
        return "".join(generator.run(session.run_into)), generator


def refused(**changes: Any) -> str:
    with pytest.raises(FormatError) as caught:
        seed_of(decoder_seed(**changes)).processing()
    return str(caught.value)


def seed_of(data: bytes) -> Any:
    import io

    return seed_runtime.open(io.BytesIO(data))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("text"), decoder_seed())[0]


def test_text_with_a_cache_is_the_text_without_one(tmp_path: Path, text: str) -> None:
    assert len(text) == 12
    assert len(set(text)) > 2
    assert written(tmp_path, decoder_seed(cached=False))[0] == text


def test_a_prompt_in_several_runs_gives_the_text_of_one_run(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seed_runtime.processing.generation.generator._SCORES_BYTES", 3 * 258 * 4)
    assert written(tmp_path, decoder_seed())[0] == text


def test_a_run_reads_one_set_of_buffers_and_writes_the_other(tmp_path: Path) -> None:
    with opened(tmp_path, decoder_seed()) as (generation, tokenizer, session):
        runs: list[tuple[int, int, int]] = []

        def model(feeds: Feeds, into: Feeds, outputs: Any) -> Any:
            name = next(iter(PAST))
            read, made = feeds[name], into[PAST[name]]
            assert not np.shares_memory(read, made)
            runs.append((read.shape[2], made.shape[2], made.ctypes.data))
            return session.run_into(feeds, into, outputs)

        generator = Generator(generation, tokenizer, "hello", max_tokens=4)
        list(generator.run(model))
    count = len(generator.prompt_tokens)
    assert [run[:2] for run in runs] == [(0, count - 1), *((each, each + 1) for each in range(count - 1, count + 3))]
    # Nothing is allocated for a token: the same two buffers in turn.
    assert [run[2] for run in runs] == [run[2] for run in runs[:2]] * 2 + [runs[0][2]]
    assert count + 3 == generator.capacity


@newer_attention
def test_tokens_are_added_in_place_where_the_model_does_and_the_text_is_the_same(tmp_path: Path, text: str) -> None:
    data = decoder_seed(in_place=True)
    assert written(tmp_path, data)[0] == text
    with opened(tmp_path, data) as (generation, tokenizer, session):
        arrays: list[Any] = []

        def model(feeds: Feeds, into: Feeds, outputs: Any) -> Any:
            assert all(feeds[name] is into[source] for name, source in PAST.items())
            arrays.append(feeds[next(iter(PAST))])
            return session.run_into(feeds, into, outputs)

        generator = Generator(generation, tokenizer, "hello")
        assert "".join(generator.run(model)) == text
        assert generator.largest_feeds()[next(iter(PAST))].shape == arrays[0].shape == (1, 2, generator.capacity, 8)
    assert len({array.ctypes.data for array in arrays}) == 1


@newer_attention
def test_a_prompt_in_several_runs_in_place_gives_the_text_of_one_run(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seed_runtime.processing.generation.generator._SCORES_BYTES", 3 * 258 * 4)
    assert written(tmp_path, decoder_seed(in_place=True))[0] == text


def test_the_tokenizer_is_free_once_a_prompt_is_tokenized(tmp_path: Path, text: str) -> None:
    with opened(tmp_path, decoder_seed()) as (generation, _, session):
        tokenizer = Tokenizer(tokenizer_json())
        generator = Generator(generation, tokenizer, "hello")
        held = weakref.ref(tokenizer)
        del tokenizer
        assert held() is None
        assert "".join(generator.run(session.run_into)) == text


def test_each_run_is_a_step_and_what_is_held_between_them_is_planned(tmp_path: Path) -> None:
    with opened(tmp_path, decoder_seed()) as (generation, tokenizer, session):
        buffers: dict[int, int] = {}
        runs = 0

        def model(feeds: Feeds, into: Feeds, outputs: Any) -> Any:
            nonlocal runs
            runs += 1
            buffers.update(
                {array.base.ctypes.data: array.base.nbytes for array in into.values() if array.base is not None}
            )
            return session.run_into(feeds, into, outputs)

        generator = Generator(generation, tokenizer, "hello", max_tokens=4)
        steps = []
        for number, step in enumerate(generator.steps(model), start=1):
            assert runs == number
            assert generator.is_whole == (number == 5)
            steps.append(step)
    assert [len(step) for step in steps] == [0, 1, 1, 1, 1]
    assert len(buffers) == 2 * len(PAST)
    assert sum(buffers.values()) <= generator.held_bytes


def test_scores_are_asked_for_where_a_token_is_chosen_by_them_and_nowhere_else(tmp_path: Path) -> None:
    with opened(tmp_path, decoder_seed()) as (generation, tokenizer, session):
        asked: list[tuple[int, list[str]]] = []

        def model(feeds: Feeds, into: Feeds, outputs: Any) -> Any:
            asked.append((feeds["input_ids"].shape[1], list(outputs)))
            return session.run_into(feeds, into, outputs)

        generator = Generator(generation, tokenizer, "hello", max_tokens=2)
        list(generator.run(model))
    assert asked == [(len(generator.prompt_tokens) - 1, []), (1, ["logits"]), (1, ["logits"])]


def test_a_stop_token_ends_the_text_and_is_no_part_of_it(tmp_path: Path, text: str) -> None:
    stop = text[5]
    found, generator = written(tmp_path, decoder_seed(stop=[ord(stop)]))
    assert found == text[: text.index(stop)]
    assert generator.stop == "stop token"
    assert generator.tokens == [ord(char) for char in found]


def test_a_text_ends_after_so_many_tokens_or_where_the_context_does(tmp_path: Path, text: str) -> None:
    found, generator = written(tmp_path, decoder_seed(), max_tokens=3)
    assert (found, generator.stop) == (text[:3], "max tokens")
    found, generator = written(tmp_path, decoder_seed(), max_tokens=1000)
    assert (len(found), generator.stop) == (CONTEXT - len("<hello:"), "context")


def test_a_prompt_that_is_too_long_is_refused_by_how_much(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 52 tokens, 5 more than .*\(48 in all\); shorten it"):
        written(tmp_path, decoder_seed(), "x" * 50)
    with pytest.raises(InputError, match=r"1,048,577 bytes, and 1,048,576 are allowed"):
        written(tmp_path, decoder_seed(), "x" * (PROMPT_MAX + 1))


def test_an_empty_prompt_is_refused_where_the_seed_adds_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        written(tmp_path, decoder_seed(before="", after=""), "")


def test_a_prompt_can_not_hold_special_tokens(tmp_path: Path) -> None:
    with opened(tmp_path, decoder_seed()) as (generation, tokenizer, _):
        tokens = Generator(generation, tokenizer, "<end>").prompt_tokens
    assert tokens == [257, *b"<end>", ord(":")]


def test_sampling_is_repeatable_with_a_seed_for_random_numbers(tmp_path: Path, text: str) -> None:
    hot = Sampling(temperature=3.0)
    texts = [written(tmp_path, decoder_seed(), sampling=hot, rng_seed=rng_seed)[0] for rng_seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert len({*texts, text}) == 3


def test_plans_see_the_largest_run_and_take_no_memory_for_it(tmp_path: Path) -> None:
    with opened(tmp_path, decoder_seed()) as (generation, tokenizer, _):
        feeds = Generator(generation, tokenizer, "hello", max_tokens=10).largest_feeds()
    assert feeds["input_ids"].shape == (1, 6)
    assert feeds["attention_mask"].shape == (1, 16)
    assert all(feeds[name].shape == (1, 2, 10, 8) for name in PAST)
    assert all(max(array.strides) == 0 for array in feeds.values())


def test_plans_see_each_run_that_no_other_one_is_as_large_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seed_runtime.processing.generation.generator._SCORES_BYTES", 4 * 258 * 4)
    runs: set[tuple[int, int]] = set()

    def sizes(feeds: Feeds) -> tuple[int, int]:
        return feeds["input_ids"].shape[1], feeds[next(iter(PAST))].shape[2]

    with opened(tmp_path, decoder_seed()) as (generation, tokenizer, session):

        def model(feeds: Feeds, into: Feeds, outputs: Any) -> Any:
            runs.add(sizes(feeds))
            return session.run_into(feeds, into, outputs)

        generator = Generator(generation, tokenizer, "hello", max_tokens=3)
        assert "".join(generator.run(model))
        planned = {sizes(feeds) for feeds in generator.planned_feeds()}
    assert planned == {(4, 5), (2, 4), (1, 8)}
    assert runs == {(4, 0), (2, 4), (1, 6), (1, 7), (1, 8)}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"past": {"past_key_values.9.key": "present.0.key"}}, "no input 'past_key_values.9.key'"),
        ({"past": PAST | {"past_key_values.0.key": "present.9.key"}}, "no output 'present.9.key'"),
        ({"past": PAST | {"past_key_values.0.key": "present.1.key"}}, "an output is the past of two inputs"),
        ({"past": PAST | {"past_key_values.0.key": "logits"}}, "is of another form than input"),
        ({"past": PAST | {"input_ids": "present.0.key"}}, "input 'input_ids' is filled twice"),
        ({"past": {}}, "nothing fills input 'past_key_values.0.key'"),
        ({"past_axis": 1}, "can't be a past whose axis 1 counts tokens"),
        ({"past_axis": 3}, "can't be a past whose axis 3 counts tokens"),
        ({"fills": {"ids": "input_ids", "positions": "position_ids"}}, "nothing fills input 'attention_mask'"),
        ({"reads": {"scores": "present.0.key"}}, "can't hold a score of each token"),
        ({"tokenizer": "other.json"}, "no attachment is called 'other.json'"),
        ({"stop": [-1]}, "at least 0 is needed"),
        ({"top_p": 1.5}, "0 to 1 is allowed"),
        ({"temperature": "hot"}, "a finite number is needed"),
        ({"before": 7}, "a text is needed"),
        ({"before": "\ud800"}, "half of a surrogate pair"),
        ({"context": None}, "the field 'context' is missing"),
        ({"in_place": 1}, "true or false is needed"),
    ],
)
def test_a_description_of_another_model_is_refused(changes: dict[str, Any], problem: str) -> None:
    assert problem in refused(**changes)


@pytest.mark.parametrize(
    "changes", [{"context": 1 << 40}, {"stop": list(range(65))}, {"after": "x" * 4097}, {"max_tokens": 1 << 20}]
)
def test_absurd_sizes_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LimitError):
        seed_of(decoder_seed(**changes)).processing()


def test_a_cache_beyond_the_limit_is_refused_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    one = 2 * CONTEXT * 4 * 2 * 8 * 4
    monkeypatch.setattr("seed_runtime.processing.generation.description.PAST_BYTES_MAX", one - 1)
    with pytest.raises(LimitError, match=f"bytes of the cache of 48 tokens: {one:,} exceeds"):
        seed_of(decoder_seed()).processing()
    # One set of arrays is half of two.
    assert seed_of(decoder_seed(in_place=True)).processing().generation.token_bytes * CONTEXT == one // 2


def test_a_model_that_adds_in_place_must_be_told_how_many_tokens_there_are() -> None:
    assert "in_place needs a past, and a mask" in refused(cached=False, in_place=True)


def test_unknown_fields_are_newer_than_this_runtime() -> None:
    with pytest.raises(UnsupportedError, match="beams"):
        seed_of(decoder_seed(beams=4)).processing()


def test_a_tokenizer_that_pads_and_cuts_does_neither_to_a_prompt() -> None:
    settings = json.loads(tokenizer_json())
    settings["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    settings["padding"] = {
        "strategy": {"Fixed": 100_000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "!",
    }  # fmt: skip
    assert Tokenizer(json.dumps(settings).encode()).encode("hello", special=False) == list(b"hello")
