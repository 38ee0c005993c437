"""The group of all commands."""

from __future__ import annotations

import click

from seed_devices.cli.doctor import doctor
from seed_devices.cli.logs import logs
from seed_devices.cli.options import SETTINGS
from seed_devices.cli.push import push
from seed_devices.cli.remove import remove
from seed_devices.cli.rollback import rollback
from seed_devices.cli.run import run
from seed_devices.cli.status import list_, status
from seed_devices.cli.tune import tune
from seed_runtime.version import __version__

_EPILOG = """\b
Examples:
  seed-deploy push model.seed pi@raspberrypi.local
  seed-deploy push model.seed pi@porch pi@gate:doorbell --parallel 4
  seed-deploy status --inventory hosts.toml --json
  seed-deploy run pi@porch --input x.npz --output y.npz
  seed-deploy tune pi@porch --data data.npz --time-limit 10m
  seed-deploy rollback pi@porch:doorbell
\b
A device is [USER@]HOST or an alias of your ssh_config, followed by :NAME where it has several models;
an IPv6 address stands in brackets. A device with a port is [USER@]HOST:PORT, with a model ssh://[USER@]HOST:PORT/NAME.
Everything goes over your own OpenSSH, with its configuration, agent, jump hosts and known keys.
\b
Exit codes: 0 ok, 1 internal error, 2 usage, 3 data can't be used, 10 corrupt seed, 11 signature or rollback refused,
12 the device can't take it, 13 no disk space, 14 memory, 15 nothing got better, 20 unreachable, 21 login refused,
22 host key, 30 part of the fleet failed, 31 doctor found faults, 130 interrupted.
"""


@click.group(epilog=_EPILOG, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="seed-deploy")
def group() -> None:
    """Push seeds to devices over SSH, and show what runs there.

    Whatever fails, the device runs what it ran before, and the same command continues from there.
    """


for _command in (push, list_, status, run, tune, logs, rollback, remove, doctor):
    group.add_command(_command)
