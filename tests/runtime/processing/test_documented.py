"""The examples of docs/processing.md, each on a small model with the tensors that it names."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import seed_runtime
from seed_runtime.processing.registry import INPUTS, OUTPUTS
from tests.support.described_models import described
from tests.support.model_seeds import onnx_model
from tests.support.tokenizers_by_hand import json_of, word_piece

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "processing.md").read_text()
EXAMPLES = dict(re.findall(r"^```json (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))

TENSORS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, int]]] = {
    "classifier": ({"image": ["n", 3, 224, 224]}, {"logits": ["n", 10]}, {}),
    "sentences": (
        {name: ["n", "length"] for name in ("input_ids", "attention_mask", "token_type_ids")},
        {"last_hidden_state": ["n", "length", 8]},
        dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), TensorProto.INT64),
    ),
    "line": ({"x": ["n", 3, "height", "width"]}, {"softmax_11.tmp_0": ["n", "columns", 4]}, {}),
    "speech": (
        {"input": ["n", "samples"], "state": [2, "n", 128], "sr": []},
        {"output": ["n", 1], "stateN": [2, "n", 128]},
        {"sr": TensorProto.INT64},
    ),
    "music": ({"audio": ["n", 43844, 1]}, {"note": ["n", 172, 88], "onset": ["n", 172, 88]}, {}),
    "types": ({"bytes": ["n", 2048]}, {"target_label": ["n", 214]}, {"bytes": TensorProto.INT32}),
    "page": ({"x": ["n", 3, "height", "width"]}, {"sigmoid_0.tmp_0": ["n", 1, "height", "width"]}, {}),
    "detector": ({"images": [1, 3, 640, 640]}, {"output0": [1, 84, 8400]}, {}),
}


def model_of(name: str) -> onnx.ModelProto:
    """Return a model with these inputs and outputs; it is never run."""
    inputs, outputs, codes = TENSORS[name]
    nodes = [helper.make_node("Identity", ["w"], [output]) for output in outputs]
    model = onnx_model(nodes, inputs, outputs, {"w": np.ones(1)}, codes)
    if name == "line":
        helper.set_model_props(model, {"character": "a\nb"})
    return model


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_page_is_accepted(name: str) -> None:
    files = {"labels": b"a", "names": b"a", "tokenizer": json_of(word_piece())}
    text = EXAMPLES[name].replace("tokenizer.json", "tokenizer.txt")
    seed = seed_runtime.open(io.BytesIO(described(model_of(name), json.loads(text), **files)))
    assert seed.processing() is not None


def test_the_page_has_all_examples_and_all_kinds() -> None:
    assert EXAMPLES.keys() == TENSORS.keys()
    assert set(re.findall(r"^\*\*`(\w+)`\*\*", PAGE, re.MULTILINE)) == INPUTS.keys() | OUTPUTS.keys()
