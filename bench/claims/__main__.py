"""`python -m bench.claims`: re-check the kept seeds with the runtime alone, and print the table with its controls."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from seed_runtime.errors import SeedError

from . import kept, table
from .goals import GOALS

MISSED, DATA_ERROR = 1, 3


def main(arguments: list[str] | None = None) -> int:
    """Check and print; 1 where a goal is missed or no seed is kept for it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.claims",
        description="Re-check the kept seeds: bytes, ratio, quality on a fixed held-out sample, time of assembly.",
        epilog="exit codes: 0 every goal is reached, 1 one is missed or has no seed yet, 3 a file is damaged",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--seeds", type=Path, default=kept.SEEDS, help="folder of the seeds (default: bench/claims/seeds)"
    )
    options = parser.parse_args(arguments)
    found = []
    for goal in GOALS:
        try:
            found.append((goal, kept.check(goal, options.seeds)))
        except (SeedError, OSError, ValueError, KeyError) as error:
            print(
                f"error: {goal.name}: {error}; restore the files under {options.seeds} and check again", file=sys.stderr
            )
            return DATA_ERROR
    excess = kept.too_large(options.seeds)
    reached = not excess and all(row is not None and not row.misses for _, row in found)
    if options.json:
        rows = [row.as_json() for _, row in found if row is not None]
        missing = {goal.name: goal.text() for goal, row in found if row is None}
        print(json.dumps({"reached": reached, "rows": rows, "open": missing, "bytes_too_many": excess}))
    else:
        print("\n".join(table.table(found)))
        if excess:
            print(f"all seeds together are {excess:,} bytes too large; {kept.LARGEST_ALL:,} at most")
    return 0 if reached else MISSED


if __name__ == "__main__":
    sys.exit(main())
