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
from seed_runtime.units import parse_size, parse_time

Command = TypeVar("Command", bound=Callable[..., Any])

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
"""Settings of click for every command."""
RATE_MIN: Final = 1000
"""Smallest rate of a transfer that is taken as meant, in bytes per second."""
RATE_USUAL: Final = 20_000
"""Smallest usual rate of a transfer, in bytes per second."""


class Size(click.ParamType):
    """A size in bytes, or a rate in bytes per second, such as "64MB", "200KiB" or "20KB/s"."""

    name = "size"

    def __init__(self, least: int, usual: int) -> None:
        """Take sizes from `least` bytes on: whoever writes less has forgotten the unit, see `parse_size`."""
        self._least, self._usual = least, usual

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes of what the user wrote."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value).removesuffix("/s"), least=self._least, usual=self._usual)
        except SeedError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType):
    """A time in seconds, such as "30s", "10min" or "1h"."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds of what the user wrote."""
        if isinstance(value, float):
            return value
        try:
            return parse_time(str(value))
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


def words_again(*left_out: str) -> list[str]:
    """Return the words of the command that runs, for another call of it.

    Args:
        left_out: parameters that are to be left out.
    """
    context = click.get_current_context()
    words = ["seed-deploy", str(context.info_name)]
    for param in context.command.params:
        name = str(param.name)
        if name in left_out or context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        values = context.params[name] if param.multiple or param.nargs == -1 else [context.params[name]]
        for value in values:
            if isinstance(param, click.Option):
                words.append(param.opts[-1])
            if not (isinstance(param, click.Option) and param.is_flag):
                words.append(str(value))
    return words


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
