"""Options for models that are asked about pictures, texts and sound: files behind the seed, --text, --draw, --top."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError
from seed_runtime.system.files import is_same_file

_DRAWN: Final = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Asked:
    """What a model is asked about."""

    files: tuple[str, ...]
    texts: tuple[str, ...]
    draw: Path | None
    """Where the picture is written with what was found in it; None for nowhere."""
    top: int | None
    """Largest number of labels or boxes to show; None for the seed's own."""


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the files that follow the seed."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="pictures (.png, .jpg) or sound (.wav) to ask about")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("asking a model that knows what stands before and behind it")
    group.add_argument("--text", metavar="TEXT", action="append", default=[], help="a text to ask it about; repeatable")
    group.add_argument("--draw", metavar="FILE", help="write the picture with its boxes or labels to a .png or .jpg")
    group.add_argument("--top", metavar="N", type=int, help="show so many labels or boxes (default: the seed's)")


def asked(options: argparse.Namespace, action: str) -> Asked | None:
    """Return what the model is asked about; None where nothing is.

    Raises:
        UsageError: the options contradict each other.
    """
    if not options.files and not options.text:
        for flag, value in (("--draw", options.draw), ("--top", options.top)):
            if value is not None:
                raise UsageError(f"{flag} is for a model that is asked about a file; name one: seed-run SEED photo.jpg")
        return None
    what = options.files[0] if options.files else "--text"
    if action != "run":
        raise UsageError(f"--{action.replace('_', '-')} takes no {what}; leave one of them out")
    for flag, value in (("--input", options.input), ("--output", options.output)):
        if value is not None:
            raise UsageError(f"{flag} is for arrays, and {what} is none; leave one of them out")
    if options.top is not None and options.top < 1:
        raise UsageError(f"--top {options.top} is too small; give at least 1")
    draw = None
    if options.draw is not None:
        if len(options.files) != 1 or options.text:
            raise UsageError("--draw needs one picture; name one: seed-run SEED photo.jpg --draw out.png")
        draw = Path(options.draw)
        if draw.suffix.lower() not in _DRAWN:
            raise UsageError(f"{options.draw!r} is no name of a picture; give --draw a name that ends in .png or .jpg")
        if is_same_file(options.draw, options.files[0]):
            raise UsageError(f"{options.draw} is the picture itself, which would be lost; give --draw another file")
    return Asked(tuple(options.files), tuple(options.text), draw, options.top)
