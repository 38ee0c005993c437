"""Photos: Tux Paint's stamps with known classes to test on, desktop wallpapers to calibrate on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .base import check_split
from .fetch import debian, whole_file
from .stamps import STAMPS

STAMP_PACKAGE = ("tuxpaint-stamps-default", "2022.06.04-1")
WALLPAPER_PACKAGES = (
    ("gnome-backgrounds", "43.1-1"),
    ("mate-backgrounds", "1.26.0-1"),
    ("plasma-workspace-wallpapers", "4:5.27.5-2"),
)
SIZE = 224  # [pixel]
WALLPAPER_HEIGHT = 480  # [pixel]; large enough for crops, small enough to hold all of them decoded
# Background, share of the frame, mirrored: with several views, the score depends less on chance in one picture.
VIEWS = ((255, 0.95, False), (255, 0.8, True), (208, 0.95, True), (255, 0.65, False))


@dataclass(frozen=True)
class View:
    """One picture `(224, 224, 3)` uint8 RGB and the classes that are right for it."""

    image: np.ndarray
    labels: tuple[int, ...]


def fetch_all(cache: Path) -> None:
    """Fetch the stamps and the wallpapers, and store the wallpapers at a smaller size."""
    debian(cache, *STAMP_PACKAGE)
    _wallpapers(cache)


def images(cache: Path, n: int, split: str) -> list[np.ndarray]:
    """Return n images `(224, 224, 3)` uint8 RGB; fewer for 'test' where there are no more."""
    check_split(split)
    if split == "test":
        return [view.image for view in stamp_views(cache, n)]
    walls = _wallpapers(cache)
    draw = np.random.default_rng(0)
    crops = []
    for index in range(n):
        wall = walls[index % len(walls)]
        side = int(draw.integers(SIZE, WALLPAPER_HEIGHT + 1))
        top = int(draw.integers(0, wall.shape[0] - side + 1))
        left = int(draw.integers(0, wall.shape[1] - side + 1))
        crop = Image.fromarray(wall[top : top + side, left : left + side])
        crops.append(np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
    return crops


def stamp_views(cache: Path, limit: int | None = None) -> list[View]:
    """Return the stamps in all views, at most `limit`; first every stamp in one view."""
    root = debian(cache, *STAMP_PACKAGE) / "usr/share/tuxpaint/stamps"
    chosen = [(name, view) for view in VIEWS for name in sorted(STAMPS)][:limit]
    return [View(_draw(root / f"{name}.png", *view), STAMPS[name]) for name, view in chosen]


def _draw(path: Path, background: int, share: float, mirrored: bool) -> np.ndarray:
    with Image.open(path) as opened:
        stamp = opened.convert("RGBA")
    scale = SIZE * share / max(stamp.size)
    width, height = (max(1, round(side * scale)) for side in stamp.size)
    stamp = stamp.resize((width, height), Image.Resampling.BICUBIC)
    if mirrored:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    frame = Image.new("RGBA", (SIZE, SIZE), (background, background, background, 255))
    frame.alpha_composite(stamp, ((SIZE - width) // 2, (SIZE - height) // 2))
    return np.asarray(frame.convert("RGB"))


def _wallpapers(cache: Path) -> list[np.ndarray]:
    target = cache / "data" / "wallpapers.npz"
    if not target.exists():
        walls = {}
        for package in WALLPAPER_PACKAGES:
            root = debian(cache, *package)
            for path in _one_per_motif(root):
                walls[str(path.relative_to(root)).replace("/", "|")] = _small(path)
        with whole_file(target) as path:
            np.savez(path, allow_pickle=False, **walls)
    with np.load(target) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]


def _one_per_motif(root: Path) -> list[Path]:
    motifs: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in {".jpg", ".png", ".webp"} and path.is_file() and "screenshot" not in path.name:
            motif = re.sub(r"(/contents/images.*|(-[dl])?(_\d+x\d+)?\.\w+)$", "", str(path))
            motifs.setdefault(motif, []).append(path)
    return [min(paths, key=_distance_to_full_hd) for paths in motifs.values()]


def _distance_to_full_hd(path: Path) -> tuple[int, str]:
    size = re.fullmatch(r"(\d+)x(\d+)", path.stem)
    return (abs(int(size[1]) - 1920) + abs(int(size[2]) - 1080) if size else 0, str(path))


def _small(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        opened.draft("RGB", (1920, 1080))  # a JPEG is decoded at a fraction of its size
        picture = opened.convert("RGB")
    width = max(WALLPAPER_HEIGHT, round(picture.width * WALLPAPER_HEIGHT / picture.height))
    return np.asarray(picture.resize((width, WALLPAPER_HEIGHT), Image.Resampling.BICUBIC))
