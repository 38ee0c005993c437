"""The golden sample: bytes by hand, what it refuses, and how near is near enough."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from seed_runtime import generator
from seed_runtime.backends import Feeds, TensorSpec
from seed_runtime.backends.workers import Watch
from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.format.dtypes import BY_NAME, STRING
from seed_runtime.golden import (
    REPLACED_TOLERANCE,
    SUPPLIED,
    Expected,
    Golden,
    Recipe,
    sample,
    sample_text,
    verify,
    with_outputs,
)
from seed_runtime.skeletons import ValueInfo

F32 = BY_NAME["float32"]

# Seed 300; one input of normal numbers, float32 [2, 3], 0 and 1; one of two supplied uint8; one of two texts, "cat" and
# ""; one output of 4 elements,
# tolerance 0.5, norm 5, no outliers, two values: 3 and 4; one that is not compared; one of text, 2 elements.
BY_HAND = (
    bytes.fromhex(
        "ac 02  03  02 01 02 02 03 00 00 00 00 00 00 80 3f  ff 02 01 02 07 09  ff 08 01 02 03 63 61 74 00"
        "03  01 04 00 00 00 3f 00 00 a0 40 00 02 00 00 40 40 00 00 80 40  00  02 02"
    )
    + hashlib.sha256(b"\3cat\0").digest()[:8]
)


class Model:
    """Answers with fixed outputs."""

    def __init__(self, outputs: Mapping[str, np.ndarray], inputs: tuple[TensorSpec, ...] = ()) -> None:
        self.inputs, self.answer, self.fed = inputs, dict(outputs), {}
        self.outputs: tuple[TensorSpec, ...] = ()

    def run(self, feeds: Feeds, *, watch: Watch | None = None) -> dict[str, np.ndarray]:
        self.fed = dict(feeds)
        return self.answer

    def close(self) -> None: ...


def golden(values: list[float], tolerance: float = 0.1, norm: float | None = None, size: int | None = None) -> bytes:
    found = np.array(values, np.float32)
    whole = float(np.linalg.norm(found.astype(np.float64))) if norm is None else norm
    return Golden(0, (), (Expected(size or len(values), tolerance, whole, found),)).pack()


def test_a_sample_written_by_hand_is_read_and_written() -> None:
    read = Golden.unpack(BY_HAND)
    assert read.rng_seed == 300
    assert read.inputs == (
        Recipe(generator.NORMAL, F32, (2, 3)),
        Recipe(SUPPLIED, BY_NAME["uint8"], (2,), data=b"\7\t"),
        Recipe(SUPPLIED, STRING, (2,), data=b"\3cat\0"),
    )
    assert read.inputs[2].array(0).tolist() == ["cat", ""]
    output, not_compared, text = read.outputs
    assert isinstance(output, Expected)
    assert not_compared is None
    assert (output.size, output.tolerance, output.norm, output.outliers) == (4, 0.5, 5.0, 0)
    assert output.values.tolist() == [3.0, 4.0]
    assert text == sample_text(np.array(["cat", ""], object))
    assert read.pack() == BY_HAND


def test_an_output_that_is_not_compared_may_be_anything() -> None:
    section = Golden(0, (), (None, Expected(1, 0.5, 2.0, np.array([2], np.float32)))).pack()
    for noise in (np.zeros(3, np.float32), np.full((2, 2), np.nan, np.float32)):
        assert verify(section, Model({"noise": noise, "y": np.array([2], np.float32)})).ok
        assert not verify(section, Model({"noise": noise, "y": np.array([3], np.float32)})).ok
    with pytest.raises(FormatError, match="it has 2 outputs, the model 1"):
        verify(section, Model({"y": np.array([2], np.float32)}))


def test_an_input_may_be_empty() -> None:
    recipes = (Recipe(generator.NORMAL, F32, (1, 0, 4)), Recipe(SUPPLIED, F32, (0,)), Recipe(generator.ZEROS, F32, ()))
    read = Golden.unpack(Golden(0, recipes, ()).pack())
    specs = tuple(
        TensorSpec(name, "float32", ("n",) * len(each.dims)) for name, each in zip("abc", recipes, strict=True)
    )
    feeds = read.feeds(specs)
    assert [array.shape for array in feeds.values()] == [(1, 0, 4), (0,), ()]
    assert {name: array.shape for name, array in read.shapes(specs).items()} == {
        name: array.shape for name, array in feeds.items()
    }


def test_dimensions_beside_an_empty_one_have_the_limit_of_all() -> None:
    with pytest.raises(LimitError, match="elements of an input"):
        Golden.unpack(Golden(0, (Recipe(generator.ZEROS, F32, (0, *[1 << 22] * 2)),), ()).pack())


def test_a_sample_cut_at_any_byte_is_refused() -> None:
    for size in range(len(BY_HAND)):
        with pytest.raises(FormatError):
            Golden.unpack(BY_HAND[:size])
    with pytest.raises(FormatError, match="too many"):
        Golden.unpack(BY_HAND + b"\0")


def test_each_input_draws_with_a_seed_of_its_own() -> None:
    recipe = Recipe(generator.NORMAL, F32, (4,))
    specs = (TensorSpec("x", "float32", (4,)), TensorSpec("y", "float32", (4,)))
    feeds = Golden(7, (recipe, recipe), ()).feeds(specs)
    assert feeds["x"].tolist() == generator.normal(7, 0, 4, 0.0, 1.0).tolist()
    assert feeds["y"].tolist() == generator.normal(8, 0, 4, 0.0, 1.0).tolist()
    with pytest.raises(FormatError, match="2 inputs, the model 1"):
        Golden(7, (recipe, recipe), ()).feeds(specs[:1])


@pytest.mark.parametrize(
    ("recipe", "dtype", "values"),
    [
        (Recipe(SUPPLIED, BY_NAME["int16"], (2,), data=b"\1\0\xff\xff"), np.int16, [1, -1]),
        (Recipe(SUPPLIED, BY_NAME["bool"], (3,), data=b"\0\1\2"), np.bool_, [False, True, True]),
        (Recipe(generator.ZEROS, BY_NAME["int64"], (3,)), np.int64, [0, 0, 0]),
        (Recipe(generator.INTEGERS, BY_NAME["uint8"], (2,), 7, 8), np.uint8, [7, 7]),
        (Recipe(generator.ZEROS, BY_NAME["float16"], (1, 1)), np.float16, [[0]]),
    ],
)
def test_a_recipe_makes_an_array_of_its_type(recipe: Recipe, dtype: type, values: list[object]) -> None:
    array = recipe.array(0)
    assert array.dtype == dtype
    assert array.tolist() == values


def test_booleans_are_what_is_not_zero() -> None:
    array = Recipe(generator.INTEGERS, BY_NAME["bool"], (64,), 0, 2).array(3)
    assert array.tolist() == [bool(value) for value in generator.integers(3, 0, 64, 0, 2)]
    assert set(array.tolist()) == {True, False}


@pytest.mark.parametrize(
    ("kind", "dtype", "a", "b"),
    [
        (generator.NORMAL, "int32", 0, 1),
        (generator.NORMAL, "bfloat16", 0, 1),
        (generator.UNIFORM, "bool", 0, 1),
        (generator.UNIFORM, "float32", 1, 1),
        (generator.UNIFORM, "float32", 0, float("nan")),
        (generator.INTEGERS, "float32", 0, 2),
        (generator.INTEGERS, "uint8", 0, 257),
        (generator.INTEGERS, "int8", -129, 0),
        (generator.INTEGERS, "int64", 0.5, 2),
        (generator.INTEGERS, "int64", 2, 2),
        (generator.ZEROS, "float32", float("inf"), 0),
    ],
)
def test_inputs_that_machines_would_make_differently_are_refused(kind: int, dtype: str, a: float, b: float) -> None:
    section = Golden(0, (Recipe(kind, BY_NAME[dtype], (2,), a, b),), ()).pack()
    with pytest.raises(FormatError, match="can't be made"):
        Golden.unpack(section)


@pytest.mark.parametrize(("dtype", "high"), [("uint8", 256), ("int8", 128), ("int64", 50257), ("bool", 2)])
def test_integers_up_to_the_end_of_their_type_are_made(dtype: str, high: int) -> None:
    section = Golden(0, (Recipe(generator.INTEGERS, BY_NAME[dtype], (2,), 0, high),), ()).pack()
    assert Golden.unpack(section).inputs[0].array(0).dtype == BY_NAME[dtype].storage or dtype == "bool"


def test_the_inputs_of_a_sample_are_bounded_together() -> None:
    recipe = Recipe(generator.ZEROS, F32, (1 << 11, 1 << 10))
    assert Golden.unpack(Golden(0, (recipe, recipe), ()).pack()).inputs == (replace(recipe, a=0.0),) * 2
    with pytest.raises(LimitError, match="all inputs"):
        Golden.unpack(Golden(0, (recipe, recipe, recipe), ()).pack())


def test_values_stand_at_even_places() -> None:
    found = sample(np.arange(10).reshape(2, 5), 4)
    assert found.values.tolist() == [0, 2, 5, 7]
    assert found.norm == pytest.approx(285**0.5)
    assert sample(np.arange(3), 64).values.tolist() == [0, 1, 2]
    assert sample(np.empty((0, 3)), 4).values.tolist() == []


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        ([3, 4], True),
        ([3.09, 4], True),
        ([3.11, 4], False),
        ([4, 3], False),
        ([3, 4, 0], False),
        ([[3], [4]], True),
        ([3, float("nan")], False),
        ([float("inf"), 4], False),
    ],
)
def test_an_output_is_compared_within_its_tolerance(answer: list[float], ok: bool) -> None:
    verdict = verify(golden([3, 4]), Model({"y": np.array(answer, np.float32)}))
    assert (verdict.present, verdict.ok) == (True, ok)
    assert verdict.output == ("" if verdict.worst == 0 else "y")


def test_the_norm_covers_the_values_that_are_not_stored() -> None:
    section = golden([3], norm=5.0, size=4)
    assert verify(section, Model({"y": np.array([3, 4, 0, 0], np.float32)})).ok
    assert verify(section, Model({"y": np.array([3, 4.1, 0, 0], np.float32)})).ok
    assert not verify(section, Model({"y": np.array([3, 9, 0, 0], np.float32)})).ok


def test_what_is_not_a_number_must_be_so_again() -> None:
    nan, inf = float("nan"), float("inf")
    section = Golden(0, (), (sample(np.array([nan, inf, -inf]), 3, 0.1),)).pack()
    assert verify(section, Model({"y": np.array([nan, inf, -inf], np.float32)})).ok
    assert not verify(section, Model({"y": np.array([nan, inf, inf], np.float32)})).ok
    assert not verify(section, Model({"y": np.array([0, inf, -inf], np.float32)})).ok


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    "output",
    [
        np.array([LOWEST] * 40 + [1, 2], np.float32),
        np.array([-LOWEST, LOWEST, LOWEST, 0.5], np.float32),
        np.array([-np.inf, LOWEST, LOWEST, np.inf, np.nan, 1], np.float32),
        np.array([np.nan, np.nan], np.float32),
        np.array([1e300, -1e300, 1e308, 1e-300, 2.0]),
        np.array([65504, -65504, np.inf, 0.1], np.float16),
        np.array([-(1 << 63), (1 << 63) - 1, 5]),
        np.array([1e-45, -1e-45], np.float32),
        np.zeros((0, 4), np.float32),
        np.zeros(3, np.float32),
        np.array(LOWEST, np.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("tolerance", [0, 1e-5])
def test_the_same_bits_agree_exactly_whatever_they_are(output: np.ndarray, tolerance: float) -> None:
    section = Golden(0, (), (sample(output, 8, tolerance),)).pack()
    verdict = verify(section, Model({"y": output.copy()}))
    assert (verdict.ok, verdict.worst) == (True, 0)


def test_masks_of_the_lowest_float_hide_no_damage() -> None:
    output = np.where(np.arange(400) % 2 == 0, np.linspace(-1, 1, 400), LOWEST).astype(np.float32)
    section = Golden(0, (), (sample(output, 4, 1e-5),)).pack()
    for place, value in ((0, -1.001), (2, 3), (2, np.nan), (2, LOWEST), (3, 0), (3, 1)):
        damaged = output.copy()
        damaged[place] = value
        assert not verify(section, Model({"y": damaged})).ok, (place, value)


def test_a_large_value_may_differ_by_the_rounding_of_float32() -> None:
    section = golden([-1e9, 1], tolerance=1e-5)
    assert verify(section, Model({"y": np.array([-1e9 - 64, 1], np.float32)})).ok
    assert not verify(section, Model({"y": np.array([-1e9 - 2048, 1], np.float32)})).ok
    assert not verify(section, Model({"y": np.array([-1e9, 1.1], np.float32)})).ok


def test_an_exact_sample_has_a_tolerance_of_zero() -> None:
    section = golden([3, 4], tolerance=0)
    assert verify(section, Model({"y": np.array([3, 4], np.int64)})).ok
    assert not verify(section, Model({"y": np.array([3, 5], np.int64)})).ok


def test_text_is_compared_as_a_whole() -> None:
    output = np.array([["cat", "dög\n"]], object)
    section = Golden(0, (), (sample_text(output),)).pack()
    assert verify(section, Model({"y": output})).ok
    for other in (np.array([["cat", "dog"]], object), np.array([["catd", "ög\n"]], object), np.array([1.0, 2.0])):
        assert not verify(section, Model({"y": other})).ok


@pytest.mark.parametrize("text", [b"\1\n", b"\2\xc3\x28", b"\xff"])
def test_a_text_that_no_terminal_takes_or_that_is_cut_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        Golden.unpack(Golden(0, (Recipe(SUPPLIED, STRING, (1,), data=text),), ()).pack())


def test_more_texts_than_there_are_bytes_are_refused_before_they_take_memory() -> None:
    with pytest.raises(FormatError, match="past the end"):
        Golden.unpack(Golden(0, (Recipe(SUPPLIED, STRING, (1 << 22,), data=b"\0" * 9),), ()).pack())


def test_texts_are_supplied_and_never_generated() -> None:
    with pytest.raises(FormatError, match="unknown"):
        Golden.unpack(Golden(0, (Recipe(generator.ZEROS, STRING, (1,)),), ()).pack())


def test_more_outliers_than_elements_are_damage() -> None:
    with pytest.raises(FormatError, match="outliers"):
        Golden.unpack(Golden(0, (), (Expected(1, 0.0, 0.0, np.zeros(0, np.float32), 2),)).pack())


def test_a_sequence_of_another_length_is_no_damage_but_another_output() -> None:
    model = Model({"q.0": np.ones(1), "q.1": np.ones(1)})
    model.outputs = (TensorSpec("q.*", "float64", (1,)),)
    verdict = verify(Golden(0, (), (sample(np.ones(1), 1),)).pack(), model)
    assert (verdict.ok, verdict.output) == (False, "q.*")
    assert "output 'q.*' of the golden sample is another one; update" in verdict.problem


def test_outputs_that_are_not_compared_are_named() -> None:
    section = Golden(0, (), (None, sample(np.ones(2), 1))).pack()
    verdict = verify(section, Model({"z": np.zeros(2), "y": np.ones(2)}))
    assert (verdict.present, verdict.ok, verdict.skipped) == (True, True, ("z",))
    alone = verify(Golden(0, (), (None,)).pack(), Model({"z": np.zeros(2)}))
    assert (alone.present, alone.ok, alone.skipped) == (False, True, ("z",))


def test_an_output_that_is_no_number_is_not_what_was_expected() -> None:
    assert not verify(golden([3, 4]), Model({"y": np.array(["a", "b"], object)})).ok


def test_a_seed_without_a_sample_has_nothing_to_fail() -> None:
    verdict = verify(None, Model({}))
    assert (verdict.present, verdict.ok) == (False, True)


def test_a_sample_of_another_model_is_damage() -> None:
    with pytest.raises(FormatError, match="1 outputs, the model 2"):
        verify(golden([3, 4]), Model({"y": np.zeros(2), "z": np.zeros(2)}))

    class Picky(Model):
        def run(self, feeds: Feeds, *, watch: Watch | None = None) -> dict[str, np.ndarray]:
            raise InputError("the model expects something else")

    with pytest.raises(FormatError, match="not the model's"):
        verify(golden([3, 4]), Picky({}))


@pytest.mark.parametrize(
    ("dims", "elem_type", "fits"),
    [
        ((2, 3), 1, True),
        (("n", 3), 1, True),
        ((None, None), 1, True),
        (None, 1, True),
        ((2, 4), 1, False),
        ((2, 3, 1), 1, False),
        ((2,), 1, False),
        ((2, 3), 11, False),
        (None, None, False),
    ],
)
def test_inputs_are_those_of_the_skeleton(
    dims: tuple[int | str | None, ...] | None, elem_type: int | None, fits: bool
) -> None:
    sample_of_one = Golden(0, (Recipe(generator.NORMAL, F32, (2, 3)),), ())
    value = ValueInfo("x", elem_type, dims)
    with contextlib.nullcontext() if fits else pytest.raises(FormatError, match="'x' differs"):
        sample_of_one.check([value])
    for inputs in ([], [ValueInfo("x", 1, (2, 3))] * 2):
        with pytest.raises(FormatError, match=f"it has 1 inputs, the model {len(inputs)}"):
            sample_of_one.check(inputs)


def test_tolerances_of_other_weights_follow_what_these_give() -> None:
    before = Golden(0, (), (sample(np.zeros(4, np.float32), 4), sample(np.zeros(4, np.int64), 4)))
    found = with_outputs(before, [np.full(4, 3, np.float32), np.full(4, 3)])
    assert found is not None
    tolerances = [each.tolerance for each in found.outputs if isinstance(each, Expected)]
    assert tolerances == [pytest.approx(3 * REPLACED_TOLERANCE), 0]
    grown = with_outputs(replace(before, outputs=(Expected(4, 0.5, 2.0, np.ones(4, np.float32)),)), [np.full(4, 3.0)])
    assert grown is not None
    assert [each.tolerance for each in grown.outputs if isinstance(each, Expected)] == [1.5]
