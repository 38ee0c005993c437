"""Data of the claims in the shape of the real, so small that everything is trained in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.claims.data.files import write_arrays

WORDS, CLASSES = 60, 3


def tiny_data(folder: Path) -> Path:
    """Write bars at three places, and token ids that tell the class."""
    rng = np.random.default_rng(0)
    for side, count in (("train", 240), ("held", 60)):
        y = np.arange(count) % CLASSES
        x = rng.integers(0, 3, (count, 48, 24), dtype=np.uint8)
        for image, label in zip(x, y, strict=True):
            image[8 + 12 * label : 16 + 12 * label] = 0xFF
        font = (np.arange(count) // CLASSES % 4).astype(np.uint16)
        lines = "\n".join(f"fonts-{side}-{number}\tfamily\tpath" for number in range(4))
        write_arrays(
            folder / f"glyphs-{side}.npz.xz",
            {"x": x, "y": y.astype(np.uint16), "font": font, "fonts": np.array(lines), "classes": np.arange(CLASSES)},
        )
        ids = rng.integers(8, WORDS, (count, 192), dtype=np.uint16)
        ids[:, 0], ids[:, 1], ids[:, 20:] = 2, 5 + y, 0
        np.savez(
            folder / f"sections-{side}.npz",
            ids=ids, label=y.astype(np.uint8), source=np.arange(count, dtype=np.uint32),
            validates=np.arange(count) % 10 == 0, classes=np.array(["a", "b", "c"]),
        )  # fmt: skip
    np.save(folder / "wordpieces.npy", rng.integers(5, WORDS, 4000, dtype=np.uint16))
    np.save(folder / "bytepairs-train.npy", rng.integers(0, 200, 9000, dtype=np.uint16))
    np.save(folder / "bytepairs-held.npy", rng.integers(0, 200, 900, dtype=np.uint16))
    return folder
