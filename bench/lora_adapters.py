"""Low-rank adapters in torch, and their bytes by the coder of deltas; for bench/lora.py.

Each matrix of a network, kernels of convolutions as `(outputs, inputs * height * width)`, gets two factors whose
product is added to it. Steps, batches, rates over time, looks and the end are those of the tuner's `small`. The factors
are made alike in size by their product's singular values, quantized, and coded in one stream with a delta's header.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.skeleton_graph import graph_of
from seed_exporter.heal.interpreter import Interpreter
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.codecs import BY_NAME
from seed_runtime.codecs.encode import delta as encoder
from seed_runtime.format.header import BaseInfo, Header, Tuned, WeightsInfo
from seed_runtime.format.writer import front, stream_of
from seed_runtime.seed import Seed
from seed_runtime.skeletons.training import scan_training
from seed_runtime.tune.descent import LOOKS, PATIENCE
from seed_runtime.tune.records import STEPS, UNUSABLE, Score, Settings
from seed_runtime.tune.rounding import VECTOR_SHARE
from seed_runtime.tune.samples import Split

RISE = 5
"""Steps over which the rate rises."""
PICTURES_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class Adapter:
    """What was trained.

    Attributes:
        factors: `(outputs, rank)` and `(rank, inputs)` of each matrix, by its name.
        vectors: what is added to each scale and bias, by its name; empty where none was trained.
        score: on the samples that chose it.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    vectors: Mapping[str, Tensor]
    score: Score


