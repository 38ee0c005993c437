"""Text generation: a prompt in, tokens out one after the other, with a cache of keys and values.

A seed says which inputs and outputs of its model are what (docs/generation.md); the loop, the sampling and the text of
tokens are here.
"""

from seed_runtime.processing.generation.description import Generation, read
from seed_runtime.processing.generation.generator import INTERRUPTED, Generator, Model
from seed_runtime.processing.generation.sampling import Sampling
from seed_runtime.processing.generation.tokens import Tokenizer

__all__ = ["INTERRUPTED", "Generation", "Generator", "Model", "Sampling", "Tokenizer", "read"]
