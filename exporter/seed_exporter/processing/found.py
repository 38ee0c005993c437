"""What a model's package says of its processing: the model's own metadata, and known files beside it.

Only what is stated is used: without the numbers of its training, a picture can't be prepared by a guess.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, Final

from seed_exporter.processing import decoder, tflite
from seed_exporter.processing.package import TOKENIZER, Found, Package
from seed_exporter.processing.text import compact_tokenizer
from seed_runtime.backends import TensorSpec
from seed_runtime.limits import LABELS_MAX, TOKENS_MAX

_FILTERS: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Filters by the numbers that Pillow gives them, which `resample` of a preprocessor_config.json has."""
_LABELS: Final = "labels.txt"
_TOKENS: Final = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types", "position_ids": "positions"}
_POOLING: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
"""Ways of pooling by the names that sentence-transformers gives them."""


def find(package: Package) -> Found | None:
    """Return what a package says of its processing; None where it says too little."""
    for reader in _READERS:
        package.used.clear()
        found = reader(package)
        if found is not None:
            return found
    return None


def _line(package: Package) -> Found | None:
    """Return the processing of a recogniser of PaddleOCR: its characters are metadata.

    Source: PaddleOCR, tools/infer/predict_rec.py: height 48, BGR, (byte / 255 - .5) / .5, zeros to the right.
    """
    if "character" not in package.metadata or len(package.inputs) != 1 or len(package.with_rank(3)) != 1:
        return None
    (spec,), (output,) = package.inputs.values(), package.with_rank(3)
    if package.rank(spec) != 4 or spec.shape is None or output.shape is None:
        return None
    height = spec.shape[2] if isinstance(spec.shape[2], int) else 48
    width = spec.shape[3] if isinstance(spec.shape[3], int) else 320
    count = len(package.metadata["character"].removesuffix("\n").split("\n"))
    classes = output.shape[2] if isinstance(output.shape[2], int) else count + 2
    if classes not in (count + 1, count + 2):
        return None
    package.used.append("metadata 'character'")
    image = {
        "kind": "image", "fills": {"pixels": spec.name}, "resize": "height", "size": [height, width],
        "longest": width if isinstance(spec.shape[3], int) else 10 * width, "pad": 127.5, "channels": "BGR",
        "mean": [127.5], "scale": [127.5],
    }  # fmt: skip
    line: dict[str, Any] = {"kind": "ctc", "reads": {"scores": output.name}, "characters": "metadata:character"}
    if classes == count + 2:
        line["space"] = True
    return {"inputs": [image], "outputs": [line]}, {}


def _ultralytics(package: Package) -> Found | None:
    """Return the processing of a model that ultralytics has exported: names, task and size are metadata."""
    metadata = package.metadata
    names, task = _literal(metadata.get("names")), metadata.get("task")
    if task not in ("detect", "classify") or not isinstance(names, dict) or len(package.inputs) != 1:
        return None
    if not 0 < (count := max(names, default=-1) + 1) <= LABELS_MAX:
        return None
    (spec,), size = package.inputs.values(), _literal(metadata.get("imgsz"))
    if spec.shape is not None and len(spec.shape) == 4 and all(isinstance(side, int) for side in spec.shape[2:]):
        size = list(spec.shape[2:])
    if not isinstance(size, list) or len(size) != 2 or len(package.outputs) != 1:
        return None
    labels = "\n".join(str(names.get(index, f"class {index}")) for index in range(count)).encode()
    image: dict[str, Any] = {"kind": "image", "fills": {"pixels": spec.name}, "size": size}
    (output,) = package.outputs.values()
    if task == "classify":
        image["resize"] = "crop"
        answer: dict[str, Any] = {"kind": "labels", "reads": {"scores": output.name}, "labels": _LABELS}
        answer["activation"] = "none"
    else:
        image |= {"resize": "letterbox", "pad": 114}
        answer = {"kind": "boxes", "reads": {"boxes": output.name}, "labels": _LABELS}
        is_suppressed = output.shape is not None and output.shape[-1] == 6
        answer["layout"] = "rows" if is_suppressed else "grid"
        if not is_suppressed:
            answer["transposed"] = True
    package.used.append("metadata 'names', 'task' and 'imgsz'")
    return {"inputs": [image], "outputs": [answer]}, {_LABELS: labels}


def _speech(package: Package) -> Found | None:
    """Return the processing of silero-vad, whose inputs and outputs have its names.

    Source: silero-vad, src/silero_vad/utils_vad.py: 512 samples at 16 kHz behind 64 of the frame before.
    """
    if package.inputs.keys() != {"input", "state", "sr"} or package.outputs.keys() != {"output", "stateN"}:
        return None
    state = package.inputs["state"].shape
    if state is None or len(state) != 3 or (state[0], state[2]) != (2, 128):
        return None
    package.used.append("the names of silero-vad's inputs and outputs")
    sound = {"kind": "audio", "fills": {"samples": "input"}, "rate": 16000, "frame": 512, "context": 64}
    shape = [1] * package.rank(package.inputs["sr"])
    rate = {"kind": "constant", "fills": {"value": "sr"}, "value": [16000], "shape": shape}
    segments = {"kind": "segments", "reads": {"probability": "output"}}
    return {"inputs": [sound, rate], "outputs": [segments], "state": {"state": "stateN"}}, {}


