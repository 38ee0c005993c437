"""`seed-run` with models that answer with text, maps and sequences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from seed_runtime.cli.outputs import Summary, Writer
from seed_runtime.errors import InputError
from tests.support import typed_models
from tests.support.model_seeds import build_model_seed
from tests.support.seed_run import refused, seed_run_here
from tests.support.typed_models import FEATURES, LABELS


def made(model: onnx.ModelProto, folder: Path) -> Path:
    (folder / "model.seed").write_bytes(build_model_seed(model))
    return folder / "model.seed"


def rows(path: Path, *shape: int) -> Path:
    np.savez(path, x=np.random.default_rng(1).standard_normal((*shape, FEATURES)).astype(np.float32))
    return path


def written(seed: Path, data: Path) -> dict[str, np.ndarray]:
    done = seed_run_here(seed, "--input", data, "--output", data.with_name("y.npz"))
    assert done.returncode == 0, done.stderr.decode()
    with np.load(data.with_name("y.npz"), allow_pickle=False) as arrays:
        return dict(arrays)


def test_text_is_shown_printed_and_written_and_moves_no_cursor(rng: np.random.Generator, tmp_path: Path) -> None:
    seed, data = made(typed_models.labels(rng), tmp_path), rows(tmp_path / "x.npz", 12)
    shown = seed_run_here(seed, "--input", data)
    assert shown.returncode == 0
    assert b"\x1b" not in shown.stdout
    assert "label: string[12]" in shown.stdout.decode()
    fields = json.loads(seed_run_here(seed, "--input", data, "--json").stdout)["outputs"]["label"]
    assert (fields["dtype"], fields["shape"]) == ("string", [12])
    outputs = written(seed, data)
    assert outputs["label"].dtype.kind == "U"
    assert outputs["label"].tolist() == [LABELS[best] for best in outputs["p"].argmax(axis=1)]
    assert fields["values"] == outputs["label"].tolist()[:8]
    assert '"a\\x1b[31mred"' in shown.stdout.decode()


def test_maps_are_shown_and_written_as_keys_and_values(rng: np.random.Generator, tmp_path: Path) -> None:
    seed, data = made(typed_models.zipmap(rng), tmp_path), rows(tmp_path / "x.npz", 2, 3)
    outputs = written(seed, data)
    assert {name: array.shape for name, array in outputs.items()} == {"prob.keys": (2, 3), "prob.values": (2, 3, 3)}
    shown = seed_run_here(seed, "--input", data).stdout.decode()
    assert "prob.keys: int64[2, 3]" in shown
    assert "prob.values: float32[2, 3, 3]" in shown
    outputs_listed = json.loads(seed_run_here(seed, "--inspect", "--json").stdout)["outputs"]
    assert [(spec["name"], spec["dtype"]) for spec in outputs_listed] == [
        ("prob.keys", "int64"),
        ("prob.values", "float32"),
    ]


def test_a_sequence_is_written_element_by_element(rng: np.random.Generator, tmp_path: Path) -> None:
    outputs = written(made(typed_models.sequence(rng), tmp_path), rows(tmp_path / "x.npz", 3))
    assert {name: array.shape for name, array in outputs.items()} == {f"rows.{row}": (1, 3) for row in range(3)}


def texts(*words: str) -> dict[str, np.ndarray]:
    return {"s": np.array(words, object)}


def test_texts_of_several_calls_have_room_for_the_longest(tmp_path: Path) -> None:
    writer = Writer(True, tmp_path)
    for words in (("a", "b"), ("", "lönger"), ("x\ny", '"')):
        writer.add(texts(*words))
    with (tmp_path / "y.npz").open("wb") as file:
        writer.write_into(file)
    writer.close()
    with np.load(tmp_path / "y.npz", allow_pickle=False) as arrays:
        assert arrays["s"].dtype == np.dtype("<U6")
        assert arrays["s"].tolist() == [["a", "b"], ["", "lönger"], ["x\ny", '"']]


@pytest.mark.parametrize("count", [0, 1, 700])
def test_any_number_of_texts_is_written(count: int, tmp_path: Path) -> None:
    writer = Writer(False, tmp_path)
    words = [f"w{index}" for index in range(count)]
    writer.add(texts(*words))
    with (tmp_path / "y.npz").open("wb") as file:
        writer.write_into(file)
    writer.close()
    with np.load(tmp_path / "y.npz", allow_pickle=False) as arrays:
        assert arrays["s"].tolist() == words


def test_one_long_text_among_many_does_not_fill_the_disk(tmp_path: Path) -> None:
    writer = Writer(False, tmp_path)
    writer.add(texts("x" * 10_000_000, *["y"] * 100))
    with (tmp_path / "y.npz").open("wb") as file, pytest.raises(InputError, match="give fewer calls at once"):
        writer.write_into(file)
    writer.close()
    assert (tmp_path / "y.npz").stat().st_size < 1 << 20


def test_a_long_text_is_cut_on_the_terminal_and_whole_in_json() -> None:
    summary = Summary(False)
    summary.add(texts("x" * 5000))
    assert all(len(line) < 200 for line in summary.lines())
    assert summary.as_json()["s"]["values"] == ["x" * 5000]


def test_outputs_without_elements_are_said_to_be_so() -> None:
    summary = Summary(counted=False)
    summary.add({"boxes": np.zeros((0, 4), np.float32)})
    assert list(summary.lines()) == ["boxes: float32[0, 4]", "  no elements"]
    summary = Summary(counted=False)
    summary.add({})
    assert list(summary.lines()) == ["no arrays: all outputs are empty sequences, or optional ones that are missing"]


def test_calls_with_sequences_of_other_lengths_are_not_stacked(tmp_path: Path) -> None:
    for sink in (Summary(True), Writer(True, tmp_path)):
        sink.add({"q.0": np.ones(2)})
        with pytest.raises(InputError, match="run these calls one by one"):
            sink.add({"q.0": np.ones(2), "q.1": np.ones(2)})


def test_what_no_array_can_be_is_refused_with_its_advice(tmp_path: Path) -> None:
    seed = made(typed_models.refused("bfloat16 output"), tmp_path)
    assert "Cast to float at this output" in refused(12, seed, "--input", rows(tmp_path / "x.npz", 2))


# Text as input


@pytest.fixture
def text_seed(rng: np.random.Generator, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A text classifier, and its scores of each of `WORDS`, and of any other word."""
    model = typed_models.text(rng)
    return made(model, tmp_path), onnx.numpy_helper.to_array(model.graph.initializer[0])


