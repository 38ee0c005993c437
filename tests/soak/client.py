"""A push in a process of its own that prints which phase it is in, so that it can be killed there.

    python -m tests.soak.client SSH_CONFIG HOST SEED NAME

Prints a line per phase as it begins: the host's names, and the device's own names within its phases. The last line is
`done STATE`, or `failed CODE TEXT`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seed_devices.push import preflight
from seed_devices.push.job import Options
from seed_devices.push.one_device import push
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import SeedError

KEEP = 2
"""Versions that stay on the device: so few that each push removes one and most seeds are sent again."""


def main() -> int:
    config, host, seed, name = sys.argv[1:]
    printed = ""

    def say(phase: str, *_: int) -> None:
        nonlocal printed
        # The installer of the runtime names its parts as a push does.
        name = "runtime" if phase.startswith("runtime") else phase.rpartition(": ")[2]
        if name != printed:
            printed = name
            print(name, flush=True)

    try:
        with Connection(host, config=Path(config)) as connection:
            pushed = push(connection, preflight.load(Path(seed)), name, Options(keep=KEEP), say)
    except SeedError as error:
        print(f"failed {error.exit_code} {error}", flush=True)
        return error.exit_code
    print(f"done {pushed.state} {pushed.sent}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
