"""What a terminal shows while many devices are worked on, and what stays when they are done."""

from __future__ import annotations

import io
import re

import pytest

from seed_devices.cli import progress
from seed_devices.cli.progress import LiveProgress
from seed_devices.errors import UnreachableError
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target, parse


class Terminal(io.StringIO):
    """A terminal of 80 columns; `screen` is what stands on it."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for sequence, number, kind, letter in re.findall(r"(\x1b\[(\d*)([A-Z]))|(.)", self.getvalue(), re.DOTALL):
            if sequence:
                if kind == "A":
                    row -= int(number)
                elif kind == "K":
                    lines[row] = lines[row][:column]
                else:
                    assert kind == "J"
                    lines[row:] = [lines[row][:column]]
            elif letter == "\r":
                column = 0
            elif letter == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            else:
                lines[row] = lines[row][:column].ljust(column) + letter + lines[row][column + 1 :]
                column += 1
            assert row >= 0
        return [line for line in lines if line]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_INTERVAL_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


def put(live: LiveProgress, target: Target, *step: object) -> None:
    show = live.progress_of(target)
    assert show is not None
    show(*step)  # type: ignore[arg-type]


def ended(target: Target, error: Exception | None = None) -> Outcome[str]:
    return Outcome(target, None if error else "fine", error, 1.0)


PORCH, GATE, BOARD = parse("pi@porch"), parse("gate:bell"), parse("ssh://gate:2201/bell")


def test_each_device_at_work_has_a_line_and_all_have_one() -> None:
    terminal = Terminal()
    live = LiveProgress(4, quiet=False, rate=1_000_000, stream=terminal)
    put(live, PORCH, "transfer", 10_000_000, 40_000_000)
    put(live, GATE, "transfer", 0, 30_000_000)
    put(live, BOARD, "install: verify", 1, 4)
    assert terminal.screen() == [
        "pi@porch: transfer 10 MB of 40 MB",
        "gate:bell: transfer 0 bytes of 30 MB",
        "ssh://gate:2201/bell: install: verify  25 %",
        "0 of 4 done, 3 at work, sending 10 MB of 70 MB, 1 min left for these",
    ]
    live.end(ended(GATE, UnreachableError("gate", "gone", "look")), "failed: gone")
    assert terminal.screen() == [
        "[1/4] gate:bell: failed: gone",
        "pi@porch: transfer 10 MB of 40 MB",
        "ssh://gate:2201/bell: install: verify  25 %",
        "1 of 4 done, 1 failed, 2 at work, sending 10 MB of 40 MB, 30 s left for these",
    ]
    live.end(ended(PORCH), "runs")
    live.clear()
    assert terminal.screen() == ["[1/4] gate:bell: failed: gone", "[2/4] pi@porch: runs"]


def test_reports_that_follow_each_other_closely_are_drawn_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_INTERVAL_S", 1000.0)
    terminal = Terminal()
    live = LiveProgress(2, quiet=False, stream=terminal)
    for step in range(1, 500):
        for target in (PORCH, GATE):
            live.put(target, "tune", step, 500, f"small: {step} of 500")
    assert terminal.getvalue().count("pi@porch") == 2  # at its own beginning, and at that of the other one
    live.put(PORCH, "tune", 500, 500, "small: 500 of 500")
    assert terminal.screen() == [
        "pi@porch: small: 500 of 500", "gate:bell: small: 499 of 500", "0 of 2 done, 2 at work",
    ]  # fmt: skip


def test_more_devices_than_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "5")
    terminal = Terminal()
    live = LiveProgress(50, quiet=False, stream=terminal)
    for number in range(20):
        put(live, Target(f"host{number}"), "connect", 0, 0)
    screen = terminal.screen()
    assert len(screen) == 4
    assert screen[-1] == "0 of 50 done, 20 at work, 17 of them not shown"


def test_a_single_device_has_one_line_with_the_time_that_is_left() -> None:
    terminal = Terminal()
    live = LiveProgress(1, quiet=False, rate=100_000, stream=terminal)
    put(live, PORCH, "transfer", 1_000_000, 47_000_000)
    assert terminal.screen() == ["pi@porch: transfer 1 MB of 47 MB, 7 min 40 s left"]
    live.end(ended(PORCH), "runs")
    assert terminal.screen() == []


def test_a_summary_of_its_own_is_the_last_line_of_any_number_of_devices() -> None:
    terminal = Terminal()
    live = LiveProgress(1, quiet=False, stream=terminal, summary=lambda: "watching, 5 s left")
    put(live, PORCH, "golden sample right", 0, 0)
    assert terminal.screen() == ["pi@porch: golden sample right", "watching, 5 s left"]


def test_a_long_line_is_cut_so_that_it_takes_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    put(LiveProgress(2, quiet=False, stream=terminal), Target("h" * 100), "connect", 0, 0)
    assert [len(line) for line in terminal.screen()] == [29, len("0 of 2 done, 1 at work")]


def test_without_a_terminal_only_the_lines_that_stay_are_printed() -> None:
    stream = io.StringIO()
    live = LiveProgress(2, quiet=False, stream=stream)
    assert live.progress_of(PORCH) is None
    live.watch(lambda target, connection: None)(PORCH, None)  # type: ignore[arg-type]
    live.end(ended(PORCH), "runs")
    live.clear()
    assert stream.getvalue() == "[1/2] pi@porch: runs\n"


def test_quiet_prints_nothing() -> None:
    terminal = Terminal()
    live = LiveProgress(2, quiet=True, stream=terminal)
    assert live.progress_of(PORCH) is None
    live.end(ended(PORCH), "runs")
    assert terminal.getvalue() == ""
