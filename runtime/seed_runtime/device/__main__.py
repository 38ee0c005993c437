"""`python -m seed_runtime.device`, the former name of `python -m seed_runtime.agent`."""

from __future__ import annotations

import sys

from seed_runtime.agent.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
