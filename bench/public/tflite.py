"""TFLite models of public packages, with inputs: photos for pictures, synthesized instruments for audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from . import basicpitch, photos
from .base import Feeds, check_split
from .fetch import pypi

PACKAGES = (("mediapipe", "0.10.14"), basicpitch.PACKAGE)
COUNT = 15
"""Files in these packages."""
AUDIO = "nmp"


def models(cache: Path) -> dict[str, Path]:
    """Return the files by their names, fetched on the first call."""
    found = [path for name, version in PACKAGES for path in sorted(pypi(cache, name, version).rglob("*.tflite"))]
    assert len(found) == COUNT, found
    return {path.stem: path for path in found}


def inputs(cache: Path, name: str, shape: tuple[int, ...], n: int, split: str) -> list[np.ndarray]:
    """Return n inputs of a model, float32 of this shape: photos in [0, 1], or windows of audio in [-1, 1]."""
    check_split(split)
    if name == AUDIO:
        return [next(iter(feeds.values())) for feeds in basicpitch.inputs(cache, n, split)]
    return [_resized(image, shape) for image in photos.images(cache, n, split)]


def feeds(cache: Path, name: str, given: tuple[str, tuple[int, ...]], n: int, split: str) -> list[Feeds]:
    """Return the same by the name of the model's only input."""
    return [{given[0]: array} for array in inputs(cache, name, given[1], n, split)]


def _resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    picture = Image.fromarray(image).resize((shape[2], shape[1]), Image.Resampling.BICUBIC)
    return (np.asarray(picture, np.float32) / 255).reshape(shape)