class Trainer:
    """Trains adapters of a seed's model, which stays as it is, batch norms included.

    Args:
        seed: with a training graph.
        samples: inputs by name, and `labels`, the number of a class for each sample, or for each place in it.
        parts: which of the samples are trained on, and which choose.
        cache: where the seed is assembled.
    """

    def __init__(self, seed: Seed, samples: Mapping[str, np.ndarray], parts: Split, cache: ModelCache) -> None:
        holes = seed.header.holes
        with seed.assembled_weights(cache) as weights:
            graph = graph_of(
                bytes(seed.skeleton_bytes()), b"", holes, lambda number: weights.read(number, 0, holes[number].count)
            )
            self._network = Interpreter(graph)
        self._frozen = self._network.weights()
        info = scan_training(seed.training_graph(), bytes(seed.skeleton_bytes()), seed.header.holes)
        tensors = {each.name: self._frozen[each.name] for each in info.tensors}
        self._matrices = [name for name, value in tensors.items() if sum(size > 1 for size in value.shape) > 1]
        self._vectors = [name for name in tensors if name not in self._matrices]
        inputs = {name: torch.from_numpy(array) for name, array in samples.items()}
        self._labels, self._inputs, self._parts = inputs.pop("labels"), inputs, parts

    def train(self, rank: int, rate: float, with_vectors: bool, rng_seed: int) -> Adapter:
        """Train factors of a rank, or of a matrix's own where that is less; return the best that a look found.

        Args:
            rank: of the products; 0 for no factors.
            rate: the highest one of Adam.
            with_vectors: whether scales and biases are trained beside the factors.
            rng_seed: of the first values and the order of samples.
        """
        rng = torch.Generator().manual_seed(rng_seed)
        factors = {name: _first(self._frozen[name], rank, rng) for name in (self._matrices if rank else ())}
        vectors = {name: torch.zeros_like(self._frozen[name]) for name in self._vectors} if with_vectors else {}
        trained = [*(factor for pair in factors.values() for factor in pair), *vectors.values()]
        for each in trained:
            each.requires_grad_()
        optimizer, best, waited = torch.optim.Adam(trained, rate), Adapter({}, {}, UNUSABLE), 0
        for step, rows in enumerate(islice(self._batches(rng), STEPS), 1):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, step / RISE) * (1 + math.cos(math.pi * (step - 1) / STEPS)) / 2
            loss = self._loss(Adapter(factors, vectors, UNUSABLE), rows)[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % -(-STEPS // LOOKS) == 0:
                with torch.no_grad():
                    found = Adapter(factors, vectors, UNUSABLE)
                    loss, right = self._loss(found, torch.from_numpy(self._parts.validation))
                score = Score(float(right), float(loss))
                waited = 0 if score > best.score else waited + 1
                if not waited:
                    best = Adapter(
                        {name: (b.detach().clone(), a.detach().clone()) for name, (b, a) in factors.items()},
                        {name: value.detach().clone() for name, value in vectors.items()},
                        score,
                    )
                if waited >= PATIENCE:
                    break
        return best

    def accuracy(self, adapter: Adapter | None, samples: Mapping[str, np.ndarray]) -> float:
        """Return the share of right answers with an adapter, or of the network alone."""
        labels = samples["labels"]
        weights, right = self._weights(adapter), 0
        for start in range(0, len(labels), PICTURES_AT_ONCE):
            part = {name: array[start : start + PICTURES_AT_ONCE] for name, array in samples.items()}
            wanted = part.pop("labels")
            with torch.no_grad():
                right += int((self._scores(weights, part).argmax(-1).numpy() == wanted).sum())
        return right / labels.size

    def of_shapes(self, adapter: Adapter) -> Adapter:
        """Return another network's adapter without vectors for the matrices of the same shapes; each is there once."""
        shapes = {(len(b), a.shape[1]): (b, a) for b, a in adapter.factors.values()}
        factors = {name: shapes[tuple(self._frozen[name].flatten(1).shape)] for name in self._matrices}
        return Adapter(factors, {}, adapter.score)

    def _batches(self, rng: torch.Generator) -> Iterator[Tensor]:
        rows = torch.from_numpy(self._parts.train)
        while True:
            order = rows[torch.randperm(len(rows), generator=rng)]
            yield from order.split(Settings.batch)[: len(order) // Settings.batch]

    def _loss(self, adapter: Adapter, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of some samples, and the share of right answers."""
        feeds = {name: array[rows] for name, array in self._inputs.items()}
        scores, labels = self._scores(self._weights(adapter), feeds).flatten(0, -2), self._labels[rows].flatten()
        return nn.functional.cross_entropy(scores, labels), (scores.argmax(1) == labels).float().mean()

    def _scores(self, weights: Mapping[str, Tensor], feeds: Mapping[str, Any]) -> Tensor:
        (output,) = self._network.outputs
        return self._network.run(feeds, weights)[output]

    def _weights(self, adapter: Adapter | None) -> dict[str, Tensor]:
        if adapter is None:
            return self._frozen
        added = {name: b @ a for name, (b, a) in adapter.factors.items()} | dict(adapter.vectors)
        changed = {name: self._frozen[name] + value.view(self._frozen[name].shape) for name, value in added.items()}
        return self._frozen | changed


def quantized(adapter: Adapter, share: float, seed: Seed) -> tuple[int, Adapter]:
    """Round an adapter, and code it as a file.

    Args:
        adapter: as it was trained.
        share: step of each factor, as a share of its root mean square; vectors have a finer one, as in deltas.
        seed: what the file's header names as its base.

    Returns:
        Size of the file [B], and the adapter as it is decoded from it.
    """
    parts = {}
    for name, pair in adapter.factors.items():
        parts[name, "b"], parts[name, "a"] = _balanced(*pair)
    parts |= {(name, ""): value.reshape(1, -1).numpy() for name, value in adapter.vectors.items()}
    changes, decoded = [], {}
    for (name, side), value in parts.items():
        rms = float(np.sqrt(np.mean(np.square(value, dtype=np.float64))))
        step = encoder.rounded_step((share if side else min(share, VECTOR_SHARE)) * rms)
        changes.append(encoder.quantized(value, step))
        decoded[name, side] = torch.from_numpy(np.rint(value / step).astype(np.float32) * np.float32(step))
    factors = {name: (decoded[name, "b"], decoded[name, "a"]) for name in adapter.factors}
    vectors = {name: decoded[name, ""][0] for name in adapter.vectors}
    return _file_size(changes, seed), Adapter(factors, vectors, adapter.score)


def _file_size(changes: list[encoder.Change], seed: Seed) -> int:
    """Return the size of a file like a delta's: what it says of itself and its base, and one stream."""
    chunks = encoder.encode(changes).chunks
    header = Header(
        model=seed.header.model,
        weights=WeightsInfo(seed.header.weights.size, bytes(32)),
        parts=(),
        holes=(),
        streams=(stream_of(BY_NAME["delta"].number, 0, len(changes), chunks),),
        base=BaseInfo(seed.digest, seed.header.depth_above),
        tuned=Tuned("small", "accuracy", 0.0, 0.0),
    )
    return len(front(header)) + header.body_size


def _first(matrix: Tensor, rank: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return factors whose product is 0: zeros, and random numbers as wide as those of a fresh layer."""
    outputs, inputs = matrix.flatten(1).shape
    rank = min(rank, outputs, inputs)
    return torch.zeros(outputs, rank), (2 * torch.rand(rank, inputs, generator=rng) - 1) / math.sqrt(inputs)


def _balanced(b: Tensor, a: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return factors of the same product, each with the square roots of its singular values."""
    u, s, v = np.linalg.svd((b.double() @ a.double()).numpy(), full_matrices=False)
    root = np.sqrt(s[: b.shape[1]])
    left, right = u[:, : b.shape[1]] * root, root[:, None] * v[: b.shape[1]]
    return left.astype(np.float32), right.astype(np.float32)
