"""Step "audio": the samples of a WAV file, resampled, whole or frame by frame."""

from __future__ import annotations

import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.limits import FRAME_MAX, SOUND_RATE_MAX
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.memory.plan import check_budget
from seed_runtime.memory.process import baseline
from seed_runtime.processing.answers import Facts
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.items import SOUND, Item
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import InputStep, Prepared, Specs, check_input

SAMPLES_MAX: Final = 1 << 26
"""Largest number of samples of a file, all channels together: of speech at 16 kHz, 70 minutes."""
_SAMPLE_BYTES: Final = 16
"""Bytes that a sample takes while it is read: as stored, as float32, mixed and resampled."""
_BLOCK: Final = 1 << 14
"""Samples that are resampled at a time: of each, all that its filter sees is copied."""
_WIDTH_MAX: Final = 4
"""Largest sample [B]: with 32 bits."""
_WEIGHT_BYTES: Final = 48
"""Bytes that each weight of a filter takes while it is computed; from 192 kHz to 1 Hz a filter has 6 million."""
_LOBES: Final = 16
"""Half-width of the filter that resamples, in periods of the lower of both rates."""


@dataclass(frozen=True)
class AudioStep:
    """Fills an input with samples from -1 to 1."""

    where: str
    fills: Mapping[str, str]
    rate: int
    """Sampling rate that the model takes [Hz]."""
    frame: int
    """Samples of a call that are new; 0 for all of the file in one call."""
    context: int
    """Samples before the frame, which the call gets once more; zeros before the first."""
    ahead: int
    """Samples behind the frame, which the next call gets once more; zeros behind the last."""
    has_channel: bool
    """Whether the input has a last axis of one channel."""
    kind: str = "audio"
    medium: str = SOUND

    def check(self, inputs: Specs) -> None:
        """Raise FormatError if the model takes no such samples (see `InputStep`)."""
        size = self.context + self.frame + self.ahead if self.frame else None
        shape = (1, size, 1) if self.has_channel else (1, size)
        check_input(self.where, inputs[self.fills["samples"]], ("float32", "float16"), shape)

    def prepare(self, item: Item | None, facts: Facts, inputs: Specs, limit: int | None) -> Prepared:
        """Read a file (see `InputStep`)."""
        assert item is not None
        samples = read_wav(item, self.rate, limit)
        spec = inputs[self.fills["samples"]]
        facts.seconds = len(samples) / self.rate
        facts.frame_seconds = (self.frame or len(samples)) / self.rate
        frame = self.frame or len(samples)
        size = self.context + frame + self.ahead
        if not self.frame and spec.shape is not None and isinstance(spec.shape[1], int):
            size = spec.shape[1]
            if len(samples) > size:
                facts.notes.append(f"the model takes {size / self.rate:.2f} s, and the rest isn't used")
        first = {spec.name: self._form(np.zeros(size, spec.dtype))}
        return Prepared(self._calls(samples, frame, size, spec.name, spec.dtype), first, -(-len(samples) // frame))

    def _calls(self, samples: Array, frame: int, size: int, name: str, dtype: str) -> Iterator[dict[str, Array]]:
        # A last frame that isn't full is filled up with silence.
        for start in range(0, max(1, len(samples)), frame):
            call = np.zeros(size, dtype)
            first = start - self.context
            part = samples[max(0, first) : first + size]
            call[max(0, -first) :][: len(part)] = part
            yield {name: self._form(call)}

    def _form(self, call: Array) -> Array:
        formed: Array = call[None, :, None] if self.has_channel else call[None]
        return formed


def read_wav(item: Item, rate: int, limit: int | None) -> Array:
    """Return the samples of a WAV file as one channel from -1 to 1, float32.

    Args:
        item: the file.
        rate: that the samples get [Hz].
        limit: of --max-memory; None for none [B].

    Raises:
        InputError: it is no WAV file of PCM, or too long.
        MemoryBudgetError: it takes too much memory.
    """
    with item.open() as file:
        try:
            with wave.open(file) as sound:
                channels, width, own_rate, frames = sound.getparams()[:4]
                if width > _WIDTH_MAX:
                    raise InputError(f"{item.name} has samples of {8 * width} bits; save it as WAV with 8 to 32")
                if not 0 < own_rate <= SOUND_RATE_MAX:
                    raise InputError(f"{item.name} has {own_rate:,} samples a second, at most {SOUND_RATE_MAX:,} do")
                most = max(frames, frames * rate // own_rate)
                if frames * channels > SAMPLES_MAX or most > SAMPLES_MAX:
                    raise InputError(f"{item.name} is too long; cut it into parts of at most {SAMPLES_MAX:,} samples")
                weights = 2 * _reach(own_rate, rate) + 1 if own_rate != rate else 0
                need = baseline().resident + (frames * channels + most) * _SAMPLE_BYTES + weights * _WEIGHT_BYTES
                check_budget(f"reading {item.name}", need, limit, cgroup_limit())
                data = sound.readframes(frames)
        except (wave.Error, EOFError, ValueError, ZeroDivisionError, RuntimeError) as error:
            problem = str(error) or "it is cut"
            raise InputError(f"{item.name} can't be read as sound ({problem}); save it as WAV with PCM") from None
    samples = _numbers(data, width)
    if len(samples) == 0:
        raise InputError(f"{item.name} holds no sound; record it again")
    mixed = samples[: len(samples) // channels * channels].reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return mixed if own_rate == rate else resampled(mixed, own_rate, rate)


def _numbers(data: bytes, width: int) -> Array:
    """Return PCM as floats from -1 to 1."""
    data = data[: len(data) // width * width]
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / 128.0
    if width == 3:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return padded.view("<i4")[:, 0].astype(np.float32) / 2.0**31
    return np.frombuffer(data, f"<i{width}").astype(np.float32) / 2.0 ** (8 * width - 1)


def resampled(samples: Array, rate: int, wanted: int) -> Array:
    """Return samples at another rate, by a windowed sinc.

    Source: A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 4.6, changing the rate by a rational
    factor; the window is Hann's.
    """
    common = gcd(rate, wanted)
    up, down = wanted // common, rate // common
    count = -(-len(samples) * up // down)
    # The filter passes what both rates can hold: its zeros are a period of the lower one apart.
    stretch, reach = max(1.0, down / up), _reach(rate, wanted)
    padded = np.concatenate([np.zeros(reach, np.float32), samples, np.zeros(reach + 1, np.float32)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    out = np.empty(count, np.float32)
    taps = np.arange(-reach, reach + 1)
    for phase in range(min(up, count)):
        # Outputs of one phase lie between samples alike, so one set of weights serves them all.
        first, part = phase * down // up, (phase * down % up) / up
        distance = (taps - part) / stretch
        weights = np.sinc(distance) * np.cos(np.pi * np.clip(distance / _LOBES, -1, 1) / 2) ** 2 / stretch
        weights = weights.astype(np.float32)
        for start in range(phase, count, up * _BLOCK):
            at = out[start : start + up * _BLOCK : up]
            begin = first + (start - phase) // up * down
            at[:] = windows[begin : begin + len(at) * down : down][: len(at)] @ weights
    return out


def _reach(rate: int, wanted: int) -> int:
    """Return how many samples on each side a resampled one is made of."""
    return int(np.ceil(_LOBES * max(1.0, rate / wanted)))


def read(fields: Fields, sources: Sources) -> InputStep:
    """Read a step of this kind."""
    step = AudioStep(
        where=fields.where,
        fills=fields.names("fills", ["samples"]),
        rate=fields.integer("rate", 1, SOUND_RATE_MAX),
        frame=fields.integer("frame", 0, FRAME_MAX, 0),
        context=fields.integer("context", 0, FRAME_MAX, 0),
        ahead=fields.integer("ahead", 0, FRAME_MAX, 0),
        has_channel=fields.flag("channel", False),
    )
    if (step.context or step.ahead) and not step.frame:
        raise FormatError(fields.where, "a context needs frames")
    if (size := step.context + step.frame + step.ahead) > FRAME_MAX:
        raise LimitError(f"{fields.where}: samples of a call", size, FRAME_MAX)
    return step
