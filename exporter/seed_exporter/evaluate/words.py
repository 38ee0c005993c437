"""Generate inputs of text, from the words that a model itself knows.

A device can't generate such inputs: the golden sample carries their bytes, see `supplied`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto

from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_runtime.backends import Array
from seed_runtime.format.dtypes import STRING
from seed_runtime.format.primitives import printable
from seed_runtime.golden import SUPPLIED, Recipe, pack_texts
from seed_runtime.limits import STRING_MAX

_PLAIN_WORDS: Final = ("a", "good", "day", "for", "the", "red", "cat", "and", "old", "dog")
"""Words for models that name none."""
_VOCABULARIES: Final = frozenset({"keys_strings", "keys_tensor", "pool_strings", "cats_strings", "string_vocabulary"})
"""Attributes that hold the texts which an operator knows."""
_SPLITS_TEXT: Final = frozenset({"StringSplit", "Tokenizer", "RegexSplit", "StringNormalizer"})
"""Operators that take sentences."""
_SENTENCE: Final = 4
"""Words of a sentence."""
_WORDS_MAX: Final = 256
"""Most words that are drawn from."""
_WORD_MAX: Final = 24
"""Longest word that is drawn, in bytes: the golden sample holds all texts of one input."""


@dataclass(frozen=True)
class Words(Recipe):
    """An input of text: each element is a word, or `length` words with spaces between them."""

    words: tuple[str, ...] = _PLAIN_WORDS
    length: int = 1

    def array(self, rng_seed: int) -> Array:
        """Draw the texts of this random state."""
        drawn = np.random.default_rng(rng_seed).integers(len(self.words), size=(prod(self.dims), self.length))
        out: Array = np.empty(len(drawn), object)
        out[:] = [" ".join(self.words[index] for index in row) for row in drawn]
        return out.reshape(self.dims)


def words_of(graph: Graph) -> Words:
    """Return a recipe, still without a shape, of the texts that the model's operators know."""
    nodes = GraphIndex(graph).nodes
    known = [word for node in nodes for word in _known_words(node)]
    usable = [word for word in dict.fromkeys(known) if word and len(word.encode()) <= _WORD_MAX and printable(word)]
    length = _SENTENCE if any(node.op_type in _SPLITS_TEXT for node in nodes) else 1
    return Words(SUPPLIED, STRING, (), words=tuple(usable[:_WORDS_MAX]) or _PLAIN_WORDS, length=length)


def supplied(recipes: Sequence[Recipe], rng_seed: int) -> tuple[Recipe, ...]:
    """Replace recipes of text by the texts that they draw, as a seed carries them."""
    return tuple(
        Recipe(SUPPLIED, STRING, recipe.dims, data=pack_texts(recipe.array(rng_seed + index)))
        if isinstance(recipe, Words)
        else recipe
        for index, recipe in enumerate(recipes)
    )


def recipe_of_texts(texts: Array) -> Recipe:
    """Return a recipe of real texts: on one line each, and cut to what a seed holds."""
    lines = ["".join(char if printable(char) else " " for char in str(text)) for text in texts.reshape(-1)]
    out: Array = np.empty(len(lines), object)
    out[:] = [line.encode()[:STRING_MAX].decode(errors="ignore") for line in lines]
    return Recipe(SUPPLIED, STRING, texts.shape, data=pack_texts(out))


def _known_words(node: NodeProto) -> list[str]:
    """Return the texts in the attributes of a node that are a vocabulary."""
    found: list[bytes] = []
    for attribute in node.attribute:
        if attribute.name in _VOCABULARIES and attribute.type == AttributeProto.STRINGS:
            found += attribute.strings
        elif attribute.name in _VOCABULARIES and attribute.t.data_type == TensorProto.STRING:
            found += attribute.t.string_data
    return [raw.decode(errors="ignore") for raw in found]
