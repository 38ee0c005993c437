"""Values of options of several commands: ratios, times, sizes."""

from __future__ import annotations

from typing import Any

import click

from seed_runtime.errors import SeedError
from seed_runtime.format.preamble import PREAMBLE_BYTES
from seed_runtime.units import parse_size, parse_time


class Ratio(click.ParamType):
    """A ratio such as 20x."""

    name = "ratio"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the ratio."""
        try:
            ratio = float(str(value).lower().removesuffix("x"))
        except ValueError:
            ratio = 0.0
        if not 1 <= ratio < 1e6:
            self.fail(f"{value!r} is not a ratio; write it like 20x", param, ctx)
        return ratio


class Time(click.ParamType):
    """A time such as 10m, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in seconds."""
        try:
            return parse_time(str(value))
        except SeedError as error:
            self.fail(str(error), param, ctx)


class Size(click.ParamType):
    """A size such as 160KB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the size in bytes."""
        try:
            return parse_size(value, least=PREAMBLE_BYTES)
        except SeedError as error:
            self.fail(str(error), param, ctx)
