"""`seed-run` within the tests' process: one run leaves nothing to the next, and processes end as they do."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.project import ROOT
from tests.support.seed_run import refused, seed_run, seed_run_here


def state() -> dict[str, Any]:
    """Return what a command could change of its process."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
    return {
        "files": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "variables": dict(os.environ),
        "folder": Path.cwd(),
        "handlers": [signal.getsignal(each) for each in signals],
        "filters": list(warnings.filters),
    }


def held() -> set[Any]:
    """Return threads, and open files by their numbers; others' may end at any time."""
    numbers = os.listdir("/proc/self/fd")
    return {*threading.enumerate(), *(number for number in numbers if Path(f"/proc/self/fd/{number}").exists())}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--verify",), 0), (("--input", "x.npz"), 0), (("--input", "nothing.npz"), 3), (("--help",), 0), (("--no",), 2)],
)
def test_a_run_within_this_process_leaves_it_as_it_was(
    arguments: tuple[str, ...], code: int, seed: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((4, 32), np.float32))
    seed_run_here(seed, "--verify")  # which imports what it needs, once for all
    before, held_before = state(), held()
    done = seed_run_here(seed, *arguments, env={"SEED_THREADS": "1"}, cwd=tmp_path)
    assert done.returncode == code, done.stderr.decode()
    assert state() == before
    for each in held() - held_before:
        if isinstance(each, threading.Thread):
            each.join(10)  # that of a model ends soon after its session
    assert held() <= held_before


def test_each_run_reads_the_settings_of_its_own_user(seed: Path, tmp_path: Path) -> None:
    assert seed_run_here(seed, "--inspect", env={"XDG_CONFIG_HOME": str(tmp_path / "none")}).returncode == 0
    config = tmp_path / "config" / "seed" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("max-memory = true\n")
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert f"{config}: max-memory is True" in refused(2, seed, "--inspect", env=environment)


def test_a_process_that_ran_litert_ends_well(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")
    np.savez(tmp_path / "x.npz", x=np.ones((1, 16), np.float32))
    seed = ROOT / "tests" / "conformance" / "seeds" / "tflite-one.seed"
    done = seed_run(seed, "--input", tmp_path / "x.npz", "--quiet")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout
