"""PP-OCR's models as the rapidocr wheel ships them: weights in Constant nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx

from . import textlines
from .fetch import pypi, whole_file

PACKAGE = ("rapidocr-onnxruntime", "1.4.4")


def prepare(cache: Path, name: str, file: str) -> Path:
    """Copy one of the wheel's models and fetch fonts and texts."""
    textlines.fetch_all(cache)
    target = cache / name / "model.onnx"
    if not target.exists():
        with whole_file(target) as path:
            shutil.copyfile(pypi(cache, *PACKAGE) / "rapidocr_onnxruntime/models" / file, path)
    return target


def characters(path: Path) -> list[str]:
    """Return the recogniser's classes: blank, the metadata's list, space."""
    metadata = {item.key: item.value for item in onnx.load(path).metadata_props}
    return ["", *metadata["character"].splitlines(), " "]
