"""`python -m seed_exporter.cli` is `seed-export`."""

from __future__ import annotations

from seed_exporter.cli import main

main()
