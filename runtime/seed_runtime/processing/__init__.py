"""What stands before and behind a model: pictures, texts and sound in, labels, boxes, texts and segments out.

A seed may carry a description of it (SPEC.md, "Processing"): steps of known kinds, no code. One file a kind, and one
line in registry.py. A step before the model fills inputs, a step behind it reads outputs.
"""

from seed_runtime.processing.answers import Answer, SampleAnswer, comparisons
from seed_runtime.processing.description import Processing, parse
from seed_runtime.processing.items import FILE, PICTURE, SOUND, SUFFIXES, TEXT, Item
from seed_runtime.processing.runner import Run, Sample, answer, prepare

__all__ = [
    "FILE",
    "PICTURE",
    "SOUND",
    "SUFFIXES",
    "TEXT",
    "Answer",
    "Item",
    "Processing",
    "Run",
    "Sample",
    "SampleAnswer",
    "answer",
    "comparisons",
    "parse",
    "prepare",
]
