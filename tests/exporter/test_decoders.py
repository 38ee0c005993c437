"""Text decoders with a cache of keys, whose first call has a past of length 0: from the model to the running seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_runtime
from seed_exporter.evaluate import model_files
from seed_exporter.evaluate.footprint import measure
from seed_exporter.loaders import load
from seed_runtime.errors import InputError
from tests.exporter.support.exporting import of_nodes, quick_export


def decoder(rng: np.random.Generator, total: str | None, past: str | None = "past_length") -> onnx.ModelProto:
    """Embedding, two layers with a past that is masked, and logits. All of the mask is needed: past and new tokens."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e0"]),
        helper.make_node("Cast", ["attention_mask"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last"], ["mask"]),
    ]
    for layer in range(2):
        nodes += [
            helper.make_node("Concat", [f"past.{layer}", f"e{layer}"], [f"present.{layer}"], axis=1),
            helper.make_node("Shape", [f"present.{layer}"], [f"shape{layer}"]),
            # Not broadcast: a mask of length 1 is refused.
            helper.make_node("Expand", ["mask", f"shape{layer}"], [f"wide{layer}"]),
            helper.make_node("Concat", [f"wide{layer}", f"present.{layer}"], [f"both{layer}"], axis=2),
            helper.make_node("MatMul", [f"both{layer}", f"w{layer}"], [f"k{layer}"]),
            helper.make_node("ReduceMean", [f"k{layer}"], [f"m{layer}"], axes=[1]),
            helper.make_node("Add", [f"e{layer}", f"m{layer}"], [f"e{layer + 1}"]),
        ]
    weights = {"table": (100, 16), "w0": (32, 16), "w1": (32, 16)}
    ints, floats = TensorProto.INT64, TensorProto.FLOAT
    info = helper.make_tensor_value_info
    return of_nodes(
        nodes,
        [
            *(
                numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n)
                for n, shape in weights.items()
            ),
            numpy_helper.from_array(np.array([2]), "last"),
        ],
        [
            info("ids", ints, ["batch_size", "sequence_length"]),
            info("attention_mask", ints, ["batch_size", total]),
            *(info(f"past.{layer}", floats, ["batch_size", past, 16]) for layer in range(2)),
        ],
        [
            info("e2", floats, ["batch_size", "sequence_length", 16]),
            *(info(f"present.{layer}", floats, None) for layer in range(2)),
        ],
    )


def feeds(new: int, past: int) -> dict[str, np.ndarray]:
    values = np.zeros((1, past, 16), np.float32)
    return {
        "ids": np.arange(new)[None],
        "attention_mask": np.ones((1, new + past), np.int64),
        "past.0": values,
        "past.1": values,
    }


@pytest.mark.parametrize(
    ("total", "past"),
    [
        ("past_length + sequence_length", "past_length"),
        ("past_length + 1", "past_length"),
        ("total_length", None),
        (None, None),
    ],
)
def test_a_decoder_exports_without_data_and_runs_with_an_empty_past(
    rng: np.random.Generator, total: str | None, past: str | None, tmp_path: Path
) -> None:
    output = tmp_path / "m.seed"
    result = quick_export(decoder(rng, total, past), output)
    assert result.inputs == "generated"
    assert max(error.relative for error in result.outputs.values()) < 0.1
    with seed_runtime.open(output).session() as session:
        assert session.verify().present
        assert session.verify().ok
        first = session.run(feeds(4, 0))
        assert first["present.1"].shape == (1, 4, 16)
        assert session.run(feeds(1, 4))["present.1"].shape == (1, 5, 16)


def test_calls_with_an_empty_past_may_be_the_data(rng: np.random.Generator, tmp_path: Path) -> None:
    np.savez(tmp_path / "first.npz", **feeds(4, 0))  # type: ignore[arg-type]
    result = quick_export(decoder(rng, "past_length + 1"), tmp_path / "m.seed", calib=tmp_path / "first.npz")
    assert result.inputs == "real"
    with seed_runtime.open(tmp_path / "m.seed").session() as session:
        assert session.verify().ok


def test_a_sum_that_the_feeds_do_not_fulfil_explains_a_failed_run(rng: np.random.Generator, tmp_path: Path) -> None:
    quick_export(decoder(rng, "past_length + sequence_length"), tmp_path / "m.seed")
    wrong: dict[str, Any] = feeds(4, 3) | {"attention_mask": np.ones((1, 5), np.int64)}
    with (
        seed_runtime.open(tmp_path / "m.seed").session() as session,
        pytest.raises(
            InputError, match=r"'past_length [+] sequence_length' at axis 1 of 'attention_mask' is 5, .* it 7"
        ),
    ):
        session.run(wrong)


def test_a_merged_decoder_runs_both_of_its_branches(rng: np.random.Generator, tmp_path: Path) -> None:
    info, floats = helper.make_tensor_value_info, TensorProto.FLOAT
    with_past = helper.make_graph(
        [helper.make_node("Concat", ["past", "e"], ["p"], axis=1)], "with", [], [info("p", floats, None)]
    )
    without = helper.make_graph([helper.make_node("Identity", ["e"], ["q"])], "without", [], [info("q", floats, None)])
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Squeeze", ["use_cache_branch"], ["use"]),
        helper.make_node("If", ["use"], ["present"], then_branch=with_past, else_branch=without),
        helper.make_node("ReduceSum", ["present", "one"], ["s"], keepdims=1),
        helper.make_node("Add", ["e", "s"], ["y"]),
    ]
    table = rng.standard_normal((100, 16)).astype(np.float32)
    model = of_nodes(
        nodes,
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "one")],
        [
            info("ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            info("past", floats, ["batch_size", "past_length", 16]),
            info("use_cache_branch", TensorProto.BOOL, [1]),
        ],
        [info("y", floats, None), info("present", floats, None)],
    )
    quick_export(model, tmp_path / "m.seed")
    with seed_runtime.open(tmp_path / "m.seed").session() as session:
        assert session.verify().ok
        for use, past, total in ((False, 0, 3), (True, 2, 5)):
            feed = {
                "ids": np.arange(3)[None],
                "past": np.zeros((1, past, 16), np.float32),
                "use_cache_branch": np.array([use]),
            }
            assert session.run(feed)["present"].shape == (1, total, 16)


@pytest.mark.slow
@pytest.mark.usefixtures("all_sizes_measured")
def test_memory_is_measured_at_sizes_that_belong_together(rng: np.random.Generator, tmp_path: Path) -> None:
    model_files.write_model_files(load(decoder(rng, "past_length + 1")), tmp_path)
    measured = measure(tmp_path, generated=feeds(16, 16))
    assert measured is not None
    assert len(measured.points) >= 3
    assert measured.covers({"ids:0": 1, "ids:1": 300, "attention_mask:1": 300, "past.0:1": 0})
