"""`python -m seed_runtime.cli` is `seed-run`."""

import sys

from seed_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
