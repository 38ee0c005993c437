"""`python -m bench.claims.data`: make the data of the claims from pinned packages."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

SETS = ("glyphs", "sections", "english", "vocabularies")
DATA_ERROR = 3


def main(arguments: list[str] | None = None) -> int:
    """Make the sets that are named and print their counts."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.claims.data",
        description="Make the data of the claims from pinned Debian packages (bookworm); needs apt-get and dpkg-deb.",
        epilog="vocabularies needs sections and english beside it; all makes everything in its order",
    )
    parser.add_argument(
        "names",
        nargs="+",
        choices=[*SETS, "all"],
        metavar="NAME",
        help="glyphs, sections, english, vocabularies or all",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--cache", type=Path, help="folder for packages (default: $SEED_BENCH_CACHE)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read packages (default: 1)")
    options = parser.parse_args(arguments)
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:7.1f} s  {text}", file=sys.stderr, flush=True)

    try:
        from bench.public.fetch import FetchError, cache_folder
    except ModuleNotFoundError as error:
        print(
            f"error: the module {error.name} is missing; run pip install -r bench/claims/requirements.txt",
            file=sys.stderr,
        )
        return DATA_ERROR
    cache = options.cache or cache_folder()
    for name in SETS if "all" in options.names else dict.fromkeys(options.names):
        try:
            counts = importlib.import_module(f"bench.claims.data.{name}").make(cache, options.out, say, options.jobs)
        except (FetchError, OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return DATA_ERROR
        except ModuleNotFoundError as error:
            print(
                f"error: the module {error.name} is missing; run pip install -r bench/claims/requirements.txt",
                file=sys.stderr,
            )
            return DATA_ERROR
        print(f"{name}: " + ", ".join(f"{value:,} {key}" for key, value in counts.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
