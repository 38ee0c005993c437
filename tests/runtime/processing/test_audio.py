"""Sound as samples: WAV of all widths, resampling, frames with a state, and what is no sound."""

from __future__ import annotations

import contextlib
import io
import wave
from typing import Any

import numpy as np
import onnx
import pytest

import seed_runtime
from seed_runtime.backends import Array, Feeds
from seed_runtime.errors import FormatError, InputError, LimitError, MemoryBudgetError
from seed_runtime.memory.process import baseline
from seed_runtime.processing import SOUND, Item, answer, prepare
from seed_runtime.processing.audio import read_wav, resampled
from seed_runtime.processing.segments import SegmentsAnswer
from tests.support.described_models import described
from tests.support.model_seeds import onnx_model


def wav(samples: np.ndarray, rate: int = 16000, channels: int = 1, width: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def wider(data: bytes, bits: int) -> bytes:
    """Return a file that says that its samples have so many bits."""
    return data[:34] + bits.to_bytes(2, "little") + data[36:]


def read(data: bytes, rate: int = 16000, limit: int | None = None) -> np.ndarray:
    return read_wav(Item(SOUND, "speech.wav", data=data), rate, limit)


@pytest.mark.parametrize(
    ("stored", "width"),
    [
        (np.array([128, 192, 0], np.uint8), 1),
        (np.array([0, 1 << 14, -(1 << 15)], "<i2"), 2),
        (np.array([0, 0, 0, 0, 0, 0x40, 0, 0, 0x80], np.uint8), 3),
        (np.array([0, 1 << 30, -(1 << 31)], "<i4"), 4),
    ],
)
def test_samples_of_all_widths_are_from_minus_one_to_one(stored: np.ndarray, width: int) -> None:
    assert read(wav(stored, width=width)).tolist() == [0.0, 0.5, -1.0]


def test_channels_are_mixed() -> None:
    stored = np.array([[1 << 14, 0], [0, -(1 << 15)]], "<i2")
    assert read(wav(stored, channels=2)).tolist() == [0.25, -0.5]


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (8000, 16000), (48000, 16000), (16000, 22050)])
def test_a_tone_stays_the_tone_at_another_rate(rate: int, wanted: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate // 2) / rate).astype(np.float32)
    found = resampled(tone, rate, wanted)
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(found)) / wanted)
    assert len(found) == wanted // 2
    # At the ends the filter sees silence.
    assert np.abs(found - expected)[400:-400].max() < 1e-4


def test_what_the_lower_rate_can_not_hold_is_filtered_out() -> None:
    tone = np.sin(2 * np.pi * 11000 * np.arange(22050) / 44100).astype(np.float32)
    assert np.abs(resampled(tone, 44100, 16000))[400:-400].max() < 2e-3


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    from seed_runtime.processing import audio

    samples = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    whole = resampled(samples, 44100, 16000), resampled(samples, 16000, 8000)
    monkeypatch.setattr(audio, "_BLOCK", 7)
    for expected, rates in zip(whole, ((44100, 16000), (16000, 8000)), strict=True):
        assert np.allclose(resampled(samples, *rates), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "can't be read as sound"),
        (b"no sound at all", "can't be read as sound"),
        (wav(np.zeros(9, "<i2"))[:30], "can't be read as sound"),
        (wav(np.zeros(0, "<i2")), "holds no sound"),
        (wav(np.zeros(4, "<i2"), rate=200_000), "at most 192,000 do"),
        (wider(wav(np.zeros(4, "<i4"), width=4), 40), "has samples of 40 bits"),
        (wider(wav(np.zeros(4, "<i4"), width=4), 65535), "has samples of 65536 bits"),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read(data)


def test_a_claimed_length_is_refused_before_it_is_read() -> None:
    data = bytearray(wav(np.zeros(4, "<i2")))
    data[40:44] = (1 << 31).to_bytes(4, "little")
    data[4:8] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(InputError, match="is too long"):
        read(bytes(data))
    with pytest.raises(InputError, match="is too long"):
        read(wav(np.zeros(1 << 16, "<i2"), rate=1), 192_000)
    data[40:44] = data[4:8] = (1 << 26).to_bytes(4, "little")
    with pytest.raises(MemoryBudgetError, match=r"reading speech.wav needs"):
        read(bytes(data), limit=64 << 20)


def test_the_weights_of_a_filter_are_within_the_budget_as_well() -> None:
    data = wav(np.zeros(1000, "<i2"), rate=192_000)
    room = baseline().resident + (64 << 20)
    assert len(read(data, rate=16000, limit=room)) == 84
    # At one sample a second, each is made of six million.
    with pytest.raises(MemoryBudgetError, match=r"reading speech.wav needs"):
        read(data, rate=1, limit=room)


