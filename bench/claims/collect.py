"""`python -m bench.claims.collect OUT TO`: bring back what a hold left, in files that fit into a transfer each.

Without `--checkpoint`: seeds, results, verdicts and logs as one archive. With it: a checkpoint's pieces as they are,
part by part where they are too many for one transfer; all parts in one folder are the checkpoint again. With `--state`
the same of a healing's state.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
from pathlib import Path

from . import checkpoints, pack, pieces, states

LARGEST = 16 * 2**20  # of a file [B]
PART = 60 * 2**20  # of the files of a transfer [B]
ARCHIVE = "results.tar.xz"
KEPT = (".seed", ".json", ".jsonl", ".npz", ".log")
LEFT_OUT = ("state",)  # folders of trainings that are over
DATA_ERROR = 3


def main(arguments: list[str] | None = None) -> int:
    """Fill the folder and print what is in it."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.collect", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of all jobs, as given to bench.claims.hold")
    parser.add_argument("to", type=Path, help="folder to fill")
    parser.add_argument("--checkpoint", metavar="JOB", help="copy this job's checkpoint in place of the results")
    parser.add_argument("--state", metavar="JOB", help="copy the state of this healing in place of the results")
    parser.add_argument("--part", type=int, default=1, help="of the checkpoint or the state (default: 1)")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    try:
        if options.checkpoint:
            lines = checkpoint(options.out / options.checkpoint, options.to / options.checkpoint, options.part)
        elif options.state:
            lines = state(options.out / options.state / "state", options.to / options.state / "state", options.part)
        else:
            lines = archive(options.out, options.to / ARCHIVE)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_ERROR
    print("\n".join(lines))
    return 0


def archive(out: Path, target: Path) -> list[str]:
    """Write everything but weights as one archive; return its names and sizes.

    Raises:
        ValueError: there is nothing, or it is too large for one transfer.
    """
    paths = [
        path
        for path in sorted(out.rglob("*"))
        if path.suffix in KEPT and path.name != checkpoints.LIST and not set(path.parts) & set(LEFT_OUT)
    ]
    if not paths:
        raise ValueError(f"{out} holds no results; give the folder that bench.claims.hold filled")
    with tarfile.open(target, "w:xz", preset=6) as file:
        for path in paths:
            file.add(path, path.relative_to(out))
    size = target.stat().st_size
    if size > LARGEST:
        largest = sorted(paths, key=lambda path: -path.stat().st_size)[:3]
        raise ValueError(
            f"{target} has {size:,} bytes, {LARGEST:,} at most; move away the largest of what is in it: "
            f"{', '.join(str(path.relative_to(out)) for path in largest)}"
        )
    return [f"{target}: {size:,} bytes, {len(paths)} files"]


def checkpoint(folder: Path, target: Path, part: int) -> list[str]:
    """Copy one part of a checkpoint's pieces, its list with each; return lines on all parts.

    Raises:
        ValueError: the checkpoint isn't whole, or has fewer parts.
    """
    checkpoints.load(folder)
    return _part(folder, target, part, pieces.WEIGHTS)


def state(folder: Path, target: Path, part: int) -> list[str]:
    """Copy one part of a healing's state, its list with each; return lines on all parts.

    Raises:
        OSError: there is none.
        ValueError: it has fewer parts.
    """
    if part == 1:
        states.split(folder)
    return _part(folder, target, part, pieces.STATE)


def _part(folder: Path, target: Path, part: int, stem: str) -> list[str]:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob(f"{stem}-*.bin"))}
    parts = pack.fill(sizes, PART)
    if not 1 <= part <= len(parts):
        raise ValueError(f"{folder} has {len(parts)} parts; give --part 1 to {len(parts)}")
    target.mkdir(parents=True, exist_ok=True)
    for name in [f"{stem}.json", *parts[part - 1]]:
        shutil.copyfile(folder / name, target / name)
    return [f"part {part} of {len(parts)} in {target}: {sum(sizes[name] for name in parts[part - 1]):,} bytes"]


if __name__ == "__main__":
    sys.exit(main())
