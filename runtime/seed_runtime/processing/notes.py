"""Step "notes": notes of music, from maps of what sounds and of what begins, a row for each frame of sound.

Source: R. Bittner, J. Bosch, D. Rubinstein, G. Meseguer-Brocal, S. Ewert, "A Lightweight Instrument-Agnostic Model for
Polyphonic Note Transcription and Multipitch Estimation" (2022), 2.3, and `note_creation.py` of Basic Pitch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError, InputError, OutputError, OutputLimitError
from seed_runtime.limits import NOTE_CELLS_MAX, NOTE_FRAMES_MAX, NOTES_MAX, PITCHES_MAX
from seed_runtime.processing.answers import Answer, Facts, rounded
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, OutputStep

_NAMES: Final = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_LOOK: Final = 64
"""Frames that are looked at together."""
_BLOCK: Final = 1 << 10
"""Cells that are looked at together."""
_BACK: Final = (1, 2)
"""Distances over which what sounds must have become louder where a note is taken to begin [frame]."""


@dataclass(frozen=True)
class Note:
    """One note."""

    start: float
    """[s]"""
    end: float
    pitch: int
    """Number of MIDI: 69 is A4 of 440 Hz, and each semitone is one more."""
    amplitude: float
    """Mean of the map of what sounds, from 0 to 1."""

    @property
    def name(self) -> str:
        """Name with its octave, such as C#4."""
        return f"{_NAMES[self.pitch % 12]}{self.pitch // 12 - 1}"


@dataclass(frozen=True)
class NotesAnswer(Answer):
    """Notes of a sound, in the order of their beginnings."""

    notes: tuple[Note, ...]
    kind = "notes"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "notes": [
                {
                    "start": round(note.start, 3),
                    "end": round(note.end, 3),
                    "pitch": note.pitch,
                    "name": note.name,
                    "amplitude": rounded(note.amplitude),
                }
                for note in self.notes
            ]
        }

    def lines(self) -> Iterator[str]:
        """Yield a line for each note."""
        if not self.notes:
            yield "no note"
        for note in self.notes:
            yield f"{note.start:8.2f} s to {note.end:8.2f} s  {note.name:3} {note.pitch:3}  {note.amplitude:.2f}"


@dataclass(frozen=True)
class NotesStep:
    """Follows what sounds from where it begins, and then the loudest of what is left both ways."""

    where: str
    reads: Mapping[str, str]
    lowest: int
    """MIDI number of the first column."""
    trim: int
    """Rows at both ends of each call that the neighboring calls have as well."""
    onset_threshold: float
    """Least peak with which a note begins."""
    threshold: float
    """Value below which a note ends."""
    least: float
    """Notes are longer than this [s]."""
    gap: float
    """How long what sounds must stay below the threshold [s]."""
    infer: bool
    """Whether notes also begin where what sounds becomes louder at once."""
    follow: bool
    """Whether what is left sounding makes notes that no beginning is known of."""
    kind: str = "notes"

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> NotesAnswer:
        """Find notes (see `OutputStep`)."""
        if facts.frame_seconds is None or facts.seconds is None:
            raise FormatError(self.where, "notes are of sound, and no step before the model reads any")
        sounding, onsets = (self._map(calls, role, facts.source) for role in ("notes", "onsets"))
        if sounding.shape != onsets.shape:
            raise OutputError(self.where, f"maps of one size are needed, not {sounding.shape} and {onsets.shape}")
        if self.lowest + sounding.shape[1] > PITCHES_MAX:
            raise OutputLimitError(f"{self.where}: pitches", self.lowest + sounding.shape[1], PITCHES_MAX)
        step = facts.frame_seconds * len(calls) / len(sounding)
        count = min(len(sounding), int(np.ceil(facts.seconds / step)))
        found = self.found(sounding[:count], onsets[:count], step)
        notes = [Note(first * step, end * step, pitch, amplitude) for first, end, pitch, amplitude in found]
        return NotesAnswer(tuple(sorted(notes, key=lambda note: (note.start, note.pitch))))

    def _map(self, calls: Sequence[Outputs], role: str, source: str) -> Array:
        """Return a map of all calls, `(frames, pitches)`; what is no number is 0."""
        rows = []
        for array in (call[self.reads[role]] for call in calls):
            fits = array.ndim == 3 and array.shape[0] == 1 and array.shape[1] > 2 * self.trim and array.shape[2]
            if array.dtype.kind != "f" or not fits:
                wanted = f"[1, frames, pitches] with more than {2 * self.trim} frames"
                given = f"{array.dtype}{list(array.shape)}"
                raise OutputError(self.where, f"{wanted} is needed; the model gave {given}")
            rows.append(array[0, self.trim : array.shape[1] - self.trim])
        if (cells := sum(each.size for each in rows)) > NOTE_CELLS_MAX:
            if len(calls) > 1:
                most = NOTE_CELLS_MAX * len(calls) // cells
                raise InputError(
                    f"{source} makes {len(calls):,} calls, and notes are found in {most:,}; cut it in parts"
                )
            raise OutputLimitError(f"{self.where}: cells of the map {role}", cells, NOTE_CELLS_MAX)
        if len({each.shape for each in rows}) > 1:
            raise OutputError(self.where, f"the map {role} differs in its size from call to call")
        return np.clip(np.nan_to_num(np.concatenate(rows).astype(np.float32), nan=0.0), 0.0, 1.0)

    def found(self, sounding: Array, onsets: Array, step: float) -> list[tuple[int, int, int, float]]:
        """Return first frame, frame behind the last, pitch and amplitude of notes.

        Args:
            sounding: `(frames, pitches)`, from 0 to 1.
            onsets: the same of beginnings.
            step: time from one frame to the next [s].
        """
        gap, least = (max(1, round(time / step)) for time in (self.gap, self.least))
        if max(gap, least) > NOTE_FRAMES_MAX:
            raise OutputLimitError(
                f"{self.where}: frames of a gap, or of the least note", max(gap, least), NOTE_FRAMES_MAX
            )
        left = _Left(sounding.copy(), self.threshold, gap)
        found = []
        for frame, column in self._beginnings(sounding, onsets):
            end = left.end(frame, column)
            if end - frame > least:
                left.silence(frame, end, column)
                found.append((frame, end, column))
        if self.follow:
            for frame, column in self._loudest(left.values):
                if left.values[frame, column] <= self.threshold:
                    continue
                end, first = left.end(frame, column), left.start(frame, column)
                left.silence(max(0, first - gap), end + gap, column)
                if end - first > least:
                    found.append((first, end, column))
                if len(found) >= NOTES_MAX:
                    break
        return [
            (first, end, column + self.lowest, float(sounding[first:end, column].mean()))
            for first, end, column in found
        ]

    def _beginnings(self, sounding: Array, onsets: Array) -> list[tuple[int, int]]:
        """Return frame and column of peaks of the beginnings, the last first; at most the NOTES_MAX highest."""
        if self.infer and len(sounding) > max(_BACK):
            onsets = np.maximum(onsets, _louder(sounding, float(onsets.max(initial=0))))
        peaks = np.zeros(onsets.shape, bool)
        middle = onsets[1:-1]
        peaks[1:-1] = (middle > onsets[:-2]) & (middle > onsets[2:]) & (middle >= self.onset_threshold)
        places = np.flatnonzero(peaks)
        if len(places) > NOTES_MAX:
            heights = onsets.ravel()[places]
            places = np.sort(places[np.argsort(-heights, kind="stable")[:NOTES_MAX]])
        frames, columns = np.divmod(places[::-1], onsets.shape[1])
        return list(zip(frames.tolist(), columns.tolist(), strict=True))

    def _loudest(self, values: Array) -> Iterator[tuple[int, int]]:
        """Yield frame and column of what sounds, the loudest first."""
        places = np.flatnonzero(values > self.threshold)
        places = places[np.argsort(-values.ravel()[places], kind="stable")]
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            # Most were silenced on the way here, and a look at each of them would take longest.
            for place in block[values.ravel()[block] > self.threshold].tolist():
                yield divmod(place, values.shape[1])