@pytest.mark.parametrize(
    "array",
    [
        np.array(["dog", "ein Hünd", "cat"]),
        np.array(["dog", "ein Hünd", "cat"], ">U20"),
        np.char.encode(np.array(["dog", "ein Hünd", "cat"]), "utf-8"),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_text_comes_from_a_file(
    array: np.ndarray, ending: str, text_seed: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    seed, scores = text_seed
    data = tmp_path / f"x.{ending}"
    if ending == "npz":
        np.savez(data, s=array)
    else:
        np.save(data, array)
    assert np.array_equal(written(seed, data)["y"], scores[[1, 3, 0]])


def test_an_axis_more_counts_calls_of_text_too(text_seed: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    seed, scores = text_seed
    for order in ("C", "F"):
        np.savez(tmp_path / "x.npz", s=np.array([["dog", "cat"], ["bird", "x"], ["", "cat"]], order=order))
        assert np.array_equal(written(seed, tmp_path / "x.npz")["y"], scores[[[1, 0], [2, 3], [3, 0]]])


def damaged(path: Path, code: int) -> Path:
    """A file of text in which one character is no Unicode."""
    np.savez(path, s=np.array([code, 65], "<u4").view("<U1"))
    return path


@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF, 0xD800, 0xDFFF])
def test_text_that_is_no_unicode_is_refused(code: int, text_seed: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    assert "no Unicode" in refused(3, text_seed[0], "--input", damaged(tmp_path / "x.npz", code))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([b"\xff"]), "no UTF-8"),
        (np.array([1.0]), "give text"),
        (np.array(["a", None], object), "never loaded; convert it to numbers, or text"),
        (np.array([["a"], ["b"]])[None, None], "one axis more"),
    ],
)
def test_what_is_no_text_is_refused_with_the_next_step(
    array: np.ndarray, said: str, text_seed: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", s=array)
    assert said in refused(3, text_seed[0], "--input", tmp_path / "x.npz")


def test_text_for_numbers_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    seed = made(typed_models.zipmap(rng), tmp_path)
    np.savez(tmp_path / "x.npz", x=np.full((2, FEATURES), "1"))
    assert "x: float32[n, 8] is expected" in refused(3, seed, "--input", tmp_path / "x.npz")
