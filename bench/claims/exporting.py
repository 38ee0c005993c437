"""Write a checkpoint as an ONNX file, batch and sequence free."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.onnx_export import export_onnx

from . import checkpoints, runs
from .inputs import SIDE


def export(folder: Path, target: Path, random: bool = False) -> Path:
    """Export the network of a checkpoint folder, or with its random weights from before training.

    Batch norms stay, so that they can be re-estimated.
    """
    about = checkpoints.load(folder)[1]
    model = runs.load(folder, torch.device("cpu"))
    if random:
        torch.manual_seed(0)
        model = runs.maker(about["name"])(about["settings"]).eval().requires_grad_(False)
    kind = runs.kind_of(about["name"])
    if kind == "glyphs":
        example = {"image": torch.zeros(2, 3, SIDE, SIDE)}
        axes: dict[str, tuple[str | None, ...]] = {"image": ("batch", None, None, None)}
    else:
        keys = ("input_ids", "attention_mask") if kind == "sections" else ("input_ids",)
        example = {key: torch.ones(2, 7, dtype=torch.int64) for key in keys}
        axes = dict.fromkeys(keys, ("batch", "sequence"))
    target.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(model, example, axes, "logits", target, keep_batch_norm=kind == "glyphs")
    return target
