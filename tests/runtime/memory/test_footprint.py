"""The section FOOTPRINT: its bytes, its refusals, and the bound that it gives."""

from __future__ import annotations

import dataclasses

import pytest

from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.format.primitives import Cursor
from seed_runtime.memory.footprint import POINTS_MAX, UNIT, UNITS_MAX, Footprint, ModeFootprint
from seed_runtime.skeletons import ValueInfo

TEXT = Footprint(
    axes=(("ids", 0), ("ids", 1)),
    points=((1, 16), (1, 64), (1, 256), (4, 64)),
    modes=(
        ModeFootprint("fast", 900, 700, (100, 110, 300, 200)),
        ModeFootprint("lean", 200, 1400, (50, 60, 250, 150)),
    ),
)

# Written out by hand from SPEC.md: two axes, four points, two modes. 256 is 80 02, 900 is 84 07, 700 is bc 05,
# 300 is ac 02, 200 is c8 01, 1400 is f8 0a, 250 is fa 01, 150 is 96 01.
TEXT_BYTES = bytes.fromhex(
    "02 03696473 00 03696473 01"
    "04 0110 0140 018002 0440"
    "02 0466617374 8407 bc05 64 6e ac02 c801"
    "   046c65616e c801 f80a 32 3c fa01 9601"
)


def unpack(data: bytes) -> Footprint:
    return Footprint.unpack(Cursor(data, "header, FOOTPRINT"))


def at(batch: int, sequence: int) -> dict[str, int]:
    return {"ids:0": batch, "ids:1": sequence}


def test_spec_vector_reads_and_writes() -> None:
    assert TEXT.pack() == TEXT_BYTES
    assert unpack(TEXT_BYTES) == TEXT


def test_a_model_without_free_dimensions_has_one_empty_point() -> None:
    fixed = Footprint((), ((),), (ModeFootprint("fast", 5, 3, (4,)),))
    assert unpack(fixed.pack()) == fixed
    assert fixed.predict("fast", {}) == 7 * UNIT


def test_a_footprint_cut_at_any_byte_is_refused() -> None:
    for size in range(len(TEXT_BYTES)):
        with pytest.raises(FormatError):
            unpack(TEXT_BYTES[:size])


def test_a_size_may_be_zero() -> None:
    footprint = Footprint((("x", 1),), ((0,), (8,)), (ModeFootprint("lean", 1, 1, (2, 6)),))
    assert unpack(footprint.pack()) == footprint
    assert footprint.predict("lean", {"x:1": 0}) == 3 << 16


def test_free_dimensions_are_those_of_the_skeletons_inputs() -> None:
    for dims in (("batch", "sequence"), (1, 2, 3), None):
        TEXT.check([ValueInfo("mask", 1, ()), ValueInfo("ids", 7, dims)])
    for inputs in ([ValueInfo("mask", 7, (1, 2))], [ValueInfo("ids", 7, (1,))], []):
        with pytest.raises(FormatError, match="no input of the model is 'ids' with an axis"):
            TEXT.check(inputs)


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(FormatError, match="too many"):
        unpack(TEXT_BYTES + b"\0")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("11", "number of free dimensions"),
        ("01 0178 08", "axis"),
        ("00 00", "number of points"),
        ("00 11", "number of points"),
        ("01 0178 00 01 8180808008", "size"),
        ("00 01 00", "number of modes"),
        ("00 01 09", "number of modes"),
        ("00 01 01 0161 81808008", "opening"),
        ("00 01 01 0161 00 81808008", "mapped"),
        ("00 01 01 0161 00 00 81808008", "peak"),
        ("00 02 01 0161 00 00 00 00", "stands twice"),
        ("02 0178 00 0178 00 01 01 01 01 0161 00 00 00", "stands twice"),
        ("00 01 02 0161 00 00 00 0161 00 00 00", "mode stands twice"),
        ("01 0178 00 02 01 02 01 0161 00 00 05 04", "falls"),
    ],
)
def test_lying_fields_are_refused(data: str, problem: str) -> None:
    with pytest.raises((FormatError, LimitError), match=problem):
        unpack(bytes.fromhex(data))


