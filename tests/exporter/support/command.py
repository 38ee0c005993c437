"""`seed-export` as a command, within this process or as another one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import pytest

from seed_exporter import cli

COMMAND: Final = [sys.executable, "-m", "seed_exporter.cli"]


class Ran:
    """A run within this process: its exit code and what it printed."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> None:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        self.code = stopped.value.code
        self.out, self.err = capfd.readouterr()


def refused(capfd: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> str:
    """The one line of a run that must return `code` and print no result."""
    ran = Ran(capfd, *arguments)
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert ran.err.startswith("seed-export: ")
    assert ran.err.count("\n") == 1, ran.err
    return ran.err
