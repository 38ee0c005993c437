"""`seed-export batch --scheduler`: the same seeds from a Dask cluster, also where a worker is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from seed_exporter import cli
from tests.exporter.support import worker_preload
from tests.exporter.support.batches import jobs_file, models
from tests.exporter.support.exporting import layers, quick_export
from tests.support.project import ROOT

pytestmark = pytest.mark.slow
JOBS = 4


@contextmanager
def process(*words: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask, ended afterwards; its messages go to a file."""
    with open(folder / "dask.log", "ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]],
            env=os.environ | {"PYTHONPATH": str(ROOT), "DASK_LOGGING__DISTRIBUTED": "info"},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        try:
            yield started
        finally:
            started.kill()
            started.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler with two workers of a thread each: its address, and the workers."""
    found = folder / "scheduler.json"
    with ExitStack() as stack:
        words = ["--scheduler-file", str(found), "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        scheduler = stack.enter_context(process("scheduler", *words, folder=folder))
        while not found.exists() or not found.read_text().endswith("}"):
            assert scheduler.poll() is None, (folder / "dask.log").read_text()
            time.sleep(0.05)
        words = ["--scheduler-file", str(found), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        words += ["--preload", worker_preload.__file__, "--local-directory", str(folder)]
        workers = [stack.enter_context(process("worker", *words, folder=folder)) for _ in range(2)]
        yield json.loads(found.read_text())["address"], workers


def test_every_seed_is_the_one_made_alone_though_a_worker_is_killed(tmp_path: Path, capfd: Any) -> None:
    for number in range(JOBS):
        onnx.save(layers(np.random.default_rng(number), 48, 96, 64), tmp_path / f"{number}.onnx")
    path = jobs_file(tmp_path, *(f'model = "{number}.onnx"' for number in range(JOBS)))
    with cluster(tmp_path) as (address, (victim, _)):

        def kill() -> None:
            while not list(tmp_path.glob("*.seed")) and not ended.is_set():
                time.sleep(0.02)
            victim.send_signal(signal.SIGKILL)

        ended = threading.Event()
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        with pytest.raises(SystemExit) as stopped:
            cli.main(["batch", str(path), "--scheduler", address, "--json"])
        ended.set()
        killer.join(timeout=60)
        assert victim.wait(timeout=60) == -signal.SIGKILL
    out, err = capfd.readouterr()
    assert stopped.value.code == 0, err
    rows = json.loads(out)
    assert rows["made"] == JOBS
    for number in range(JOBS):
        alone = tmp_path / "alone"
        quick_export(tmp_path / f"{number}.onnx", alone)
        assert (tmp_path / f"{number}.seed").read_bytes() == alone.read_bytes()


def test_a_scheduler_that_does_not_answer_is_code_20(tmp_path: Path, capfd: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("seed_exporter.batch.run._CONNECT_S", 1)
    path = jobs_file(tmp_path, *models(tmp_path, "a"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["batch", str(path), "--scheduler", "tcp://127.0.0.1:1"])
    error = capfd.readouterr().err
    assert stopped.value.code == 20, error
    assert error.splitlines()[-1].startswith("seed-export: scheduler tcp://127.0.0.1:1: ")