def test_the_writer_refuses_what_the_reader_would() -> None:
    with pytest.raises(ValueError, match="limit"):
        dataclasses.replace(TEXT, modes=(ModeFootprint("fast", UNITS_MAX + 1, 0, (1, 1, 1, 1)),))
    with pytest.raises(ValueError, match="points"):
        Footprint((("x", 0),), tuple((n,) for n in range(1, POINTS_MAX + 2)), TEXT.modes)
    with pytest.raises(ValueError, match="each free dimension"):
        dataclasses.replace(TEXT, axes=(("ids", 0),))


def test_a_measured_size_gets_its_own_peak() -> None:
    assert TEXT.predict("lean", at(1, 256)) == (1400 + 250) * UNIT
    assert TEXT.predict("fast", at(4, 64)) == (700 + 200) * UNIT


def test_opening_is_the_least() -> None:
    assert TEXT.predict("fast", at(1, 1)) == 900 * UNIT


def test_between_two_points_the_bound_lies_on_the_chord() -> None:
    # Half of the way from 64 to 256.
    assert TEXT.predict("lean", at(1, 160)) == (1400 + 155) * UNIT


def test_between_batches_the_dimension_that_is_further_along_decides() -> None:
    # From (1, 16) to (4, 64): two thirds of the way for the batch, none for the sequence.
    # From (1, 64) to (4, 64): two thirds as well, but from a higher place.
    assert TEXT.predict("lean", at(3, 16)) == (1400 + 50 + 67) * UNIT


def test_the_bound_never_falls_when_the_input_grows() -> None:
    sizes = [TEXT.predict("lean", at(1, sequence)) for sequence in range(1, 257)]
    assert sizes == sorted(sizes)


def test_the_bound_holds_for_sums_of_tensor_sizes() -> None:
    def memory(batch: int, sequence: int) -> int:
        return 40 + batch * sequence // 2 + batch * sequence**2 // 64

    points = ((1, 16), (1, 64), (1, 256), (4, 64), (4, 256))
    footprint = Footprint(
        (("ids", 0), ("ids", 1)), points, (ModeFootprint("lean", 0, 0, tuple(memory(*p) + 1 for p in points)),)
    )
    for batch in range(1, 5):
        for sequence in range(1, 257, 5):
            assert footprint.predict("lean", at(batch, sequence)) >= memory(batch, sequence) * UNIT


@pytest.mark.parametrize(("batch", "sequence"), [(1, 257), (5, 16), (4, 65)])
def test_beyond_the_measured_sizes_nothing_is_promised(batch: int, sequence: int) -> None:
    assert not TEXT.covers(at(batch, sequence))
    with pytest.raises(InputError, match=r"memory was measured up to .*axis 1 of 'ids'.*without --max-memory"):
        TEXT.predict("lean", at(batch, sequence))


def test_the_refusal_says_how_a_batch_is_cut_where_that_is_enough() -> None:
    with pytest.raises(
        InputError, match=r"give batches of at most 4 .* calls: \[n, 4, \.\.\.\]\), or run without --max"
    ):
        TEXT.predict("lean", at(5, 16))
    with pytest.raises(InputError, match="give batches of at most 1 "):
        TEXT.predict("lean", at(5, 200))
    with pytest.raises(InputError, match=r"use a smaller input, export .* \(--calib\), or run without"):
        TEXT.predict("lean", at(5, 300))


def test_the_refusal_names_the_largest_size_for_that_batch() -> None:
    with pytest.raises(InputError, match="up to 4 at axis 0 of 'ids', 64 at axis 1"):
        TEXT.predict("lean", at(4, 100))
