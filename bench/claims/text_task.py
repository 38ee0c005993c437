"""Descriptions and English for torch: batches, masked words, English without labels, held-out windows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .inputs import BEGIN, BLANK, MASK, WINDOW

SPECIAL = 5  # ids below are no words
ROUND = 32  # lengths of batches are multiples [token]
GROUPS = 6  # of descriptions of about one length, equally many in each


class TokensMissingError(FileNotFoundError):
    """The texts weren't tokenized."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is missing; run python -m bench.claims.tokens --data {self.path.parent}"


class Sections:
    """Descriptions with their section, and streams of text to pre-train and distil with.

    Args:
        folder: of what `bench.claims.tokens` wrote.
        where: the device.
        rng_seed: of batches.
        most: at most so many rows of each part, for tests.
    """

    def __init__(self, folder: Path, where: torch.device, rng_seed: int = 0, most: int | None = None) -> None:
        self.where, self.rng = where, torch.Generator(where).manual_seed(rng_seed)
        train, held = (_arrays(folder / f"sections-{side}.npz") for side in ("train", "held"))
        self.classes = len(train["classes"])
        validates = train["validates"]
        self._train = self._part(train, ~validates, most)
        self._validation = self._part(train, validates, most)
        self._held = self._part(held, np.ones(len(held["ids"]), bool), most)
        self.held_clusters = held["source"][:most]
        lengths = (self._train[0] != BLANK).sum(1)
        self._order = lengths.argsort(stable=True)
        ends = [len(lengths) * part // GROUPS for part in range(GROUPS + 1)]
        longest = [int(lengths[self._order[last - 1]]) for last in ends[1:]]
        self._groups = [
            (first, last, -(-length // ROUND) * ROUND)
            for first, last, length in zip(ends, ends[1:], longest, strict=False)
        ]
        self._rng_groups, self._turn = np.random.default_rng(rng_seed), list[int]()
        stream = np.load(_existing(folder / "wordpieces.npy")).astype(np.int32)
        own = train["ids"][~validates]
        # The descriptions are among what is pre-trained on: they are the texts to understand.
        self.stream = torch.from_numpy(
            np.concatenate([stream, own[(own != BLANK) & (own != BEGIN)].astype(np.int32)])
        ).to(where)
        self.words = int(max(self.stream.max(), own.max())) + 1

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Return ids `(count, length)` and labels of descriptions.

        All are of one group of lengths, each group in turn: of drawn ones the longest is nearly always 192 tokens, the
        median 66. Nothing is asked of the device, which a step would wait for.
        """
        if not self._turn:
            self._turn = self._rng_groups.permutation(GROUPS).tolist()
        first, last, length = self._groups[self._turn.pop()]
        chosen = self._order[torch.randint(first, last, (count,), device=self.where, generator=self.rng)]
        return self._train[0][chosen, :length], self._train[1][chosen]

    def english(self, count: int, length: int) -> Tensor:
        """Return ids `(count, length)` of running text, the first token of each the beginning's."""
        first = torch.randint(len(self.stream) - length, (count,), device=self.where, generator=self.rng)
        ids = self.stream[first[:, None] + torch.arange(length, device=self.where)].long()
        ids[:, 0] = BEGIN
        return ids

    def masked(self, count: int, length: int, share: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids with words masked, the positions `(count, k)`, and the words that stood there `(count * k,)`.

        Of those positions 80 % are masked, 10 % hold another word, 10 % their own.
        Source: Devlin et al. 2018, section 3.1.
        """
        ids = self.english(count, length)
        draws = torch.rand(count, length - 1, device=self.where, generator=self.rng)
        chosen = draws.topk(max(1, int(share * length)), 1).indices + 1
        truth = ids.gather(1, chosen)
        what = torch.rand(chosen.shape, device=self.where, generator=self.rng)
        other = torch.randint(SPECIAL, self.words, chosen.shape, device=self.where, generator=self.rng)
        shown = torch.where(what < 0.8, MASK, torch.where(what < 0.9, other, truth))
        return ids.scatter(1, chosen, shown), chosen, truth.flatten()

    def dropped(self, ids: Tensor, most: float) -> Tensor:
        """Mask a share of the words, drawn for each row up to `most`."""
        share = most * torch.rand(len(ids), 1, device=self.where, generator=self.rng)
        hit = torch.rand(ids.shape, device=self.where, generator=self.rng) < share
        return torch.where(hit & (ids >= SPECIAL), MASK, ids)

    def validation(self, size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of the validation part: other sources than are trained on."""
        return _batches(self._validation, size)

    def held(self, size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of the held-out side."""
        return _batches(self._held, size)

    def _part(self, arrays: dict[str, np.ndarray], rows: np.ndarray, most: int | None) -> tuple[Tensor, Tensor]:
        ids = torch.from_numpy(arrays["ids"][rows][:most].astype(np.int64))
        label = torch.from_numpy(arrays["label"][rows][:most].astype(np.int64))
        return ids.to(self.where), label.to(self.where)


class English:
    """Byte pairs of documents.

    Args:
        folder: of what `bench.claims.tokens` wrote.
        where: the device.
        rng_seed: of batches.
        window: tokens of a sample.
        most: held-out windows.
    """

    def __init__(
        self, folder: Path, where: torch.device, rng_seed: int = 0, window: int = WINDOW, most: int = 256
    ) -> None:
        self.where, self.window, self.rng = where, window, torch.Generator(where).manual_seed(rng_seed)
        train = np.load(_existing(folder / "bytepairs-train.npy")).astype(np.int32)
        held = np.load(_existing(folder / "bytepairs-held.npy")).astype(np.int64)
        # The last part validates: documents are shuffled, so it is like the rest.
        cut = len(train) - max(window + 1, min(len(train) // 50, 64 * window))
        self._train = torch.from_numpy(train[:cut]).to(where)
        self._validation = _windows(train[cut:].astype(np.int64), window, 64)
        self._held = _windows(held, window, most)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Return windows `(count, window)` and the tokens after each of theirs."""
        first = torch.randint(len(self._train) - self.window - 1, (count,), device=self.where, generator=self.rng)
        ids = self._train[first[:, None] + torch.arange(self.window + 1, device=self.where)].long()
        return ids[:, :-1], ids[:, 1:]

    def validation(self, size: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of windows that aren't trained on."""
        return self._batches(self._validation, size)

    def held(self, size: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of held-out packages' windows."""
        return self._batches(self._held, size)

    def _batches(self, windows: np.ndarray, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(windows), size):
            ids = torch.from_numpy(windows[first : first + size]).to(self.where)
            yield ids[:, :-1], ids[:, 1:]


def trimmed(ids: Tensor) -> Tensor:
    """Cut off the columns that are blank in all rows, to a multiple of 32: few lengths, little padding."""
    used = int((ids != BLANK).sum(1).max())
    return ids[:, : max(ROUND, -(-used // ROUND) * ROUND)]


def _batches(part: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(part[0]), size):
        yield trimmed(part[0][first : first + size]), part[1][first : first + size]


def _windows(tokens: np.ndarray, window: int, most: int) -> np.ndarray:
    """Return `(n, window + 1)`: windows side by side, each with the token after it."""
    count = max(1, min(most, (len(tokens) - 1) // window))
    return np.stack([tokens[index * window : index * window + window + 1] for index in range(count)])


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(_existing(path), allow_pickle=False) as arrays:
        return dict(arrays)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise TokensMissingError(path)
    return path
