"""`python -m seed_devices.cli`: the same as `seed-deploy`."""

from __future__ import annotations

import sys

from seed_devices.cli import main

if __name__ == "__main__":
    sys.exit(main())
