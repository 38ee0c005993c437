"""The script that runs `seed-run` of a device with one of its models."""

from __future__ import annotations

from typing import Final

from seed_devices.remote.agent_client import FIND_STORE

SCRIPT: Final = (
    f"{FIND_STORE}m=$s/models/$1/current/model.seed; r=$s/runtime/current/bin/seed-run; "
    f'[ -x "$r" ] || {{ echo "seed-run: no runtime here; push a seed first" >&2; exit 12; }}; '
    f'[ -e "$m" ] || {{ echo "seed-run: no model $1 here; push it first" >&2; exit 2; }}; '
    'shift; exec "$r" "$m" "$@"'
)
"""Shell commands: `$1` is the model's name, and all others are words for seed-run."""