class _Left:
    """What sounds and belongs to no note yet."""

    def __init__(self, values: Array, threshold: float, gap: int) -> None:
        self.values, self._threshold, self._gap = values, threshold, gap

    def end(self, frame: int, column: int) -> int:
        """Return the frame behind the last one of what sounds from `frame` on."""
        return frame + 1 + self._length(self.values[frame + 1 :, column])

    def start(self, frame: int, column: int) -> int:
        """Return the first frame of what sounds up to `frame`."""
        return frame - self._length(self.values[:frame, column][::-1])

    def silence(self, first: int, end: int, column: int) -> None:
        """Leave out a note, and what its neighbors have of it."""
        # Below every threshold: a frame that was silenced is quiet, which bounds how often it is looked at.
        self.values[first:end, max(0, column - 1) : column + 2] = -1

    def _length(self, values: Array) -> int:
        """Return how many frames pass until `gap` frames in a row are quiet."""
        quiet = 0
        for begin in range(0, len(values), _LOOK):
            for index, value in enumerate(values[begin : begin + _LOOK].tolist(), begin):
                quiet = quiet + 1 if value < self._threshold else 0
                if quiet == self._gap:
                    return index + 1 - quiet
        return len(values) - quiet


def _louder(sounding: Array, most: float) -> Array:
    """Return how much louder each cell is than those before it, scaled so that the largest is `most`."""
    rise = np.full(sounding.shape, np.inf, np.float32)
    for distance in _BACK:
        before = np.concatenate([np.zeros_like(sounding[:distance]), sounding[:-distance]])
        np.minimum(rise, sounding - before, out=rise)
    rise[: max(_BACK)] = 0
    np.maximum(rise, 0, out=rise)
    highest = float(rise.max(initial=0))
    return rise * (most / highest) if highest > 0 else rise


def _float32(value: float) -> float:
    """Return a threshold as maps would have it: 0.7 is a little more than float32's 0.7."""
    return float(np.float32(value))


def read(fields: Fields, sources: Sources) -> OutputStep:
    """Read a step of this kind."""
    return NotesStep(
        where=fields.where,
        reads=fields.names("reads", ["notes", "onsets"]),
        lowest=fields.integer("lowest", 0, PITCHES_MAX - 1, 21),
        trim=fields.integer("trim", 0, 4096, 0),
        onset_threshold=_float32(fields.number("onset_threshold", 0.0, 1.0, 0.5)),
        threshold=_float32(fields.number("threshold", 0.0, 1.0, 0.3)),
        least=fields.number("least", 0.0, 60.0, 0.1277),
        gap=fields.number("gap", 0.0, 60.0, 0.1277),
        infer=fields.flag("infer", True),
        follow=fields.flag("follow", True),
    )
