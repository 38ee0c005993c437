"""Questions about pictures, texts and sound: JSON in, what `seed-run SEED photo.jpg --json` prints out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.backends import Feeds
from seed_runtime.errors import InputError
from seed_runtime.serve.limits import ASKED_MAX, ASKED_TOP_MAX, ID_MAX
from seed_runtime.serve.objects import read_object

if TYPE_CHECKING:
    from seed_runtime.processing import Item, Processing
    from seed_runtime.serve.protocol import ServedModel

_FIELDS: Final = ("id", "samples", "top")


def answer_question(model: ServedModel, body: memoryview) -> dict[str, Any]:
    """Read a question, run the model on each of its samples, and return the answer.

    Args:
        model: the model, which has a description of its processing.
        body: JSON.

    Raises:
        InputError: the question can't be used.
        MemoryBudgetError: decoding a picture or a sound takes too much memory.
    """
    from seed_runtime import processing

    steps = model.processing
    if steps is None:
        raise InputError(f"{model.name} doesn't say what stands before and behind its model; send tensors to infer")
    question = read_object(body, "question", _FIELDS)
    identifier, top = question.get("id"), question.get("top")
    if not (identifier is None or (isinstance(identifier, str) and len(identifier) <= ID_MAX)):
        raise InputError(f"id must be a string of at most {ID_MAX} characters")
    if not (top is None or (type(top) is int and 0 < top <= ASKED_TOP_MAX)):
        raise InputError(f"top must be a whole number from 1 to {ASKED_TOP_MAX:,}")
    samples = question.get("samples")
    if not isinstance(samples, list) or not 0 < len(samples) <= ASKED_MAX:
        raise InputError(f"samples must be a list of 1 to {ASKED_MAX} objects")
    asked = [_items(steps, sample, number) for number, sample in enumerate(samples, start=1)]
    del question, samples

    def run(feeds: Feeds) -> dict[str, Any]:
        return dict(model.run(feeds))

    found = [
        processing.answer(steps, processing.prepare(steps, items, model.memory_limit, top), run) for items in asked
    ]
    compared = processing.comparisons(found)
    head: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if identifier is not None:
        head["id"] = identifier
    return {
        **head,
        "answers": [each.as_json() for each in found],
        "comparisons": [{"kind": each.kind, **each.as_json()} for each in compared.values()],
    }


def _items(steps: Processing, sample: object, number: int) -> tuple[Item, ...]:
    """Return the items of one sample."""
    from seed_runtime.processing import TEXT, Item

    where = f"sample {number}"
    if not isinstance(sample, Mapping) or sample.keys() != set(steps.media):
        raise InputError(f"{where} must be an object with {' and '.join(steps.media)}")
    items = []
    for medium in steps.media:
        value = sample[medium]
        if not isinstance(value, str):
            raise InputError(f"{where}: {medium} must be a string")
        if medium == TEXT:
            items.append(Item(medium, where, text=value))
            continue
        try:
            items.append(Item(medium, where, data=base64.b64decode(value, validate=True)))
        except (binascii.Error, ValueError):
            raise InputError(f"{where}: {medium} is no base64") from None
    return tuple(items)
