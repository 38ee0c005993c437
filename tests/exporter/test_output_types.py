"""Exports of models that answer with text, maps and sequences: compared, sampled, and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from seed_exporter.evaluate.compare import compare, worst_relative
from seed_exporter.evaluate.golden import golden_from_runs
from seed_exporter.report import page, text
from seed_runtime import open as open_seed
from seed_runtime.errors import UnsupportedError
from seed_runtime.golden import ExpectedText
from tests.exporter.support.exporting import quick_export
from tests.support import typed_models

MODELS = [typed_models.labels, typed_models.zipmap, typed_models.sequence, typed_models.optional]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("method", ["grid", "lossless"])
def test_such_a_model_is_exported_and_its_seed_agrees(
    make: Callable[..., onnx.ModelProto], method: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    result = quick_export(make(rng), tmp_path / "m.seed", method=method)
    if method == "lossless":
        assert all(error.identical for error in result.outputs.values())
    json.dumps(result.as_json(), allow_nan=False)
    assert "nan" not in text.summary(result)
    page.write(tmp_path / "report.html", result)
    assert "nan" not in (tmp_path / "report.html").read_text()
    with open_seed(result.path).session() as session:
        verdict = session.verify()
    assert (verdict.present, verdict.ok) == (True, True)


def test_another_label_fails_the_golden_sample(rng: np.random.Generator, tmp_path: Path) -> None:
    original = typed_models.labels(rng)
    result = quick_export(original, tmp_path / "m.seed", method="lossless")
    golden = open_seed(result.path).header.golden
    for attribute in original.graph.node[-1].attribute:
        if attribute.name == "values_strings":
            attribute.strings[:] = [b"cat", b"dog", b"cow"]
    other = quick_export(original, tmp_path / "other.seed", method="lossless")
    with open_seed(other.path).session() as session:
        session._golden = golden
        verdict = session.verify()
    assert (verdict.ok, verdict.output) == (False, "label")


def array(*words: str) -> np.ndarray:
    return np.array(words, object)


def test_texts_are_equal_or_not() -> None:
    calls = [{"s": array("a", "b")}, {"s": array("c", "d")}]
    same = compare(calls, [{"s": array("a", "b")}, {"s": array("c", "d")}])["s"]
    assert (same.relative, same.agreement, same.identical, same.is_text) == (0, 1, True, True)
    other = compare(calls, [{"s": array("a", "b")}, {"s": array("c", "x")}])["s"]
    assert (other.relative, other.agreement, other.identical) == (0.25, 0.75, False)
    assert other.as_json()["cosine"] is None
    assert worst_relative(compare(calls, [{"s": array("a")}, {"s": array("c", "d")}])) == float("inf")


def test_a_sequence_may_have_another_length_in_each_call() -> None:
    one, two = np.ones(2), np.full(2, 2.0)
    calls = [{"q.0": one}, {"q.0": one, "q.1": two}]
    assert worst_relative(compare(calls, calls)) == 0
    assert compare(calls, [{"q.0": one}, {"q.0": one}])["q.1"].relative == float("inf")
    assert compare([{"q.0": one}, {"q.0": one}], calls)["q.1"].relative == float("inf")


def test_text_that_rounding_decides_has_no_place_in_the_sample() -> None:
    made = golden_from_runs([{"s": array("a")}, {"s": array("b")}], (), 1)
    assert made is not None
    assert made.outputs == (None,)
    made = golden_from_runs([{"s": array("a")}] * 2, (), 1)
    assert made is not None
    assert isinstance(made.outputs[0], ExpectedText)
    assert golden_from_runs([{"q.0": np.ones(1)}, {}], (), 1) is None


@pytest.mark.parametrize(("kind", "advice"), [("bfloat16 output", "Cast to float"), ("map input", "DictVectorizer")])
def test_what_no_array_can_be_is_refused(kind: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=advice):
        quick_export(typed_models.refused(kind), tmp_path / "m.seed")
