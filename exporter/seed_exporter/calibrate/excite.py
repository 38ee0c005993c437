"""Inputs for users who give none, which excite the model about as real ones do.

What is known of the model decides: pictures are smooth, and are changed until batch norms see the statistics of the
training; a language model writes its own texts. All else gets the generator's random numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.batch_norms import match
from seed_exporter.evaluate import inputs
from seed_exporter.evaluate.inputs import index_limits
from seed_exporter.evaluate.samples import Run, Samples, spread
from seed_exporter.graph.model import Graph
from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.errors import SeedError, UnsupportedError
from seed_runtime.golden import Recipe

SAMPLES: Final = 24
"""Most inputs that are made: probes run on them and outputs are judged on them; no covariances are measured."""
TEXTS: Final = 16
"""Most texts that a language model writes: each takes up to ROUNDS runs."""
BYTES_MAX: Final = 64 << 20
"""Most memory of all inputs, if they are more than JUDGED_SHARE asks for [B]."""
JUDGED_SHARE: Final = 1 / 3
"""Share of them that outputs are judged on."""
JUDGED_LEAST: Final = 4
"""Number of inputs that outputs are judged on, where there are twice as many."""
ROUNDS: Final = 16
"""Most times that a text is written over."""
SIDES: Final = (64, 96, 128, 224, 320, 640)
"""Sizes to try for free dimensions: larger than for a golden sample, so that batch norms see many positions."""
PICTURE_MIN: Final = 8
"""Smallest height and width of a picture."""
PICTURE_SCALE: Final = 0.5
"""Standard deviation of pictures. Of those of PP-OCR's classifier it is .57, and rounding by pictures of .5, 1 and 2
gained .12, .08 and -.02 bits a weight, measured on real ones."""
COLOUR_SHARE: Final = 0.8
"""Share of a picture's variance that its channels have in common."""

_RNG_SEED: Final = 505
"""Random state of the first of them."""


