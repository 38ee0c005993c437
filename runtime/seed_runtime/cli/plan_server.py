"""`python -m seed_runtime.cli.plan_server model.seed BYTES`: the --max-memory that its server needs, of at most BYTES.

The agent runs it to set up a service. A plan includes what its process holds already, so this one takes the way of
`seed-run --serve` as far as the plan: the same modules, the same arguments parsed.
"""

from __future__ import annotations

import contextlib
import json
import sys

from seed_runtime import serve as serving
from seed_runtime.cli import entrypoint
from seed_runtime.cli.arguments import parse
from seed_runtime.cli.common import open_seed
from seed_runtime.cli.serve import serve as _serve  # noqa: F401 - the modules of the server count in its memory
from seed_runtime.errors import UnsupportedError


def main(path: str, most: str) -> int:
    """Print the plan for the seed at `path` within `most` bytes, 0 for no limit, as JSON. Return the exit code."""
    return entrypoint.run("seed-run", lambda: _print_plan(path, int(most) or None))


def _print_plan(path: str, most: int | None) -> int:
    with open_seed(parse([path, "--serve", ":0"])) as seed:
        tokenizer = None
        with contextlib.suppress(UnsupportedError):  # which the server says when it starts
            tokenizer = serving.generation_of(seed, most)
        planned = serving.planned_bytes(seed, most)
        del tokenizer  # which the server holds beside all that is planned
        print(json.dumps({"planned_bytes": planned}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
