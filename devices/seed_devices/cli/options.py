"""Options that the commands share, and their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from seed_devices.fleet import inventory
from seed_devices.fleet.parallel import PARALLEL, PARALLEL_MAX, Access
from seed_devices.fleet.target import Target, parse
from seed_runtime.errors import SeedError, UsageError
from seed_runtime.units import parse_size

Command = TypeVar("Command", bound=Callable[..., Any])

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
"""Settings of click for every command."""
RATE_MIN: Final = 1000
"""Smallest rate of a transfer that is taken as meant, in bytes per second."""


class Size(click.ParamType):
    """A size in bytes, or a rate in bytes per second, such as "64MB", "200KiB" or "20KB/s"."""

    name = "size"

    def __init__(self, least: int) -> None:
        """Take sizes from `least` bytes on: whoever writes less has forgotten the unit."""
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes of what the user wrote."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value).removesuffix("/s"), least=self._least)
        except SeedError as error:
            self.fail(str(error), param, ctx)


def reach(command: Command) -> Command:
    """Add the options that say how a device is reached."""
    for option in (
        click.option(
            "--accept-new-host-key", "accept_new", is_flag=True,
            help="First contact: accept the device's key unseen and remember it; a changed key is refused.",
        ),
        click.option(
            "-F", "config", type=click.Path(path_type=Path), envvar="SEED_SSH_CONFIG", metavar="SSH_CONFIG",
            help="An ssh_config in place of your own; also SEED_SSH_CONFIG.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def many(command: Command) -> Command:
    """Add the arguments and options that say which devices are meant, and how they are reached."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors and, with --json, the result."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--parallel", type=click.IntRange(1, PARALLEL_MAX), default=PARALLEL, show_default=True, metavar="N",
            help="How many devices at a time.",
        ),
        click.option("--group", "groups", multiple=True, metavar="NAME", help="Only this group of the inventory."),
        click.option(
            "--inventory", "inventory_path", type=click.Path(path_type=Path), metavar="HOSTS.toml",
            help="A file that lists devices.",
        ),
        click.argument("hosts", nargs=-1, metavar="[[USER@]HOST[:NAME]]..."),
    ):  # fmt: skip
        command = option(command)
    return reach(command)


def access(config: Path | None, accept_new: bool) -> Access:
    """Return how devices are reached."""
    return Access(config, accept_new)


def targets(hosts: Sequence[str], inventory_path: Path | None, groups: Sequence[str]) -> list[Target]:
    """Return all devices that were named.

    Args:
        hosts: what the user wrote for devices.
        inventory_path: a file that lists devices.
        groups: the groups of that file that are meant; all if there are none.

    Raises:
        UsageError: no device was named, or one was named twice.
    """
    found = [parse(text) for text in hosts]
    if inventory_path is not None:
        found += inventory.load(inventory_path, groups)
    elif groups:
        raise UsageError("--group chooses from an inventory; name it: --inventory hosts.toml")
    if not found:
        raise UsageError("which device? give [user@]host, or --inventory hosts.toml; see --help")
    if len(set(found)) < len(found):
        twice = next(target for target in found if found.count(target) > 1)
        raise UsageError(f"{twice} is named twice; name each device once")
    return found
