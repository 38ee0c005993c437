"""Try a decoder on all conformance vectors: `python -m tests.conformance [--decoder COMMAND]` prints passed and failed.

The exit code is 1 if a vector failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conformance.make import LIST, SEEDS
from tests.conformance.support.running import command, load, problem, runtime


def main(arguments: list[str] | None = None) -> int:
    """Run the vectors that the command line selects; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--decoder",
        metavar="COMMAND",
        help="run COMMAND SEED FOLDER for each vector, or COMMAND with {seed} and {folder} replaced; "
        "without it, the runtime decodes in this process",
    )
    parser.add_argument("--valid", action="store_true", help="only vectors that decode, for decoders that check little")
    parser.add_argument("--verbose", action="store_true", help="print vectors that passed, too")
    parser.add_argument("names", metavar="NAME", nargs="*", help="beginnings of names: only these vectors")
    options = parser.parse_args(arguments)
    decode = command(options.decoder) if options.decoder else runtime
    chosen = [
        vector
        for vector in load(LIST)
        if (not options.valid or vector["exit_code"] == 0)
        and (not options.names or vector["name"].startswith(tuple(options.names)))
    ]
    failed = 0
    for vector in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            found = problem(vector, SEEDS, decode, Path(scratch))
        failed += found is not None
        if found is not None:
            print(f"FAILED  {vector['name']}: {found}; it tests: {vector['tests']}", flush=True)
        elif options.verbose:
            print(f"passed  {vector['name']}: {vector['tests']}", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
