"""Calls in threads of their own: what they give, how they are ended, what they leave. And commands that end by them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import seed_runtime
from seed_runtime import backends, golden
from seed_runtime.backends import workers
from seed_runtime.backends.workers import Workers, time_limit
from seed_runtime.errors import UnsupportedError
from tests.support.assembled_models import save_layers
from tests.support.unbounded_loop import unbounded_loop_seed


class EnoughError(Exception):
    pass


def enough() -> NoReturn:
    raise EnoughError


def never() -> None:
    pytest.fail("nothing was to be stopped")


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "endless.seed"
    path.write_bytes(unbounded_loop_seed())
    return path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WATCH_S", 0.01)


def test_calls_return_what_the_work_returns_and_share_one_thread() -> None:
    calls = Workers()
    assert calls.call(lambda: 5, never) == 5
    first = calls.call(threading.get_ident, never)
    with pytest.raises(ZeroDivisionError):
        calls.call(lambda: 1 // 0, never)
    assert calls.call(threading.get_ident, never) == first != threading.get_ident()
    calls.close()
    calls.close()


def test_calls_from_two_threads_run_at_once() -> None:
    calls, meet = Workers(), threading.Barrier(2, timeout=30)
    other = threading.Thread(target=lambda: calls.call(meet.wait, never))
    other.start()
    calls.call(meet.wait, never)
    other.join()


def test_a_call_keeps_nothing_of_what_it_took_and_gave() -> None:
    class Big:
        pass

    def fails(big: Big) -> NoReturn:
        raise ZeroDivisionError

    gc.disable()
    try:
        calls, given = Workers(), Big()
        there = weakref.ref(given)
        calls.call(lambda given=given: given, never)  # type: ignore[misc]
        with pytest.raises(ZeroDivisionError):
            calls.call(lambda given=given: fails(given), never)  # type: ignore[misc]
        del given
        assert there() is None
    finally:
        gc.enable()


@pytest.mark.usefixtures("impatient")
def test_what_the_watch_raises_stops_the_work_and_the_thread_is_used_again() -> None:
    calls, stopped = Workers(), threading.Event()
    with pytest.raises(EnoughError):
        calls.call(stopped.wait, stopped.set, enough)
    assert stopped.is_set()
    assert len(calls._idle) == 1


def test_closing_stops_what_runs_for_another_thread() -> None:
    calls, begun, stopped = Workers(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        stopped.wait()

    other = threading.Thread(target=lambda: calls.call(work, stopped.set))
    other.start()
    begun.wait()
    calls.close()
    assert stopped.is_set()
    other.join(30)
    assert not other.is_alive()


@pytest.mark.usefixtures("impatient")
def test_work_that_does_not_stop_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "END_S", 0.01)
    calls, end, begun = Workers(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        begun.set()
        end.wait()

    with pytest.raises(EnoughError):
        calls.call(work, lambda: None, enough)
    assert calls.call(lambda: 5, never) == 5
    begun.wait(30)
    assert threads[0].daemon
    end.set()
    threads[0].join(30)
    assert not threads[0].is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_child_process_makes_threads_of_its_own() -> None:
    calls = Workers()
    calls.call(lambda: None, never)
    child = os.fork()
    if not child:
        os._exit(calls.call(lambda: 7, never))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_time_limit_calls_the_other_watch_until_it_has_passed() -> None:
    with pytest.raises(EnoughError):
        time_limit(60, "it runs", enough)()
    time_limit(60, "it runs", None)()
    with pytest.raises(UnsupportedError, match="can't be used here: it runs for more than"):
        time_limit(-0.1, "it runs", enough)()


@pytest.mark.usefixtures("impatient")
def test_a_model_can_be_run_after_a_run_that_was_ended(tmp_path: Path) -> None:
    runner = backends.get().open(save_layers(tmp_path, width=1024, layers=8), "fast", threads=1)
    feeds = {"x": np.ones((4096, 1024), np.float32)}
    with pytest.raises(EnoughError):
        runner.run(feeds, watch=enough)
    assert runner.run({"x": np.ones((1, 1024), np.float32)}, watch=None)["y"].shape == (1, 1024)


@pytest.mark.usefixtures("impatient")
def test_a_golden_sample_that_never_ends_is_refused(seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "RUN_S", 0.05)
    with (
        seed_runtime.open(seed).session(threads=1) as session,
        pytest.raises(UnsupportedError, match="its golden sample runs for more than"),
    ):
        session.verify()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["--verify"], ["--input", "x.npz"], ["--bench", "--input", "x.npz"]])
def test_a_signal_ends_a_command_whose_model_never_ends(
    seed: Path, command: list[str], number: int, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, 4), np.float32))
    # The signal comes while the model runs, which it does for ever.
    script = (
        "import os, sys, threading\n"
        "from seed_runtime import cli\n"
        "from seed_runtime.backends import onnxruntime as backend\n"
        "run = backend.OnnxRuntimeRunner.run\n"
        "def interrupted(*arguments, **options):\n"
        f"    threading.Timer(0.3, os.kill, (os.getpid(), {int(number)})).start()\n"
        "    return run(*arguments, **options)\n"
        "backend.OnnxRuntimeRunner.run = interrupted\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(seed), *command], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")
