"""Descriptions of processing: what they may say, and how hostile ones are refused."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

import seed_runtime
from seed_runtime.errors import FormatError, LimitError, SeedError, UnsupportedError
from seed_runtime.processing import Processing
from tests.support import spec_fields
from tests.support.described_models import color_description, color_model, color_seed, described

LABELS = b"red\ngreen\nblue"


def opened(description: Any, labels: bytes = LABELS) -> Processing:
    seed = seed_runtime.open(io.BytesIO(described(color_model(), description, labels=labels)))
    found = seed.processing()
    assert found is not None
    return found


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    description = copy.deepcopy(color_description())
    change(description)
    return description


def image(**fields: Any) -> dict[str, Any]:
    return color_description(**fields)


def labels(**fields: Any) -> dict[str, Any]:
    return changed(lambda description: description["outputs"][0].update(fields))


def test_a_description_names_what_fills_inputs_and_what_reads_outputs() -> None:
    found = opened(color_description())
    assert [(step.kind, step.fills) for step in found.inputs] == [("image", {"pixels": "image"})]
    assert [(step.kind, step.reads) for step in found.outputs] == [("labels", {"scores": "scores"})]
    assert (found.media, found.attachments) == (("picture",), {"labels.txt": len(LABELS)})


def test_a_seed_without_the_part_has_no_processing() -> None:
    from tests.support.model_seeds import classifier

    assert seed_runtime.open(io.BytesIO(classifier())).processing() is None


def test_of_a_pipe_processing_is_read_before_the_weights() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    seed = seed_runtime.open(Pipe(color_seed()))
    assert seed.processing() is not None
    seed.check()


RULES: list[tuple[str, Any, type[SeedError], str]] = [
    ("names", b'{"inputs":[],"inputs":[]}', FormatError, "a name stands twice"),
    ("names", changed(lambda each: each.update(loops=[])), UnsupportedError, "the field 'loops' is unknown"),
    ("names", image(sharpen=1), UnsupportedError, "the field 'sharpen' is unknown"),
    ("names", image(resize="seam"), UnsupportedError, "resize 'seam' is unknown"),
    ("names", image(kind="smell"), UnsupportedError, "a step of kind 'smell' is unknown"),
    ("names", labels(kind="taste"), UnsupportedError, "a step of kind 'taste' is unknown"),
    ("names", labels(activation="tanh"), UnsupportedError, "activation 'tanh' is unknown"),
    ("names", image(fills={"pixels": "image", "depth": "image"}), UnsupportedError, "the field 'depth' is unknown"),
    ("values", b'{"inputs":[{"kind":NaN}]}', FormatError, "NaN is no JSON"),
    ("values", image(size=[1 << 14, 4]), LimitError, "16,384 exceeds the limit of 8,192"),
    ("values", image(size=[8192, 8192]), LimitError, "pixels: 67,108,864 exceeds the limit of 16,777,216"),
    ("values", image(size=[0, 4]), FormatError, "'size' is 0, at least 1 is needed"),
    ("values", image(size=[10**400, 4]), LimitError, "exceeds the limit of 8,192"),
    ("values", image(size=[4]), FormatError, "'size' has 1 elements, at least 2"),
    ("values", image(size="all"), FormatError, "'size' is a text, a list is needed"),
    ("values", image(size=[4.5, 4]), FormatError, "a number, an integer is needed"),
    ("values", image(mean=[1, 2]), FormatError, "'mean' has 2 numbers for 3 channels"),
    ("values", image(scale=[0]), FormatError, "'scale' is 0"),
    ("values", image(scale=["x"]), FormatError, "a text, a finite number is needed"),
    ("values", image(pad=1e300), FormatError, "a finite number is needed"),
    ("values", image(centered=1), FormatError, "true or false is needed"),
    ("values", image(kind=7), FormatError, "'kind' is no printable text"),
    ("values", image(kind="\ud800"), FormatError, "'kind' is no printable text"),
    ("values", labels(top=1 << 20), LimitError, "exceeds the limit of 262,144"),
    ("values", image(shortest=2), FormatError, "'shortest' is for a crop"),
    ("inputs", changed(lambda each: each.update(inputs=[])), FormatError, "no step fills input 'image'"),
    ("inputs", changed(lambda each: each["inputs"].append(each["inputs"][0])), FormatError, "is filled twice"),
    ("inputs", changed(lambda each: each.update(inputs=each["inputs"] * 17)), LimitError, "exceeds the limit of 16"),
    ("inputs", changed(lambda each: each["inputs"][0].pop("kind")), FormatError, "the field 'kind' is missing"),
    ("inputs", changed(lambda each: each.update(inputs=[7])), FormatError, "it is a number, an object is needed"),
    ("outputs", changed(lambda each: each.update(outputs={})), FormatError, "'outputs' is an object, a list"),
    ("outputs", changed(lambda each: each["outputs"][0].pop("reads")), FormatError, "the field 'reads' is missing"),
    ("state", changed(lambda each: each.update(state={"h": "scores"})), FormatError, "the model has no input 'h'"),
    ("state", changed(lambda each: each.update(state={"image": "scores"})), FormatError, "filled twice"),
    ("about", changed(lambda each: each.update(about={"license": 7})), FormatError, "'license' is no printable text"),
    ("about", changed(lambda each: each.update(about="MIT")), FormatError, "it is a text, an object is needed"),
    # What else it may not say: test_generation.py.
    ("writes", changed(lambda each: each.update(generation={})), FormatError, "has no inputs, outputs or state beside"),
    ("writes", {"generation": {"fills": {"ids": "x"}}}, FormatError, "the field 'reads' is missing"),
    ("tensors", image(fills={"pixels": "pixels"}), FormatError, "the model has no input 'pixels'"),
    ("tensors", labels(reads={"scores": "logits"}), FormatError, "the model has no output 'logits'"),
    (
        "tensors",
        image(size=[5, 4]),
        FormatError,
        "it makes [1, 3, 5, 4], and the model takes image: float32[",
    ),
    ("tensors", image(channels="L"), FormatError, "it makes [1, 1, 4, 4]"),
    ("files", labels(labels="names.txt"), FormatError, "no attachment is called 'names.txt'"),
    ("files", labels(labels="metadata:names"), FormatError, "the model's metadata has no 'names'"),
]


@pytest.mark.parametrize(("rule", "description", "error", "problem"), RULES)
def test_a_description_that_breaks_a_rule_is_refused(
    rule: str, description: Any, error: type[SeedError], problem: str
) -> None:
    with pytest.raises(error) as refused:
        opened(description)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_rule_of_the_specification_has_an_attack() -> None:
    assert {rule for rule, *_ in RULES} == set(spec_fields.rules("processing"))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b"\xff", b"[" * 60000, b'{"inputs":' * 6000, b'{"a":' + b"9" * 60000 + b"}", b"null", b"{}x"],
    ids=range(9),
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        opened(data)


def test_labels_that_are_no_text_or_too_many_are_refused() -> None:
    with pytest.raises(FormatError, match="is not UTF-8"):
        opened(color_description(), b"\xff")
    with pytest.raises(LimitError, match=r"lines of labels.txt: 262,146 exceeds the limit of 262,144"):
        opened(color_description(), b"\n" * ((1 << 18) + 1))


def test_a_part_that_is_too_large_is_refused_before_it_is_unpacked() -> None:
    data = described(color_model(), json.dumps(color_description()).encode(), labels=bytes(16 << 20))
    with pytest.raises(LimitError, match="processing: 16,777"):
        seed_runtime.open(io.BytesIO(data)).processing()
