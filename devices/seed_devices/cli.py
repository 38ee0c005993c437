"""`seed-deploy`: carry seeds to devices. Not there yet: it says so and returns 2.

Standard library only, so that the command answers on the base install, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from seed_runtime.errors import UsageError

_NOT_YET = (
    "seed-deploy is not part of this version; copy the seed to the device yourself: "
    "scp model.seed HOST: && ssh HOST seed-run model.seed --verify"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Refuse every command with exit code 2 (usage) and the way that works today; `--help` returns 0."""
    parser = argparse.ArgumentParser(
        prog="seed-deploy",
        description="Carry seeds to devices over SSH and keep track of them.",
        epilog=_NOT_YET,
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.parse_args(argv)
    refusal = UsageError(_NOT_YET)
    print(refusal, file=sys.stderr)
    return refusal.exit_code


if __name__ == "__main__":
    sys.exit(main())
