"""Basic Pitch: the notes that sound in two seconds of audio. ONNX as shipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics
from .base import Feeds, PublicModel, Run, Score, check_split
from .fetch import pypi, whole_file

PACKAGE = ("basic-pitch", "0.4.0")
INPUT = "serving_default_input_2:0"
SAMPLES = 150  # windows

# The model's own numbers: 22,050 samples per second, one frame per 256 samples, keys from A0 up.
RATE, HOP, LENGTH, FRAMES, KEYS, LOWEST = 22050, 256, 43844, 172, 88, 21
THRESHOLD = 0.3  # the package's own, for a frame

# Instruments: decay of harmonics, share of even ones, decay in time [1/s], attack [s], vibrato
# [semitone]. Each split has its own.
INSTRUMENTS = {
    "test": (
        (0.9, 1.0, 2.0, 0.005, 0.0),
        (1.3, 0.3, 0.2, 0.060, 0.2),
        (0.6, 1.0, 0.5, 0.020, 0.1),
        (1.8, 0.8, 4.0, 0.003, 0.0),
    ),
    "calib": (
        (1.1, 0.9, 3.0, 0.004, 0.0),
        (1.6, 0.1, 0.1, 0.080, 0.1),
        (0.8, 0.7, 0.3, 0.030, 0.3),
        (2.2, 1.0, 6.0, 0.002, 0.0),
    ),
}


def prepare(cache: Path) -> Path:
    """Copy the model out of the wheel; the audio is synthesized when it is needed."""
    target = cache / "basicpitch" / "model.onnx"
    if not target.exists():
        with whole_file(target) as path:
            model = pypi(cache, *PACKAGE) / "basic_pitch/saved_models/icassp_2022/nmp.onnx"
            shutil.copyfile(model, path)
    return target


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n windows of audio, shape `(1, 43844, 1)`, in [-1, 1]."""
    check_split(split)
    return [{INPUT: audio[None, :, None]} for audio, _ in (window(i, split) for i in range(n))]


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return the F1 of (key, frame) cells in which a note sounds; `n` counts windows."""
    truths, notes, onsets = [], [], []
    for index in range(limit or SAMPLES):
        audio, truth = window(index, "test")
        onset, note, _ = run({INPUT: audio[None, :, None]})
        truths.append(truth)
        notes.append(note[0].astype(np.float16))
        onsets.append(onset[0].astype(np.float16))
    truth, sounding = np.stack(truths), np.stack(notes) > THRESHOLD
    hits = np.sum(truth & sounding)
    return {
        "metric": "frame F1",
        "better": "higher",
        "value": float(2 * hits / (truth.sum() + sounding.sum())),
        "n": len(truths),
        "outputs": {"notes": np.stack(notes), "onsets": np.stack(onsets)},
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return the overlap of sounding cells and the KL per cell of notes and onsets."""
    p, q = metrics.paired(original, candidate, "notes")
    p_onset, q_onset = metrics.paired(original, candidate, "onsets")
    return metrics.summary(
        original,
        candidate,
        agreement=metrics.overlap(p > THRESHOLD, q > THRESHOLD),
        kl=metrics.kl_bernoulli(p, q),
        kl_onset=metrics.kl_bernoulli(p_onset, q_onset),
    )


def window(index: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (audio `(43844,)` float32, truth `(172, 88)` bool) of two to seven notes."""
    draw = np.random.default_rng([3, index])
    instrument = INSTRUMENTS[split][index % len(INSTRUMENTS[split])]
    audio = np.zeros(LENGTH)
    truth = np.zeros((FRAMES, KEYS), bool)
    for _ in range(int(draw.integers(2, 8))):
        key = int(draw.integers(15, 64))
        start = int(draw.integers(0, LENGTH - RATE // 3))
        length = int(draw.integers(RATE // 4, RATE))
        stop = min(start + length, LENGTH)
        tone = _tone(LOWEST + key, stop - start, instrument) * draw.uniform(0.3, 1.0)
        audio[start:stop] += tone
        truth[round(start / HOP) : round(stop / HOP), key] = True
    audio += draw.normal(0.0, 0.003, LENGTH)
    return (audio / max(1.0, np.abs(audio).max())).astype(np.float32), truth


def _tone(midi: int, length: int, instrument: tuple[float, ...]) -> np.ndarray:
    decay, even, fading, attack, vibrato = instrument
    time = np.arange(length) / RATE
    pitch = midi - 69 + vibrato * np.sin(2 * np.pi * 5.5 * time)
    phase = 2 * np.pi * np.cumsum(440.0 * 2 ** (pitch / 12)) / RATE
    highest = int(min(12, 0.45 * RATE / (440.0 * 2 ** ((midi - 68) / 12))))
    tone = np.zeros(length)
    for order in range(1, highest + 1):
        share = (even if order % 2 == 0 else 1.0) * order**-decay
        tone += share * np.sin(order * phase)
    envelope = np.minimum(time / attack, 1.0) * np.exp(-fading * time)
    envelope *= np.minimum((length - np.arange(length)) / (0.02 * RATE), 1.0)
    tone *= 0.3 * envelope
    return tone


MODEL = PublicModel("basicpitch", "audio to notes, 0.04 M parameters", prepare, inputs, score, compare)
