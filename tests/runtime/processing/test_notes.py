"""Notes from maps of what sounds and of what begins, and the windows of sound that such maps are of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from seed_runtime.errors import FormatError, InputError, LimitError, OutputError
from seed_runtime.limits import NOTE_FRAMES_MAX
from seed_runtime.processing import notes
from seed_runtime.processing.answers import Facts
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources

FIELDS = {"reads": {"notes": "n", "onsets": "o"}, "lowest": 60, "least": 0.3, "gap": 0.2, "infer": False}


def maps(*played: tuple[int, int, int], frames: int = 40, pitches: int = 12) -> dict[str, np.ndarray]:
    """Return the maps of notes: first frame, frame behind the last, column."""
    sounding, onsets = np.zeros((2, 1, frames, pitches), np.float32)
    for first, end, column in played:
        sounding[0, first:end, column] = 0.8
        onsets[0, first, column] = 0.9
    return {"n": sounding, "o": onsets}


def heard(
    *calls: dict[str, np.ndarray], seconds: float | None = None, frame: float | None = None, **fields: Any
) -> Any:
    """Return what a step says; a frame of the maps is a tenth of a second unless `frame`, of a call, says otherwise."""
    step = notes.read(Fields(FIELDS | fields, "here"), Sources({}, dict))
    per_call = frame or calls[0]["n"].shape[1] / 10
    return step.answer(calls, Facts("it", frame_seconds=per_call, seconds=seconds or per_call * len(calls)))


def found(*calls: dict[str, np.ndarray], **given: Any) -> list[tuple[float, float, int]]:
    return [(round(each.start, 3), round(each.end, 3), each.pitch) for each in heard(*calls, **given).notes]


def test_a_note_lasts_from_its_beginning_to_where_it_is_quiet() -> None:
    answer = heard(maps((5, 15, 0), (5, 25, 9), (20, 30, 4)))
    assert [(each.name, each.pitch, round(each.start, 3), round(each.end, 3)) for each in answer.notes] == [
        ("C4", 60, 0.5, 1.5), ("A4", 69, 0.5, 2.5), ("E4", 64, 2.0, 3.0),
    ]  # fmt: skip
    assert [each.amplitude for each in answer.notes] == pytest.approx([0.8] * 3)


def test_a_short_pause_is_part_of_a_note_and_a_long_one_ends_it() -> None:
    played = maps((5, 15, 3))
    played["n"][0, 10, 3] = 0
    assert found(played) == [(0.5, 1.5, 63)]
    played["n"][0, 10:12, 3] = 0
    assert found(played, follow=False) == [(0.5, 1.0, 63)]


def test_short_notes_are_left_out() -> None:
    assert found(maps((5, 8, 3))) == []
    assert found(maps((5, 9, 3))) == [(0.5, 0.9, 63)]


def test_a_second_beginning_parts_a_note() -> None:
    played = maps((5, 25, 3))
    played["o"][0, 15, 3] = 0.7
    assert found(played) == [(0.5, 1.5, 63), (1.5, 2.5, 63)]


def test_what_sounds_without_a_beginning_is_followed_both_ways() -> None:
    played = maps((5, 25, 3))
    played["o"][:] = 0
    played["n"][0, 12, 3] = 0.95
    assert found(played) == [(0.5, 2.5, 63)]
    assert found(played, follow=False) == []


def test_a_neighbor_of_a_note_is_no_note() -> None:
    played = maps((5, 25, 3))
    played["n"][0, 6:24, 4] = 0.5
    assert found(played) == [(0.5, 2.5, 63)]


def test_a_note_may_begin_where_it_becomes_louder() -> None:
    played = maps((5, 30, 3))
    played["o"][0, 5] = 0
    played["o"][0, 34, 8] = 0.9
    played["n"][0, 5:15, 3] = 0.35
    assert found(played, infer=True) == [(0.5, 1.5, 63), (1.5, 3.0, 63)]
    assert found(played) == [(0.5, 3.0, 63)]


def test_calls_follow_each_other_without_what_they_share() -> None:
    first, second = maps((30, 40, 3), frames=44), maps((0, 20, 3), frames=44)
    second["o"][:] = 0
    for call in (first, second):
        call["n"] = np.concatenate(
            [np.ones_like(call["n"][:, :2]), call["n"][:, :40], np.ones_like(call["n"][:, :2])], 1
        )
        call["o"] = np.concatenate([call["o"][:, :2] * 0, call["o"][:, :40], call["o"][:, :2] * 0], 1)
    assert found(first, second, trim=2, frame=4.0) == [(3.0, 6.0, 63)]


def test_notes_end_with_the_sound() -> None:
    assert found(maps((5, 40, 3)), seconds=2.0, frame=4.0) == [(0.5, 2.0, 63)]


def test_notes_have_lines_and_an_object() -> None:
    answer = heard(maps((5, 15, 1)))
    assert list(answer.lines()) == ["    0.50 s to     1.50 s  C#4  61  0.80"]
    assert answer.as_json() == {
        "notes": [{"start": 0.5, "end": 1.5, "pitch": 61, "name": "C#4", "amplitude": pytest.approx(0.8)}]
    }
    assert list(heard(maps()).lines()) == ["no note"]


def test_what_is_no_number_is_silence_and_infinity_is_loud() -> None:
    played = maps((5, 15, 1))
    played["n"][0, :, 5] = played["o"][0, :, 5] = np.nan
    played["n"][0, 20:30, 8] = np.inf
    answer = heard(played, infer=True)
    assert [each.pitch for each in answer.notes] == [61, 68]
    assert json.dumps(answer.as_json(), allow_nan=False)
    silent = {name: np.full_like(array, np.nan) for name, array in played.items()}
    assert found(silent, infer=True) == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"n": np.zeros((1, 40))}, r"\[1, frames, pitches\]"),
        ({"n": np.zeros((2, 40, 12))}, r"\[1, frames, pitches\]"),
        ({"n": np.zeros((1, 0, 12))}, r"\[1, frames, pitches\]"),
        ({"o": np.zeros((1, 40, 12), np.int8)}, r"\[1, frames, pitches\]"),
        ({"o": np.zeros((1, 40, 13))}, "maps of one size"),
    ],
)
def test_outputs_of_another_form_are_refused(changed: dict[str, np.ndarray], problem: str) -> None:
    with pytest.raises(OutputError, match=problem):
        heard(maps() | changed, frame=4.0)


def test_absurd_sizes_are_refused() -> None:
    with pytest.raises(LimitError, match="frames of a gap"):
        heard(maps(), gap=2.0, frame=40 * 2.0 / (NOTE_FRAMES_MAX + 1))
    with pytest.raises(LimitError, match="pitches"):
        heard(maps(pitches=200))
    wide = np.broadcast_to(np.float32(0), (1, 1 << 20, 17))
    with pytest.raises(LimitError, match="cells of the map notes"):
        heard({"n": wide, "o": wide})
    with pytest.raises(InputError, match="it makes 2 calls, and notes are found in 1; cut it in parts"):
        heard(*[{"n": wide[:, : 3 << 18], "o": wide[:, : 3 << 18]}] * 2)
    for fields in ({"lowest": 256}, {"least": 61.0}, {"trim": 1 << 20}, {"threshold": 2.0}):
        with pytest.raises(FormatError):
            heard(maps(), **fields)
    with pytest.raises(FormatError, match="notes are of sound"):
        notes.read(Fields(FIELDS, "here"), Sources({}, dict)).answer([maps()], Facts("it"))


def test_how_often_frames_are_looked_at_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, real = 0, notes._Left._length

    def counted(self: Any, values: np.ndarray) -> int:
        nonlocal looked
        length = real(self, values)
        looked += min(len(values), length + self._gap)
        return length

    monkeypatch.setattr(notes._Left, "_length", counted)
    frames, pitches = 2000, 12
    every = np.zeros((1, frames, pitches), np.float32)
    every[:, ::2] = 0.9
    noise = np.random.default_rng(0).random((1, frames, pitches)).astype(np.float32)
    for sounding in (np.ones_like(every), every, noise):
        for threshold in (0.0, 0.5):
            looked = 0
            heard({"n": sounding, "o": every}, threshold=threshold, onset_threshold=0.0)
            # Each cell of a note once, and the gap and the shortest note for each beginning and each follower.
            assert looked < frames * pitches * (1 + 3 + 2)
