"""`seed-export --processing`: descriptions from JSON and TOML with their files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import seed_runtime
from seed_exporter.processing.text import compact_tokenizer
from seed_runtime.errors import InputError, SeedError, UnsupportedError, UsageError
from seed_runtime.processing import PICTURE, Item, answer, prepare
from seed_runtime.processing.tokenizer_file import expanded
from tests.exporter.support.exporting import quick_export
from tests.support.described_models import COLORS, color_description, color_model, png, typed_input
from tests.support.model_seeds import onnx_model
from tests.support.tokenizers_by_hand import bpe, json_of, unigram, word_piece

TOML = """
[[inputs]]
kind = "image"
fills = { pixels = "image" }
size = [4, 4]

[[outputs]]
kind = "labels"
reads = { scores = "scores" }
labels = "names/colors.txt"
activation = "softmax"
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "colors.onnx"
    onnx.save(color_model(), path)
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfred\r\ngreen\r\nblue\r\n")
    return path


def exported(model: Path, processing: Path | None, **options: Any) -> seed_runtime.Seed:
    target = model.with_suffix(".seed")
    quick_export(model, target, method="lossless", processing=processing, **options)
    return seed_runtime.open(target)


def write(folder: Path, description: Any) -> Path:
    path = folder / "processing.json"
    path.write_text(json.dumps(description))
    return path


def test_a_description_and_its_labels_travel_in_the_seed_and_count(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    plain = exported(model, None).file_size
    seed = exported(model, write(tmp_path, color_description()))
    processing = seed.processing()
    assert processing is not None
    assert processing.attachments == {"labels.txt": len("\n".join(COLORS))}
    assert seed.file_size > plain + 60
    with seed.session() as session:
        sample = prepare(processing, (Item(PICTURE, "blue", data=png(9, 9, (0, 0, 255))),))
        found = answer(processing, sample, session.run).answers[0].as_json()
    assert found["labels"][0]["label"] == "blue"


def test_toml_names_files_beside_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "colors.txt").write_text("\n".join(COLORS))
    path = tmp_path / "p.toml"
    path.write_text(TOML)
    processing = exported(model, path).processing()
    assert processing is not None
    assert processing.attachments.keys() == {"colors.txt"}
    assert processing.description["outputs"][0]["labels"] == "colors.txt"


def test_a_version_with_the_same_processing_shares_it_with_its_base(model: Path, tmp_path: Path) -> None:
    path, weights = write(tmp_path, color_description()), np.random.default_rng(0).normal(size=(48, 96))
    nodes = [
        onnx.helper.make_node("Flatten", ["image"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w1"], ["hidden"]),
        onnx.helper.make_node("MatMul", ["hidden", "w2"], ["scores"]),
    ]
    for version in (1, 2):
        both = {"w1": weights + (version == 2) * (np.arange(96) == 7), "w2": np.ones((96, 3))}
        onnx.save(onnx_model(nodes, {"image": ["n", 3, 4, 4]}, {"scores": ["n", 3]}, both), model)
        target = tmp_path / f"{version}.seed"
        bases = (tmp_path / "1.seed",) if version == 2 else ()
        quick_export(model, target, method="lossless", processing=path, base=bases, model_version=version)
    seed = seed_runtime.open(tmp_path / "2.seed", base=seed_runtime.open(tmp_path / "1.seed"))
    assert seed.shares_parts
    assert seed.processing() is not None


@pytest.mark.parametrize(
    ("description", "error", "problem"),
    [
        (color_description(size=[5, 5]), InputError, "it makes [1, 3, 5, 5], and the model takes image"),
        (color_description(size=[1 << 20, 1 << 20]), InputError, "exceeds the limit of 8,192"),
        (color_description(kind="smell"), UnsupportedError, "a step of kind 'smell' is unknown"),
        ([1], InputError, "holds no object"),
        ({"outputs": [{"labels": "absent.txt"}]}, UsageError, "absent.txt: No such file or directory"),
        ({"inputs": [{"labels": "labels.txt"}, {"labels": "a/labels.txt"}]}, InputError, "two files 'labels.txt'"),
        ({"inputs": []}, InputError, "no step fills input 'image'"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_before_the_search(
    description: Any, error: type[SeedError], problem: str, model: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, description)
    with pytest.raises(error) as refused:
        exported(model, path)
    assert problem in str(refused.value)
    assert not model.with_suffix(".seed").exists()


def test_files_that_are_no_json_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(InputError, match=r"p.json can't be read"):
        exported(model, tmp_path / "p.json")
    (tmp_path / "p.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"p.toml can't be read"):
        exported(model, tmp_path / "p.toml")
    (tmp_path / "p.json").write_bytes(b" " * (1 << 17))
    with pytest.raises(InputError, match="has more than 65,536 bytes"):
        exported(model, tmp_path / "p.json")


def test_a_tokenizer_travels_with_its_vocabulary_as_a_list() -> None:
    for tokenizer, vocabulary in (
        (word_piece(), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "cat", "bark", "##s", "meow"]),
        (bpe(), ["<|end|>", "a", "b", "c", "Ġ", 3]),
    ):
        short = compact_tokenizer(json_of({**tokenizer, "truncation": {"max_length": 9}}))
        assert json.loads(short)["model"]["vocab"] == vocabulary
        assert "truncation" not in json.loads(short)
        assert expanded(json.loads(short), "here")["model"] == tokenizer["model"]
    assert json.loads(compact_tokenizer(json_of(unigram()))) == unigram()


@pytest.mark.parametrize(
    "data", [b"no json", b"[]", b'{"model": {"vocab": {"a": -1}}}', b'{"model": {"vocab": {"a": 9}}}']
)
def test_what_can_not_be_made_shorter_stays_what_it_is(data: bytes) -> None:
    found = compact_tokenizer(data)
    assert found == data if not data.startswith(b"{") else json.loads(found) == json.loads(data)


@pytest.mark.parametrize(
    "changes", [{"vocab": {"a": "x"}}, {"vocab": {"a": 1.5}}, {"merges": 5}, {"vocab": {"\ud800": 0}}]
)
def test_a_tokenizer_that_can_not_be_written_shorter_stays_as_it_is(changes: dict[str, Any]) -> None:
    data = json_of({**bpe(), "model": {**bpe()["model"], **changes}})
    assert compact_tokenizer(data) == data
    assert compact_tokenizer(b"[" * 50_000) == b"[" * 50_000


def test_a_tokenizer_that_a_device_would_refuse_is_refused_at_export(tmp_path: Path) -> None:
    onnx.save(typed_input([1, "tokens"], onnx.TensorProto.INT64), tmp_path / "colors.onnx")
    text = {"kind": "text", "fills": {"ids": "x"}, "tokenizer": "t.json", "max_length": 8}
    path = write(tmp_path, {"inputs": [text]})
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
    (tmp_path / "t.json").write_bytes(json_of(bpe(pre_tokenizer=pattern)))
    with pytest.raises(UnsupportedError, match="isn't among those that are known to end"):
        exported(tmp_path / "colors.onnx", path)
    (tmp_path / "t.json").write_bytes(b"{}")
    with pytest.raises(InputError, match="the tokenizer has no model"):
        exported(tmp_path / "colors.onnx", path)
