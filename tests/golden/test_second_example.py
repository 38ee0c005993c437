"""The second worked example of SPEC.md: its listing, its golden file, and what both decoders make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import seed_runtime
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE
from tests.golden import plain
from tests.support import second_example, spec_fields

SECOND = Path(__file__).with_name("second.seed")


def test_the_second_example_of_the_specification_is_the_golden_file() -> None:
    data, _ = spec_fields.example("second")
    assert data == SECOND.read_bytes() == second_example.seed()
    assert spec_fields.listing("second") == second_example.listing()


def test_both_decoders_decode_it_to_the_weights_stated_there(tmp_path: Path) -> None:
    _, tensors = spec_fields.example("second")
    product = [value for row in second_example.PRODUCT for value in row]
    assert tensors == {"first": second_example.FIRST, "second": second_example.SECOND, "product": product}
    skeleton, weights = plain.decode(SECOND.read_bytes())
    assert weights == second_example.weights()
    assert skeleton == second_example.skeleton()
    folder = seed_runtime.open(SECOND).assemble(tmp_path / "model")
    assert (folder / WEIGHTS_FILE).read_bytes() == weights
    assert (folder / MODEL_FILE).read_bytes() == skeleton


def test_it_runs(tmp_path: Path) -> None:
    x = np.array([[1, 2, 3], [-1, 0, 4]], np.float32)
    with seed_runtime.open(SECOND).session(cache=ModelCache(tmp_path, 1 << 30)) as session:
        y = session.run({"x": x})["y"]
        assert not session.verify().present
    vectors = [np.array(values, np.float32) for values in (second_example.FIRST, second_example.SECOND)]
    assert np.allclose(y, x @ np.array(second_example.PRODUCT, np.float32) + vectors[0] + vectors[1], atol=1e-5)
