"""`python -m bench.claims.pack`: copy the data into folders that fit into one transfer each, with a list of digests."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

PATTERNS = ("glyphs-*.npz.xz", "sections-*.json.xz", "english-*.txt.xz", "wordpiece.json.xz", "bytepairs.json.xz")
MOST = 55_000_000  # of a folder [B]
SUMS = "SHA256SUMS"


def main(arguments: list[str] | None = None) -> int:
    """Fill the folders and print what is in them."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.pack", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--out", type=Path, required=True, help="the folders 1, 2, ... are made here")
    parser.add_argument("--most", type=int, default=MOST, help=f"bytes of a folder (default: {MOST:,})")
    options = parser.parse_args(arguments)
    paths = sorted(path for pattern in PATTERNS for path in options.data.glob(pattern))
    try:
        folders = fill({path.name: path.stat().st_size for path in paths}, options.most)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    for number, names in enumerate(folders, 1):
        folder = options.out / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for name in names:
            shutil.copyfile(options.data / name, folder / name)
            lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")
        (folder / f"{SUMS}.{number}").write_text("".join(lines))
        size = sum((folder / name).stat().st_size for name in names)
        print(f"{folder}: {size:,} bytes: {' '.join(names)}")
    return 0


def fill(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Put files into as few folders as first-fit in descending order needs.

    Raises:
        ValueError: a file is larger than a folder may be, or there are none.
    """
    if not sizes:
        raise ValueError("the folder holds no data; make it with python -m bench.claims.data all --out FOLDER")
    folders: list[list[str]] = []
    left: list[int] = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sizes[name] > most:
            raise ValueError(f"{name} has {sizes[name]:,} bytes, a folder {most:,} at most; allow more with --most")
        for index, free in enumerate(left):
            if sizes[name] <= free:
                folders[index].append(name)
                left[index] -= sizes[name]
                break
        else:
            folders.append([name])
            left.append(most - sizes[name])
    return [sorted(names) for names in folders]


if __name__ == "__main__":
    sys.exit(main())