def excite(
    graph: Graph, folder: Path, jobs: int, specs: Sequence[TensorSpec], recipes: Sequence[Recipe], run: Run
) -> Samples:
    """Make inputs of a model, on a part of which outputs are judged.

    Args:
        graph: the model.
        folder: for models that are run.
        jobs: threads.
        specs: its inputs.
        recipes: how to generate inputs that it accepts.
        run: runs it.
    """
    with contextlib.suppress(UnsupportedError):  # it takes none of these sizes
        recipes = inputs.find_recipes(graph, specs, run, SIDES)
    first = inputs.make_feeds(specs, recipes, _RNG_SEED)
    count = max(4, min(SAMPLES, BYTES_MAX // max(1, sum(array.nbytes for array in first.values()))))
    feeds = [inputs.make_feeds(specs, recipes, _RNG_SEED + number * len(specs)) for number in range(count)]
    feeds, note = _better(graph, folder, jobs, specs, feeds, run)
    most = max(min(JUDGED_LEAST, len(feeds) // 2), int(JUDGED_SHARE * len(feeds)))
    judged = set(spread(len(feeds), most, np.random.default_rng(_RNG_SEED)).tolist())
    return Samples(
        [each for number, each in enumerate(feeds) if number in judged],
        [each for number, each in enumerate(feeds) if number not in judged],
        None,
        f"{note}; real inputs say more: --calib x.npz",
    )


def _better(
    graph: Graph, folder: Path, jobs: int, specs: Sequence[TensorSpec], feeds: list[dict[str, Array]], run: Run
) -> tuple[list[dict[str, Array]], str]:
    """Return inputs that excite the model more than these random numbers do where there are some, and what they are."""
    note = "random numbers"
    shapes = {spec.name: feeds[0][spec.name].shape for spec in specs}
    floats = [spec.name for spec in specs if spec.dtype == "float32"]
    if pictures := [name for name in floats if _is_picture(shapes[name])]:
        note = "random smooth pictures"
        for number, each in enumerate(feeds):
            each.update({name: picture(shapes[name], _RNG_SEED + number) for name in pictures})
    if floats and all(len(shape) > 1 and shape[0] == 1 for shape in shapes.values()):
        matched = match(graph, feeds, floats, folder, jobs)
        if matched is not None:
            return matched, f"{note}, changed until batch norms saw what they saw in training"
    if tokens := [name for name in index_limits(graph) if name in shapes and len(shapes[name]) == 2]:
        texts = written(index_limits(graph)[tokens[0]], tokens[0], feeds[:TEXTS], run)
        if texts is not None:
            return texts, "texts that the model wrote itself"
        note = "random tokens, rare ones as often as frequent ones"
    return feeds, note


def picture(shape: tuple[int, ...], rng_seed: int) -> npt.NDArray[np.float32]:
    """Draw a picture whose spectrum falls with the frequency, as that of photographs does.

    Args:
        shape: four axes, with the channels second or last.
        rng_seed: random state.

    Source: Field, "Relations between the statistics of natural images and the response properties of cortical cells"
    (1987): amplitudes fall as 1 / frequency.
    """
    last = _channels_last(shape)
    channels, height, width = (shape[3], shape[1], shape[2]) if last else shape[1:]
    rng = np.random.default_rng(rng_seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1 / max(height, width)
    noise = np.fft.rfft2(rng.standard_normal((shape[0], channels + 1, height, width))) / frequency
    smooth = np.fft.irfft2(noise, (height, width))
    mixed = COLOUR_SHARE**0.5 * smooth[:, :1] + (1 - COLOUR_SHARE) ** 0.5 * smooth[:, 1:]
    mixed *= PICTURE_SCALE / mixed.std()
    return (np.moveaxis(mixed, 1, 3) if last else mixed).astype(np.float32)


def written(vocabulary: int, name: str, feeds: Sequence[Feeds], run: Run) -> list[dict[str, Array]] | None:
    """Let a language model write texts, each token drawn by the probabilities that it gives after those before.

    All places of a text are drawn at once, again and again with the same random numbers: the first of them that isn't
    settled yet is after each round, so that a text that no longer changes is what drawing token by token gives.

    Args:
        vocabulary: number of tokens.
        name: the input that takes them, `(batch, length)`.
        feeds: inputs that the model takes, with random tokens; the first of each text stays.
        run: runs it.

    Returns:
        The same with tokens that it wrote; None where the model doesn't give each token a score at each place, or
        looks at what comes behind.

    Source: Song et al., "Accelerating feedforward computation via parallel nonlinear equation solving" (ICML 2021).
    """
    wanted = (*feeds[0][name].shape, vocabulary)
    try:
        found = run(feeds[0])
        scores = [key for key, array in found.items() if array.shape == wanted and array.dtype.kind == "f"]
        if not scores or wanted[1] < 2:
            return None
        other = {**feeds[0], name: feeds[0][name].copy()}
        other[name][:, -1] = (other[name][:, -1] + 1) % vocabulary
        if not np.allclose(run(other)[scores[0]][:, :-1], found[scores[0]][:, :-1], rtol=1e-3, atol=1e-3):
            return None
        texts = []
        for number, each in enumerate(feeds):
            text = {**each, name: each[name].copy()}
            noise = np.random.default_rng(_RNG_SEED + number).gumbel(size=(wanted[0], wanted[1] - 1, vocabulary))
            for _ in range(ROUNDS):
                drawn = np.argmax(_logs(run(text)[scores[0]][:, :-1]) + noise, axis=-1)
                if np.array_equal(drawn, text[name][:, 1:]):
                    break
                text[name][:, 1:] = drawn
            texts.append(text)
    except SeedError:
        return None
    return texts


def _logs(scores: Array) -> npt.NDArray[np.float64]:
    """Return scores, or the logarithms of those that are probabilities."""
    values = np.nan_to_num(scores.astype(np.float64))
    if values.min() >= 0 and np.allclose(values.sum(axis=-1), 1, atol=1e-3):
        return np.log(np.maximum(values, 1e-30))
    return values


def _is_picture(shape: tuple[int, ...]) -> bool:
    if len(shape) != 4:
        return False
    sides = shape[1:3] if _channels_last(shape) else shape[2:]
    return min(sides) >= PICTURE_MIN


def _channels_last(shape: tuple[int, ...]) -> bool:
    return shape[3] <= 4 < shape[1]
