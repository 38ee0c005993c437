from __future__ import annotations

import struct

import numpy as np
import pytest

from seed_runtime.codecs import lanes as lanes_module
from seed_runtime.codecs.encode import lanes as encoder
from seed_runtime.codecs.lanes import LaneDecoder, decoding_table
from seed_runtime.errors import FormatError
from tests.support.streams import RARE, STATES, SYMBOLS, WORDS


@pytest.fixture(params=["one by one", "step by step"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code and decode everything in both ways that there are: few lanes symbol by symbol, many lanes step by step."""
    for module in (lanes_module, encoder):
        monkeypatch.setattr(module, "_FEW", 1 << 20 if request.param == "one by one" else 0)


def _table(*frequencies: int) -> np.ndarray:
    return decoding_table(np.array(frequencies + (0,) * (256 - len(frequencies)), np.uint32))


def _decoder(states: tuple[int, ...] = STATES, words: tuple[int, ...] = WORDS) -> LaneDecoder:
    lanes = LaneDecoder(_table(*RARE), np.array(states, np.uint32))
    lanes.load(memoryview(struct.pack(f"<{len(words)}H", *words)))
    return lanes


def _symbols(lanes: LaneDecoder, count: int = 4) -> list[int]:
    out = np.empty(count, np.uint8)
    lanes.decode_into(np.zeros(count, np.uint32), out)
    return out.tolist()


def _finish(lanes: LaneDecoder) -> None:
    _symbols(lanes)
    lanes.end_chunk()
    lanes.end_stream()


def test_a_table_entry_packs_frequency_offset_and_symbol() -> None:
    table = _table(*RARE)
    assert table.shape == (4096,)
    assert table[0] == 4094 << 20 | 0 << 8 | 0
    assert table[4093] == 4094 << 20 | 4093 << 8 | 0
    assert table[4094] == 1 << 20 | 0 << 8 | 1
    assert table[4095] == 1 << 20 | 0 << 8 | 2


def test_two_lanes_worked_out_by_hand_decode() -> None:
    # Step 1: lane 0 has slot 0xffe: symbol 1, 1 * 0x1000 + 0 < 2**16, so it takes the word: 0x10000fff.
    #         lane 1 has slot 0x040: symbol 0, 4094 * 16 + 64 = 0x10020.
    # Step 2: lane 0 has slot 0xfff: symbol 2, 1 * 0x10000 + 0. Lane 1: symbol 0, 4094 * 16 + 32 = 0x10000.
    lanes = _decoder()
    assert _symbols(lanes) == SYMBOLS
    lanes.end_chunk()
    lanes.end_stream()


def test_the_last_step_may_leave_lanes_out() -> None:
    lanes = _decoder(states=(0x01000FFE, 0x10020))
    assert _symbols(lanes, 3) == SYMBOLS[:3]
    lanes.end_chunk()
    lanes.end_stream()


def test_the_encoder_writes_what_was_worked_out_by_hand() -> None:
    frequencies = np.zeros((1, 256), np.int64)
    frequencies[0, :3] = RARE
    coded = encoder.encode(np.array(SYMBOLS, np.uint8), np.zeros(4, np.uint8), frequencies, 2)
    assert coded.states.tolist() == list(STATES)
    assert coded.words.tolist() == list(WORDS)
    assert coded.bounds.tolist() == [0, 1, 1]


def test_words_that_end_early_are_refused() -> None:
    with pytest.raises(FormatError, match="end early"):
        _symbols(_decoder(words=()))


def test_one_word_for_two_lanes_is_refused() -> None:
    # Both lanes come below 2**16 in the first step; NumPy alone would give both of them the one word.
    lanes = _decoder(states=(0x01000FFE, 0x01000FFE), words=(0x0FFF,))
    with pytest.raises(FormatError):
        _finish(lanes)


def test_words_left_over_are_refused() -> None:
    lanes = _decoder(words=(*WORDS, 5))
    _symbols(lanes)
    with pytest.raises(FormatError, match="1 words are left over"):
        lanes.end_chunk()


def test_lanes_that_do_not_end_where_they_began_are_refused() -> None:
    lanes = _decoder(states=(0x01000FFE, 0x10041))
    _symbols(lanes)
    with pytest.raises(FormatError, match="do not end where they began"):
        lanes.end_stream()


@pytest.mark.parametrize("states", [(0, 0), (1, 0xFFFF), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_states_that_no_encoder_leaves_are_refused(states: tuple[int, int]) -> None:
    lanes = _decoder(states=states, words=(0, 0, 0, 0))
    with pytest.raises(FormatError):
        _finish(lanes)


@pytest.mark.parametrize(
    "histogram",
    [[5], [0, 7], [1, 1], [10**9] + [1] * 255, [3] * 256, [1, 0, 0, 10**6], [], [0, 0, 0]],
    ids=["one", "second", "even", "skewed", "flat", "gap", "none", "zeros"],
)
def test_normalized_frequencies_fill_the_slots(histogram: list[int]) -> None:
    counts = np.array(histogram + [0] * (256 - len(histogram)))
    frequencies = encoder.normalized(counts)
    assert frequencies.sum() == 4096
    assert frequencies.max() < 4096
    assert (frequencies[counts > 0] > 0).all()


@pytest.mark.parametrize("lanes", [1, 2, 64, 4096])
def test_symbols_of_many_classes_round_trip(lanes: int, rng: np.random.Generator) -> None:
    classes = rng.integers(0, 3, 5000).astype(np.uint8)
    symbols = (rng.geometric([0.05, 0.3, 0.8], (5000, 3))[np.arange(5000), classes] & 0xFF).astype(np.uint8)
    counts = np.stack([np.bincount(symbols[classes == k], minlength=256) for k in range(3)])
    frequencies = np.stack([encoder.normalized(row) for row in counts])
    coded = encoder.encode(symbols, classes, frequencies, lanes)
    tables = np.concatenate([decoding_table(row.astype(np.uint32)) for row in frequencies])
    decoder, out = LaneDecoder(tables, coded.states.copy()), np.empty(5000, np.uint8)
    decoder.load(memoryview(coded.words.astype("<u2").tobytes()))
    decoder.decode_into(classes.astype(np.uint32) << 12, out)
    decoder.end_chunk()
    decoder.end_stream()
    assert np.array_equal(out, symbols)
    if lanes <= 2:
        share = counts[counts > 0] / np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)[counts > 0]
        entropy = -(counts[counts > 0] * np.log2(share)).sum()
        assert 16 * coded.words.size < 1.005 * entropy + 64


@pytest.mark.parametrize("block", [1, 100, 5000])
def test_the_encoder_gives_the_same_words_however_many_symbols_it_looks_up_at_once(
    block: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = rng.integers(0, 8, 4321).astype(np.uint8)
    classes = rng.integers(0, 2, 4321).astype(np.uint8)
    frequencies = np.stack([encoder.normalized(np.bincount(symbols[classes == k], minlength=256)) for k in range(2)])
    whole = encoder.encode(symbols, classes, frequencies, 64)
    seen: list[int] = []
    monkeypatch.setattr(encoder, "_BLOCK", block)
    parts = encoder.encode(symbols, classes, frequencies, 64, seen.append)
    for field in ("states", "words", "bounds"):
        assert np.array_equal(getattr(whole, field), getattr(parts, field))
    assert sum(seen) == 4321
