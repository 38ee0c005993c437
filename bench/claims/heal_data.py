"""`python -m bench.claims.heal_data`: write inputs to heal a network with, as `seed-export --heal` reads them.

They are of the training side, without its validation part, and augmented as in training. Glyphs take 49 KB each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import models, students
from .glyph_task import Glyphs
from .inputs import BLANK, LENGTH, WINDOW
from .text_task import English, Sections

AT_ONCE = 1000
DATA_ERROR = 3


def main(arguments: list[str] | None = None) -> int:
    """Write the file and print what is in it."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.heal_data", description=__doc__)
    parser.add_argument("name", choices=[*models.KINDS, *students.KINDS], help="the network that will be healed")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data and its tokens")
    parser.add_argument("--out", type=Path, required=True, help="the .npz file")
    parser.add_argument("--count", type=int, default=40_000, help="samples (default: 40,000)")
    parser.add_argument("--rng-seed", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="few samples to draw from, short windows")
    options = parser.parse_args(arguments)
    try:
        arrays = drawn(
            (models.KINDS | students.KINDS)[options.name], options.data, options.count, options.rng_seed, options.tiny
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_ERROR
    options.out.parent.mkdir(parents=True, exist_ok=True)
    part = options.out.with_name(f".{options.out.name}.part.npz")
    np.savez(part, allow_pickle=False, **arrays)
    part.replace(options.out)
    for name, array in arrays.items():
        print(f"{name}\t{array.dtype}\t{'x'.join(map(str, array.shape))}")
    return 0


def drawn(kind: str, data: Path, count: int, rng_seed: int, tiny: bool = False) -> dict[str, np.ndarray]:
    """Return one array for each input of a network of a kind, and `labels` where it is a classifier."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = [min(AT_ONCE, count - first) for first in range(0, count, AT_ONCE)]
    if kind == "glyphs":
        glyphs = Glyphs(data, where, rng_seed, 64 if tiny else None)
        x, y = _joined([glyphs.batch(size) for size in sizes])
        return {"image": np.ascontiguousarray(x, np.float32), "labels": y}
    if kind == "english":
        english = English(data, where, rng_seed, 32 if tiny else WINDOW)
        x, _ = _joined([english.batch(size) for size in sizes])
        return {"input_ids": x}
    sections = Sections(data, where, rng_seed, 64 if tiny else None)
    parts = []
    for size in sizes:
        ids, label = sections.batch(size)
        ids = sections.dropped(ids, 0.5)
        parts.append((torch.nn.functional.pad(ids, (0, LENGTH - ids.shape[1]), value=BLANK), label))
    ids, labels = _joined(parts)
    return {"input_ids": ids, "attention_mask": (ids != BLANK).astype(np.int64), "labels": labels}


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.concatenate([part[at].cpu().numpy() for part in parts]) for at in (0, 1))  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
