"""`python -m seed_runtime.serve model.seed BYTES`: the --max-memory that its server needs, of at most BYTES, as JSON.

The agent runs it to set up a service: a plan depends on the process that makes it, and this one is like seed-run's.
"""

from __future__ import annotations

import json
import sys

import seed_runtime
from seed_runtime.errors import SeedError
from seed_runtime.serve.plan import planned_bytes


def main(path: str, most: str) -> int:
    """Print the plan for the seed at `path` within `most` bytes, 0 for no limit. Return the exit code."""
    try:
        planned = planned_bytes(seed_runtime.open(path), int(most) or None)
    except SeedError as error:
        print("seed-run:", error, file=sys.stderr)
        return error.exit_code
    print(json.dumps({"planned_bytes": planned}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
