"""The notice that LiteRT prints once in a process: not on stderr, and nothing else is lost there."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seed_runtime.backends import litert_notice
from seed_runtime.backends.litert_notice import LINE, MODEL
from seed_runtime.skeletons.tflite import scan_file
from tests.support.project import ROOT
from tests.support.seed_run import one_object, seed_run
from tests.support.tflite_bytes import Scalar, Tables, Writer, numbers


class Library:
    """LiteRT as far as it is used: prints, and may fail."""

    def __init__(self, said: bytes, error: BaseException | None = None) -> None:
        self.said, self.error, self.opened = said, error, 0
        self.holds, self.held = False, -1

    def Interpreter(self, model_content: bytes, num_threads: int) -> Any:  # noqa: N802  LiteRT's name
        assert (model_content, num_threads) == (MODEL, 1)
        self.opened += 1
        return SimpleNamespace(allocate_tensors=self.allocate)

    def allocate(self) -> None:
        os.write(2, self.said)
        if self.holds:
            self.held = os.dup(2)
        if self.error is not None:
            raise self.error


def descriptors() -> list[str]:
    """Return the numbers of open descriptors; one of them is that of the list."""
    return sorted(os.listdir("/dev/fd"))


def no_descriptor(*_: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_notice._Process, "is_done", False)
    monkeypatch.setattr(litert_notice._Process, "is_command", False)


@pytest.mark.parametrize("error", [None, RuntimeError("no delegate")])
def test_the_notice_is_left_out_once_and_all_else_is_passed_on(
    error: Exception | None, capfd: pytest.CaptureFixture[str]
) -> None:
    litert_notice.allow()
    library = Library(b"WARNING: first\n" + LINE + b"ERROR: last\n", error)
    litert_notice.keep_out(library)
    assert capfd.readouterr().err == "WARNING: first\nERROR: last\n"
    litert_notice.keep_out(library)
    assert library.opened == 1
    os.write(2, b"stderr is where it was\n")
    assert capfd.readouterr().err == "stderr is where it was\n"


def test_an_interrupt_leaves_stderr_where_it_was_and_loses_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    litert_notice.allow()
    library = Library(LINE + b"ERROR: before it\n", KeyboardInterrupt())
    before = descriptors()
    with pytest.raises(KeyboardInterrupt):
        litert_notice.keep_out(library)
    assert descriptors() == before
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "ERROR: before it\nstill here\n"


def test_more_than_a_pipe_holds_is_cut_and_nobody_waits(capfd: pytest.CaptureFixture[str]) -> None:
    litert_notice.allow()
    litert_notice.keep_out(Library(LINE + b"x" * (1 << 20)))
    said = capfd.readouterr().err
    assert said == "x" * len(said)
    assert 0 < len(said) < 1 << 20


def test_a_process_that_was_begun_meanwhile_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    litert_notice.allow()
    library = Library(b"")
    library.holds = True
    litert_notice.keep_out(library)
    os.close(library.held)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("failing", ["dup", "pipe"])
def test_the_line_is_printed_where_no_descriptor_is_left(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    litert_notice.allow()
    library, before = Library(LINE), descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(os, failing, no_descriptor)
        litert_notice.keep_out(library)
    assert (library.opened, descriptors()) == (0, before)


def test_a_file_that_has_the_number_of_a_closed_stderr_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    litert_notice.allow()
    library = Library(LINE)
    monkeypatch.setattr(sys, "stderr", None)
    litert_notice.keep_out(library)
    assert library.opened == 0


def test_a_stderr_that_takes_nothing_ends_no_command() -> None:
    litert_notice.allow()
    library = Library(b"WARNING: first\n")
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nowhere, 2)
        litert_notice.keep_out(library)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
    assert library.opened == 1


def test_the_stderr_of_other_programs_is_left_alone() -> None:
    library = Library(LINE)
    litert_notice.keep_out(library)
    assert library.opened == 0


def test_its_model_is_one_that_the_check_lets_through() -> None:
    of_one: dict[int, Any] = {0: numbers([1])}
    graph = {0: Tables([of_one, of_one]), 1: numbers([0]), 2: numbers([1])}
    graph[3] = Tables([{1: numbers([0, 0]), 2: numbers([1])}])
    writer = Writer(bytearray(b"\0\0\0\0TFL3"))
    writer.table("Model", {0: Scalar("I", 3), 1: Tables([{}]), 2: Tables([graph]), 4: Tables([{}])}, 0)
    writer.align(4)
    assert bytes(writer.data) == MODEL
    assert [value.dims for value in scan_file(MODEL).inputs] == [(1,)]


@pytest.mark.slow
def test_the_command_prints_nothing_but_its_result(own_folders: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")
    np.savez(own_folders / "x.npz", x=np.ones(16, np.float32))
    seed = ROOT / "tests" / "conformance" / "seeds" / "tflite-one.seed"
    done = seed_run(seed, "--input", own_folders / "x.npz", "--json")
    assert one_object(done.stdout)["mode"] == "fast"
    assert done.stderr == b""
