"""Inputs to heal a network with: batches augmented afresh for each step, and samples that judge the states.

Both are of the training side; what judges is of its validation part, which isn't trained on. Healing mixes batches
itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .inputs import BLANK, LENGTH

UNLABELLED = -100  # as cross-entropy of torch leaves out
MASKED = 0.5  # of the words of a description at most
WINDOWS_EACH = 4  # a window of English counts as so many samples: 1,024 tokens each
JUDGES = {"glyphs": 1000, "sections": 1000, "english": 32}
JUDGING_WINDOW = 256  # of English: the original's answers are held, 50 MB a window [token]


class HealInputs:
    """Inputs of one task.

    Args:
        kind: of `runs.kind_of`.
        task: of `runs.task_of`.
    """

    def __init__(self, kind: str, task: Any) -> None:
        self.kind, self._task = kind, task
        self.batches = 0
        """Batches that were drawn: one for each step, and a few to estimate batch norms on."""

    def draw(self, count: int) -> dict[str, Tensor]:
        """Return a batch by input name, with `labels`; of texts in one of a few lengths, else always in one shape."""
        self.batches += 1
        return {"glyphs": self._glyphs, "sections": self._sections, "english": self._english}[self.kind](count)

    def write_judges(self, path: Path) -> Path:
        """Write the samples that judge, as `seed-export --heal` reads them; fewer where the data is small."""
        np.savez(path, allow_pickle=False, **self.judges())
        return path

    def judges(self) -> dict[str, np.ndarray]:
        """Return the samples that judge, spread evenly over the validation part."""
        pairs = list(self._task.validation())
        if self.kind == "english":
            return {"input_ids": torch.cat([x for x, _ in pairs])[: JUDGES["english"], :JUDGING_WINDOW].cpu().numpy()}
        labels = torch.cat([y for _, y in pairs])
        rows = torch.arange(min(JUDGES[self.kind], len(labels))) * len(labels) // min(JUDGES[self.kind], len(labels))
        if self.kind == "glyphs":
            images = torch.cat([x.contiguous() for x, _ in pairs]).cpu()[rows]
            return {"image": images.numpy(), "labels": labels.cpu()[rows].numpy()}
        padded = [torch.nn.functional.pad(x, (0, LENGTH - x.shape[1]), value=BLANK) for x, _ in pairs]
        ids = torch.cat(padded).cpu()[rows]
        return {
            "input_ids": ids.numpy(),
            "attention_mask": (ids != BLANK).long().numpy(),
            "labels": labels.cpu()[rows].numpy(),
        }

    def _glyphs(self, count: int) -> dict[str, Tensor]:
        x, labels = self._task.batch(count)
        return {"image": x, "labels": labels}

    def _sections(self, count: int) -> dict[str, Tensor]:
        # Of one group of lengths each: padded to the longest, half of what is computed would be blank.
        extra = count // 4
        ids, labels = self._task.batch(count - extra)
        ids = torch.cat([self._task.dropped(ids, MASKED), self._task.english(extra, ids.shape[1])])
        labels = torch.nn.functional.pad(labels, (0, extra), value=UNLABELLED)
        return {"input_ids": ids, "attention_mask": (ids != BLANK).long(), "labels": labels}

    def _english(self, count: int) -> dict[str, Tensor]:
        ids, following = self._task.batch(max(1, count // WINDOWS_EACH))
        return {"input_ids": ids, "labels": following}
