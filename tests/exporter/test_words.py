"""Inputs of text: drawn from the words that a model knows, and carried by the golden sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seed_exporter import loaders
from seed_exporter.evaluate.words import recipe_of_texts, supplied, words_of
from seed_runtime import open as open_seed
from seed_runtime.golden import Golden
from seed_runtime.limits import STRING_MAX
from tests.exporter.support.exporting import quick_export
from tests.support import typed_models
from tests.support.typed_models import WORDS


def bag_of_words(*words: str, column: bool = False) -> onnx.ModelProto:
    """Return a model that counts words, as scikit-learn's CountVectorizer is converted."""
    counts = {"ngram_counts": [0], "ngram_indexes": list(range(len(words))), "pool_strings": words}
    lengths = {"max_gram_length": 1, "min_gram_length": 1, "max_skip_count": 0, "mode": "TF"}
    node = helper.make_node("TfIdfVectorizer", ["s"], ["y"], **counts, **lengths)
    shape = [None, 1] if column else [None]
    inputs = [helper.make_tensor_value_info("s", TensorProto.STRING, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "make", [typed_models.text, lambda rng: bag_of_words("red", "fish"), lambda rng: bag_of_words("a", column=True)]
)
def test_a_model_of_text_is_exported_with_a_sample_of_its_words(make, rng: np.random.Generator, tmp_path: Path) -> None:
    result = quick_export(make(rng), tmp_path / "m.seed", method="lossless")
    assert result.outputs["y"].identical
    seed = open_seed(result.path)
    assert seed.header.golden is not None
    with seed.session() as session:
        verdict = session.verify()
    assert (verdict.present, verdict.ok) == (True, True)


def test_words_come_from_the_models_own_vocabulary(rng: np.random.Generator, tmp_path: Path) -> None:
    result = quick_export(typed_models.text(rng), tmp_path / "m.seed")
    texts = Golden.unpack(open_seed(result.path).header.golden or b"").inputs[0].array(0)
    assert set(texts.tolist()) <= set(WORDS)


def test_each_random_state_draws_others_and_the_same_again(rng: np.random.Generator) -> None:
    recipe = words_of(loaders.load(bag_of_words(*(f"w{index}" for index in range(50)))))
    drawn = [replace(recipe, dims=(8,)).array(seed).tolist() for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_model_that_splits_text_gets_sentences(tmp_path: Path) -> None:
    model = bag_of_words("red", "fish")
    split = {"mark": 0, "mincharnum": 1, "pad_value": "#", "separators": [" "]}
    model.graph.node[0].input[0] = "k"
    model.graph.node.insert(0, helper.make_node("Tokenizer", ["s"], ["k"], domain="com.microsoft", **split))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    result = quick_export(model, tmp_path / "m.seed")
    assert result.outputs["y"].identical
    texts = Golden.unpack(open_seed(result.path).header.golden or b"").inputs[0].array(0)
    assert all(len(text.split()) > 1 for text in texts)


def test_words_that_no_sample_can_carry_are_left_out() -> None:
    words = words_of(loaders.load(bag_of_words("fine", "x" * 300, "a\x1b[31m", "")))
    assert words.words == ("fine",)
    assert len(words_of(loaders.load(bag_of_words("x" * 300))).words) > 1


def test_real_texts_are_compared_on_and_cut_only_in_the_sample(rng: np.random.Generator, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", s=np.array([["dog", "x\ny" * 400], ["cat", ""]]))
    result = quick_export(typed_models.text(rng), tmp_path / "m.seed", calib=tmp_path / "calib.npz")
    assert result.inputs == "real"
    assert open_seed(result.path).header.golden is not None
    recipe = recipe_of_texts(np.array(["ü" * 200, "x\ny"]))
    assert recipe.array(0).tolist() == ["ü" * (STRING_MAX // 2), "x y"]
    assert supplied([recipe], 1) == (recipe,)
