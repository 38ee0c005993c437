"""`python -m bench.claims.collect OUT TO`: bring back what a hold left, in files that fit into a transfer each.

Without options: seeds, results, verdicts and logs as one archive. With `--state` and `--checkpoint`: the pieces of
these healings and networks in place of it, or with `--results` beside it, in the order in which they are named, and
part by part where they are too many for one transfer. All parts in one folder are states and checkpoints again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from . import checkpoints, states

LARGEST = 16 * 2**20  # of a file [B]
PART = 60 * 2**20  # of the files of a transfer [B]
FILES_MOST = 8  # of a transfer
ARCHIVE = "results.tar.xz"
KEPT = (".seed", ".json", ".jsonl", ".npz", ".log")
LEFT_OUT = ("state",)  # folders of trainings that are over
DATA_ERROR = 3


def main(arguments: list[str] | None = None) -> int:
    """Fill the folder and print what is in it."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.collect", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of all jobs, as given to bench.claims.hold")
    parser.add_argument("to", type=Path, help="folder to fill")
    parser.add_argument("--results", action="store_true", help="the archive as well, with the first part")
    parser.add_argument("--state", nargs="+", default=[], metavar="JOB", help="copy the states of these healings")
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="JOB", help="copy the checkpoints of these jobs")
    parser.add_argument("--part", type=int, default=1, help="of what is copied (default: 1)")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    with_results = options.results or not (options.state or options.checkpoint)
    faults: list[Exception] = []

    def found(what: Callable[..., list[Path]], *given: object) -> list[Path]:
        # What isn't there, since its job failed, must not keep the rest.
        try:
            return what(*given)
        except (OSError, ValueError) as error:
            faults.append(error)
            return []

    files = [path for job in options.state for path in found(state, options.out / job / "state", options.part == 1)]
    files += [path for job in options.checkpoint for path in found(checkpoint, options.out / job)]
    parts = divided(files, LARGEST if with_results else 0)
    if options.part > max(1, len(parts)) or options.part < 1:
        faults.append(ValueError(f"{options.out} has {len(parts)} parts; give --part 1 to {len(parts)}"))
    elif files:
        copied = parts[options.part - 1]
        for path in copied:
            target = options.to / path.relative_to(options.out)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        size = sum(path.stat().st_size for path in copied)
        print(f"part {options.part} of {len(parts)} in {options.to}: {size:,} bytes, {len(copied)} files")
    if with_results and options.part == 1:
        faults += _archived(options.out, options.to / ARCHIVE)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return DATA_ERROR if faults else 0


def _archived(out: Path, target: Path) -> list[Exception]:
    try:
        print(archive(out, target))
    except (OSError, ValueError) as error:
        return [error]
    return []


def archive(out: Path, target: Path) -> str:
    """Write everything but weights as one archive; return its name and size.

    Raises:
        ValueError: there is nothing, or it is too large for one transfer.
    """
    paths = [
        path
        for path in sorted(out.rglob("*"))
        if path.suffix in KEPT
        and path.name != checkpoints.LIST
        and not set(path.relative_to(out).parts) & set(LEFT_OUT)
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
    return f"{target}: {size:,} bytes, {len(paths)} files"


def checkpoint(folder: Path) -> list[Path]:
    """Return the files of a checkpoint, its list first.

    Raises:
        ValueError: it isn't whole.
    """
    checkpoints.load(folder)
    return _listed(folder / checkpoints.LIST)


def state(folder: Path, is_first: bool) -> list[Path]:
    """Return the files of a healing's state, its list first.

    Args:
        folder: of the state.
        is_first: whether to take the state as it is now; else it stays in the pieces that it was put into before.

    Raises:
        OSError: there is none.
    """
    if is_first:
        states.split(folder)
    return _listed(folder / states.LIST)


def _listed(path: Path) -> list[Path]:
    return [path, *(path.parent / piece["file"] for piece in json.loads(path.read_text())["pieces"])]


def divided(files: Sequence[Path], taken: int) -> list[list[Path]]:
    """Put files into parts in their order, by their bytes and their number.

    Args:
        files: of which lists count as files alone: a transfer has room for their bytes.
        taken: bytes of the first part that are for another file; 0 for none.
    """
    parts: list[list[Path]] = [[]] if files else []
    size, count = taken, int(taken > 0)
    for path in files:
        own = 0 if path.suffix == ".json" else path.stat().st_size
        if count and (size + own > PART or count == FILES_MOST):
            parts.append([])
            size = count = 0
        parts[-1].append(path)
        size, count = size + own, count + 1
    return parts


if __name__ == "__main__":
    sys.exit(main())
