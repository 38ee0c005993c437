"""Magika: the type of a file, from its first and last bytes."""

from __future__ import annotations

import json

from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel

_WHEEL = Wheel(
    project="magika",
    version="1.0.3",
    file="magika-1.0.3-py3-none-any.whl",
    sha256="938d8e033953f2ddeb8c35dc423aa289ca116bfa7a71a778f6e77460f9025803",
    size=2_969_548,
)
_FOLDER = "magika/models/standard_v3_3"


def _make(sources: Sources) -> Made:
    import onnx

    model = onnx.load_model_from_string(sources.read(_WHEEL, f"{_FOLDER}/model.onnx"))
    config = json.loads(sources.read(_WHEEL, f"{_FOLDER}/config.min.json"))
    ends = {
        "kind": "bytes",
        "fills": {"bytes": "bytes"},
        "first": config["beg_size"],
        "last": config["end_size"],
        "block": config["block_size"],
        "strip": True,
        "pad": config["padding_token"],
    }
    labels = {"kind": "labels", "reads": {"scores": "target_label"}, "labels": "labels.txt", "activation": "none"}
    names = "\n".join(config["target_labels_space"]).encode()
    return Made(model, {"inputs": [ends], "outputs": [labels]}, {"labels.txt": names})


RECIPE = Recipe(
    name="magika",
    about="the type of a file, from its bytes: 214 types",
    example="README.md photo.jpg",
    license=License("Apache-2.0", "Google LLC"),
    wheels=(_WHEEL,),
    make=_make,
    goal=Goal(size=711_000, ratio=4.4),
)
