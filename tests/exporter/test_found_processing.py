"""What a model's package says of its processing: metadata of detectors and recognisers, files of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import seed_runtime
from seed_exporter import loaders
from seed_exporter.processing import attach
from seed_exporter.skeletons import builder_for
from seed_runtime.format.parts import processing as part
from tests.exporter.support.exporting import quick_export
from tests.support.described_models import color_model
from tests.support.model_seeds import onnx_model
from tests.support.tokenizers_by_hand import json_of, word_piece

AUTO = Path("auto")


def found(folder: Path, inputs: Any, outputs: Any, codes: Any = None, **metadata: str) -> tuple[Any, list[str]]:
    """Return the processing of a model with these tensors in a folder, and what the user is told."""
    nodes = [helper.make_node("Identity", ["w"], [output]) for output in outputs]
    model = onnx_model(nodes, inputs, outputs, {"w": np.ones(100)}, codes)
    helper.set_model_props(model, metadata)
    onnx.save(model, folder / "model.onnx")
    notes: list[str] = []
    graph = loaders.load(folder / "model.onnx")
    data = attach(graph, builder_for(graph), folder / "model.onnx", AUTO, notes).processing
    if not data:
        return None, notes
    text, attachments = part.unpack(data)
    return (json.loads(text), {name: bytes(each) for name, each in attachments.items()}), notes


def write(folder: Path, **files: Any) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))


TEXTS = {"input_ids": ["n", "length"], "attention_mask": ["n", "length"]}
INTEGERS = dict.fromkeys(TEXTS, TensorProto.INT64)


def test_a_recogniser_with_characters_in_its_metadata_reads_lines(tmp_path: Path) -> None:
    (description, files), notes = found(
        tmp_path, {"x": ["n", 3, "h", "w"]}, {"y": ["n", "columns", 4]}, character="a\nb\n"
    )
    assert files == {}
    (line,) = description["outputs"]
    assert line == {"kind": "ctc", "reads": {"scores": "y"}, "characters": "metadata:character", "space": True}
    assert description["inputs"][0]["size"] == [48, 320]
    assert notes == ["processing is taken from metadata 'character'; --processing none leaves it out"]
    (description, _), _ = found(tmp_path, {"x": ["n", 3, 32, "w"]}, {"y": ["n", "columns", 3]}, character="a\nb")
    assert "space" not in description["outputs"][0]
    assert description["inputs"][0]["size"][0] == 32
    nothing, _ = found(tmp_path, {"x": ["n", 3, 32, "w"]}, {"y": ["n", "columns", 9]}, character="a\nb")
    assert nothing is None


@pytest.mark.parametrize(
    ("shape", "layout"), [([1, 6, 84], {"layout": "grid", "transposed": True}), ([1, 300, 6], {"layout": "rows"})]
)
def test_a_detector_names_its_classes(shape: list[int], layout: dict[str, Any], tmp_path: Path) -> None:
    metadata = {"names": "{0: 'cat', 1: \"dog's\"}", "task": "detect", "imgsz": "[64, 96]", "stride": "32"}
    (description, files), _ = found(tmp_path, {"images": [1, 3, "h", "w"]}, {"output0": shape}, **metadata)
    assert files == {"labels.txt": b"cat\ndog's"}
    assert description["inputs"] == [
        {"kind": "image", "fills": {"pixels": "images"}, "size": [64, 96], "resize": "letterbox", "pad": 114}
    ]
    assert description["outputs"] == [
        {"kind": "boxes", "reads": {"boxes": "output0"}, "labels": "labels.txt"} | layout
    ]  # fmt: skip


def test_a_classifier_of_the_same_package_has_scores(tmp_path: Path) -> None:
    metadata = {"names": "{0: 'cat', 1: 'dog'}", "task": "classify", "imgsz": "[64, 64]"}
    (description, _), _ = found(tmp_path, {"images": [1, 3, 32, 32]}, {"output0": [1, 2]}, **metadata)
    assert description["inputs"][0]["size"] == [32, 32]
    assert (description["outputs"][0]["kind"], description["outputs"][0]["activation"]) == ("labels", "none")


@pytest.mark.parametrize(
    "names", ["__import__('os')", "{0:" * 500, "[1]", "{10**12: 1}", "{1000000000000: 'a'}", "{0: 'a'"]
)
def test_metadata_is_never_run_and_nonsense_is_ignored(names: str, tmp_path: Path) -> None:
    metadata = {"names": names, "task": "detect", "imgsz": "[64, 64]"}
    assert found(tmp_path, {"images": [1, 3, 64, 64]}, {"output0": [1, 6, 84]}, **metadata) == (None, [])


def test_silero_vad_is_known_by_its_tensors(tmp_path: Path) -> None:
    inputs: dict[str, Any] = {"input": ["n", "samples"], "state": [2, "n", 128], "sr": []}
    outputs = {"output": ["n", 1], "stateN": [2, "n", 128]}
    (description, _), _ = found(tmp_path, inputs, outputs, {"sr": TensorProto.INT64})
    assert [step["kind"] for step in description["inputs"]] == ["audio", "constant"]
    assert description["state"] == {"state": "stateN"}


def test_a_preprocessor_config_and_labels_make_a_classifier(tmp_path: Path) -> None:
    config = {
        "do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1],
    }  # fmt: skip
    write(tmp_path, preprocessor_config=config, config={"id2label": {"0": "cat", "1": "dog"}})
    (description, files), notes = found(tmp_path, {"pixel_values": ["n", 3, 224, 224]}, {"logits": ["n", 2]})
    (image,) = description["inputs"]
    assert (image["resize"], image["size"], image["shortest"], image["filter"]) == ("crop", [224, 224], 256, "bicubic")
    assert image["mean"] == pytest.approx([127.5, 102.0, 76.5])
    assert image["scale"] == pytest.approx([51.0, 51.0, 25.5])
    assert files == {"labels.txt": b"cat\ndog"}
    assert "preprocessor_config.json, config.json" in notes[0]


def test_an_older_config_has_one_number_as_its_size(tmp_path: Path) -> None:
    config = {"size": 32, "do_normalize": False, "do_rescale": False}
    labels = {"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"}
    write(tmp_path, preprocessor_config=config, config=labels)
    (description, _), _ = found(tmp_path, {"pixels": ["n", 32, 32, 3]}, {"logits": ["n", "classes"]})
    (image,), (answer,) = description["inputs"], description["outputs"]
    assert (image["layout"], image["mean"], image["scale"]) == ("NHWC", [0.0], [1.0])
    assert (answer["activation"], answer["threshold"], answer["top"]) == ("sigmoid", 0.5, 2)


@pytest.mark.parametrize(
    ("mode", "pooling"), [("pooling_mode_cls_token", "first"), ("pooling_mode_mean_tokens", "mean")]
)
def test_an_encoder_of_sentences_says_how_it_pools(mode: str, pooling: str, tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    write(tmp_path / "1_Pooling", config={mode: True})
    write(
        tmp_path, tokenizer=json_of(word_piece()).decode(), sentence_bert_config={"max_seq_length": 64},
        tokenizer_config={"model_max_length": 10**30}, config={"pad_token_id": 1, "max_position_embeddings": 512},
    )  # fmt: skip
    (description, files), _ = found(tmp_path, TEXTS, {"last_hidden_state": ["n", "length", 8]}, INTEGERS)
    (text,), (answer,) = description["inputs"], description["outputs"]
    assert text["fills"] == {"ids": "input_ids", "mask": "attention_mask"}
    assert (text["max_length"], text["pad"], answer["pooling"]) == (64, 1, pooling)
    assert json.loads(files["tokenizer.json"])["model"]["vocab"][5] == "dog"


def test_a_classifier_of_texts_has_labels(tmp_path: Path) -> None:
    write(tmp_path, tokenizer=json_of(word_piece()).decode(), config={"id2label": {"0": "bad", "1": "good"}})
    (description, files), _ = found(tmp_path, TEXTS, {"logits": ["n", 2]}, INTEGERS)
    assert (description["outputs"][0]["kind"], files["labels.txt"]) == ("labels", b"bad\ngood")
    assert description["inputs"][0]["max_length"] == 512


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"preprocessor_config": "{"},
        {"preprocessor_config": {"size": 32}},
        {"preprocessor_config": {"size": 32}, "config": {"id2label": {"0": "a"}}},
        {"preprocessor_config": {"size": "x"}, "config": {"id2label": {"0": "a", "1": "b"}}},
        {"preprocessor_config": {"size": 32, "do_resize": False}, "config": {"id2label": {"0": "a", "1": "b"}}},
        {"config": [1]},
    ],
)
def test_a_package_that_says_too_little_gives_nothing(files: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, **files)
    assert found(tmp_path, {"pixels": ["n", 3, 32, 32]}, {"logits": ["n", 2]}) == (None, [])


@pytest.mark.parametrize(
    "config", [{"size": 64}, {"size": 1 << 20}, {"size": 32, "rescale_factor": 0}, {"size": 32, "image_mean": ["x"]}]
)
def test_what_can_not_be_used_is_said_and_ends_no_export(config: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, preprocessor_config=config, config={"id2label": {"0": "a", "1": "b"}})
    nothing, (note,) = found(tmp_path, {"pixels": ["n", 3, 32, 32]}, {"logits": ["n", 2]})
    assert nothing is None
    assert "isn't used" in note
    assert "give it with --processing" in note


def test_none_leaves_it_out_and_a_module_has_no_folder(tmp_path: Path) -> None:
    write(tmp_path, preprocessor_config={"size": 4}, config={"id2label": {"0": "r", "1": "g", "2": "b"}})
    path = tmp_path / "colors.onnx"
    onnx.save(color_model(), path)
    sizes = {}
    for word in ("none", "auto"):
        target = tmp_path / f"{word}.seed"
        result = quick_export(path, target, method="lossless", processing=Path(word))
        sizes[word] = result.bytes
        seed = seed_runtime.open(target)
        assert (seed.processing() is None) == (word == "none")
        assert any("processing is taken from" in note for note in result.notes) == (word == "auto")
    assert sizes["auto"] > sizes["none"]
    graph = loaders.load(color_model())
    assert attach(graph, builder_for(graph), color_model(), AUTO, []) is graph
