"""`python -m bench.claims.pack`: copy the data into folders that fit into one transfer each, with a list of digests.

With `--with` also what an earlier hold left: checkpoints, and states of healings that go on. All folders in one are
what `bench.claims.hold` takes as `--data`, and as `--out` its folder `out`.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from . import pieces

PATTERNS = ("glyphs-*.npz.xz", "sections-*.json.xz", "english-*.txt.xz", "wordpiece.json.xz", "bytepairs.json.xz")
MOST = 46_000_000  # of a folder [B]: a transfer of 64 MiB has the working tree's 14 MB in it as well
SUMS = "SHA256SUMS"
OUT = "out"
TRAINED = (f"{pieces.WEIGHTS}.json", f"{pieces.WEIGHTS}-*.bin", "result.json", "verdicts.npz")
STATE = (f"{pieces.STATE}.json", f"{pieces.STATE}-*.bin")


def main(arguments: list[str] | None = None) -> int:
    """Fill the folders and print what is in them."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.pack", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--out", type=Path, required=True, help="the folders 1, 2, ... are made here")
    parser.add_argument("--with", dest="hold", type=Path, help="folder of the jobs of an earlier hold, to go on from")
    parser.add_argument("--most", type=int, default=MOST, help=f"bytes of a folder (default: {MOST:,})")
    options = parser.parse_args(arguments)
    paths = sorted(path for pattern in PATTERNS for path in options.data.glob(pattern))
    sources = {path.name: path for path in paths}
    if paths and options.hold:
        sources |= {f"{OUT}/{path.relative_to(options.hold)}": path for path in left_by(options.hold)}
    try:
        folders = fill({name: path.stat().st_size for name, path in sources.items()}, options.most)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    for number, names in enumerate(folders, 1):
        folder = options.out / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sources[name], folder / name)
            lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")
        (folder / f"{SUMS}.{number}").write_text("".join(lines))
        size = sum((folder / name).stat().st_size for name in names)
        print(f"{folder}: {size:,} bytes: {' '.join(names)}")
    return 0


def left_by(hold: Path) -> list[Path]:
    """Return the files of an earlier hold that another one goes on from.

    Of a network its pieces, list and results, by which it is known to be trained; of a healing its state in pieces, and
    nothing that says it is over.
    """
    networks = [path.parent for path in sorted(hold.glob(f"*/{TRAINED[0]}"))]
    found = [path for folder in networks for name in TRAINED for path in sorted(folder.glob(name))]
    states_left = [path.parent for path in sorted(hold.glob(f"*/state/{STATE[0]}"))]
    return found + [path for folder in states_left for name in STATE for path in sorted(folder.glob(name))]


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
