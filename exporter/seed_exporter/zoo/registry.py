"""The recipes that there are. A new one is one file here and one line below."""

from __future__ import annotations

import difflib
from typing import Final

from seed_exporter.zoo import (
    basic_pitch,
    efficientnet_lite0,
    face_detection,
    magika,
    minilm_l6,
    ppocr_detection,
    ppocr_direction,
    ppocr_recognition,
    silero_vad,
    smollm2,
)
from seed_exporter.zoo.recipe import Recipe
from seed_runtime.errors import UsageError

RECIPES: Final[dict[str, Recipe]] = {
    recipe.name: recipe
    for recipe in (
        ppocr_detection.RECIPE,
        ppocr_recognition.RECIPE,
        ppocr_direction.RECIPE,
        magika.RECIPE,
        minilm_l6.RECIPE,
        efficientnet_lite0.RECIPE,
        face_detection.RECIPE,
        silero_vad.RECIPE,
        basic_pitch.RECIPE,
        smollm2.RECIPE,
    )
}
"""Recipes by name, in the order in which they are listed."""


def find(name: str) -> Recipe:
    """Return a recipe; UsageError with the closest name where there is none."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name.lower(), RECIPES, 1, 0.0)[0]
    raise UsageError(
        f"the zoo has no {name!r}; did you mean zoo:{near}? List all by seed-export zoo; a file of that name is "
        f"./zoo:{name}"
    )