def counting_model(size: int) -> onnx.ModelProto:
    """Return a model of x: float32[1, size] and h: float32[1, 1].

    y is the mean of x, and next is h + 1: the number of calls.
    """
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        onnx.helper.make_node("Add", ["h", "one"], ["next"]),
        onnx.helper.make_node("Mul", ["mean", "next"], ["y"]),
    ]
    inputs: dict[str, Any] = {"x": [1, size], "h": [1, 1]}
    return onnx_model(nodes, inputs, {"y": [1, 1], "next": [1, 1]}, {"one": np.ones((1, 1))})


def described_sound(size: int, **fields: Any) -> seed_runtime.Seed:
    step = {"kind": "audio", "fills": {"samples": "x"}, "rate": 16000, **fields}
    segments = {"kind": "segments", "reads": {"probability": "y"}, "least": 0, "gap": 0, "margin": 0, "threshold": 0.9}
    description = {"inputs": [step], "outputs": [segments], "state": {"h": "next"}}
    return seed_runtime.open(io.BytesIO(described(counting_model(size), description)))


def test_frames_follow_each_other_with_their_context_and_the_state_of_the_call_before() -> None:
    seed = described_sound(6, frame=4, context=2)
    processing = seed.processing()
    assert processing is not None
    stored = np.arange(1, 10, dtype="<i2") * (1 << 10)
    sample = prepare(processing, (Item(SOUND, "s", data=wav(stored)),))
    assert sample.first["h"].tolist() == [[0.0]]
    frames = [(call["x"][0] * 32).tolist() for call in sample.calls()]
    assert frames == [[0, 0, 1, 2, 3, 4], [3, 4, 5, 6, 7, 8], [7, 8, 9, 0, 0, 0]]
    with seed.session() as session:
        sample = prepare(processing, (Item(SOUND, "s", data=wav(np.full(16, 1 << 13, "<i2"))),))
        found = answer(processing, sample, session.run).answers[0]
    # A quarter times the number of the call: .9 is reached by the fourth, which is the last one.
    assert isinstance(found, SegmentsAnswer)
    assert [(round(start * 16000), round(end * 16000)) for start, end in found.segments] == [(12, 16)]


def test_frames_may_have_samples_of_the_next_one() -> None:
    processing = described_sound(7, frame=4, context=1, ahead=2).processing()
    assert processing is not None
    sample = prepare(processing, (Item(SOUND, "s", data=wav(np.arange(1, 10, dtype="<i2") * (1 << 10))),))
    frames = [(call["x"][0] * 32).tolist() for call in sample.calls()]
    assert frames == [[0, 1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8, 9, 0], [8, 9, 0, 0, 0, 0, 0]]


def test_a_whole_sound_is_one_call() -> None:
    seed = described_sound(6)
    processing = seed.processing()
    assert processing is not None
    sample = prepare(processing, (Item(SOUND, "s", data=wav(np.full(9, 1 << 14, "<i2"))),))
    assert [call["x"].tolist() for call in sample.calls()] == [[[0.5] * 6]]
    assert sample.count == 1
    assert sample.facts.notes == ["the model takes 0.00 s, and the rest isn't used"]


def test_the_number_of_calls_is_known_and_bounded_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    processing = described_sound(4, frame=4).processing()
    assert processing is not None
    for size in (1, 4, 9):
        sample = prepare(processing, (Item(SOUND, "s", data=wav(np.zeros(size, "<i2"))),))
        assert sample.count == len(list(sample.calls()))
    monkeypatch.setattr("seed_runtime.processing.runner._CALLS_MAX", 2)
    with pytest.raises(InputError, match="s would take 3 calls, at most 2 are made"):
        prepare(processing, (Item(SOUND, "s", data=wav(np.zeros(9, "<i2"))),))


def test_what_is_held_of_all_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    processing = described_sound(4, frame=4).processing()
    assert processing is not None
    monkeypatch.setattr("seed_runtime.processing.runner._HELD_MAX", 3000)

    calls = 0

    def two_kilobytes(feeds: Feeds) -> dict[str, Array]:
        nonlocal calls
        calls += 1
        return {"y": np.zeros((1, 512), np.float32), "next": feeds["h"]}

    said = "s takes 2 calls, and the outputs of 1 are held; cut it in parts"
    for size, fits in ((1, True), (8, False)):
        sample = prepare(processing, (Item(SOUND, "s", data=wav(np.zeros(size, "<i2"))),))
        with contextlib.nullcontext() if fits else pytest.raises(InputError, match=said):
            answer(processing, sample, two_kilobytes)
    assert calls == 2, "the first call shows that a long sound is too long"


def test_frames_of_another_size_and_a_context_alone_are_refused() -> None:
    with pytest.raises(FormatError, match=r"it makes \[1, 5\], and the model takes x"):
        described_sound(6, frame=5).processing()
    with pytest.raises(FormatError, match="a context needs frames"):
        described_sound(6, context=5).processing()
    with pytest.raises(LimitError, match="samples of a call"):
        described_sound(6, frame=1, context=1 << 23, ahead=1 << 23).processing()