def _picture(package: Package) -> Found | None:
    """Return the processing of a classifier with a preprocessor_config.json, and labels in its config.json."""
    config = package.json("preprocessor_config.json")
    if not config or len(package.inputs) != 1 or len(package.outputs) != 1:
        return None
    (spec,), (scores,) = package.inputs.values(), package.outputs.values()
    image = _image(config, spec)
    answer = _labels(package, scores)
    if image is None or answer is None:
        return None
    step, labels = answer
    return {"inputs": [image], "outputs": [step]}, {_LABELS: labels}


def _image(config: Mapping[str, Any], spec: TensorSpec) -> dict[str, Any] | None:
    """Return the step that a preprocessor_config.json of transformers describes; None for one that has more to it."""
    if spec.shape is None or len(spec.shape) != 4 or not config.get("do_resize", True):
        return None
    size, crop = _size(config.get("size")), _size(config.get("crop_size"))
    does_crop = config.get("do_center_crop", False) and crop is not None
    step: dict[str, Any] = {"kind": "image", "fills": {"pixels": spec.name}}
    if does_crop:
        step |= {"size": crop, "resize": "crop"}
        if size is not None and size[0] == size[1]:
            step["shortest"] = size[0]
    elif size is not None:
        step["size"] = size
    else:
        return None
    step["filter"] = _FILTERS.get(config.get("resample", 2), "bilinear")
    unit = 1 / config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean, scale = [0.0], [float(unit)]
    if config.get("do_normalize", True) and config.get("image_mean"):
        mean = [float(each) * unit for each in config["image_mean"]]
        scale = [float(each) * unit for each in config["image_std"]]
    if spec.shape[3] == 3 and spec.shape[1] != 3:
        step["layout"] = "NHWC"
    return step | {"mean": mean, "scale": scale}


def _size(value: object) -> list[int] | None:
    if isinstance(value, int):
        return [value, value]
    if isinstance(value, dict):
        if isinstance(value.get("height"), int) and isinstance(value.get("width"), int):
            return [value["height"], value["width"]]
        if isinstance(value.get("shortest_edge"), int):
            return [value["shortest_edge"]] * 2
    return None


def _text(package: Package) -> Found | None:
    """Return the processing of an encoder of texts with a tokenizer.json: embeddings, or labels in its config.json."""
    if "input_ids" not in package.inputs or not package.inputs.keys() <= _TOKENS.keys():
        return None
    data = package.bytes(TOKENIZER)
    if data is None:
        return None
    config = package.json("config.json")
    lengths = (
        package.json("sentence_bert_config.json").get("max_seq_length"),
        package.json("tokenizer_config.json").get("model_max_length"),
        config.get("max_position_embeddings"),
    )
    longest = min([each for each in lengths if isinstance(each, int) and 0 < each <= TOKENS_MAX], default=512)
    step = {
        "kind": "text", "fills": {role: name for name, role in _TOKENS.items() if name in package.inputs},
        "tokenizer": TOKENIZER, "max_length": longest,
    }  # fmt: skip
    if isinstance(pad := config.get("pad_token_id"), int) and pad > 0:
        step["pad"] = pad
    files = {TOKENIZER: compact_tokenizer(data)}
    vectors = [spec for spec in package.with_rank(3) if spec.name in ("last_hidden_state", "token_embeddings")]
    pooled = [spec for spec in package.with_rank(2) if spec.name == "sentence_embedding"]
    if pooled:
        answer = {"kind": "embeddings", "reads": {"vectors": pooled[0].name}, "pooling": "none"}
    elif len(package.outputs) == 1 and package.with_rank(2) and (named := _labels(package, package.with_rank(2)[0])):
        answer, files[_LABELS] = named
    elif vectors:
        modes = package.json("1_Pooling/config.json")
        pooling = next((word for mode, word in _POOLING.items() if modes.get(mode)), "mean")
        answer = {"kind": "embeddings", "reads": {"vectors": vectors[0].name}, "pooling": pooling}
    else:
        return None
    return {"inputs": [step], "outputs": [answer]}, files


def _labels(package: Package, scores: TensorSpec) -> tuple[dict[str, Any], bytes] | None:
    """Return the step that names scores by the labels of a config.json."""
    config = package.json("config.json")
    names = config.get("id2label")
    if not isinstance(names, dict) or package.rank(scores) != 2 or scores.shape is None:
        return None
    labels = [names.get(str(index)) for index in range(len(names))]
    count = scores.shape[1]
    if not all(isinstance(label, str) for label in labels) or (isinstance(count, int) and count != len(labels)):
        return None
    step: dict[str, Any] = {"kind": "labels", "reads": {"scores": scores.name}, "labels": _LABELS}
    step["activation"] = "softmax"
    if config.get("problem_type") == "multi_label_classification":
        step |= {"activation": "sigmoid", "threshold": 0.5, "top": len(labels)}
    return step, "\n".join(str(label).replace("\n", " ") for label in labels).encode()


def _literal(text: str | None) -> Any:
    """Return the value of a literal of Python; None for anything else."""
    try:
        return None if text is None else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


_READERS: Final[tuple[Callable[[Package], Found | None], ...]] = (
    decoder.read,
    _line,
    _ultralytics,
    _speech,
    _picture,
    _text,
    tflite.read,
)
