"""`seed-export` that ends early: what a signal or a full disk leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seed_runtime.format.preamble import MAGIC
from tests.exporter.support.command import COMMAND, refused

OLD = MAGIC + b"the old seed"


pytestmark = pytest.mark.usefixtures("without_measured_memory")


@pytest.fixture
def model(model_file: Path) -> Path:
    return model_file


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "model.seed"


def drive(script: str) -> list[str]:
    """A process that runs `seed-export` with something in it replaced."""
    return [sys.executable, "-c", textwrap.dedent(script) + "\nfrom seed_exporter import cli; cli.main()"]


AT_SEARCH = """
    import time
    from seed_exporter.quantize.evaluator import Evaluator
    def wait(self, plans):
        print("there", flush=True)
        time.sleep(60)
    Evaluator.size_of = wait
"""
AT_WRITE = """
    import os, time
    def wait(descriptor):
        print("there", flush=True)
        time.sleep(60)
    from seed_exporter.evaluate import footprint
    footprint.measure = lambda *_, **__: None
    os.fsync = wait
"""


INTERRUPTED = "seed-export: interrupted, nothing was written"  # on a line below the terminal's ^C


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGINT, 130, INTERRUPTED), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")],
)
@pytest.mark.parametrize("script", [AT_SEARCH, AT_WRITE], ids=["search", "write"])
def test_a_signal_returns_its_code_and_leaves_the_old_seed(
    script: str, number: int, code: int, told: str, model: Path, output: Path, tmp_path: Path
) -> None:
    output.write_bytes(OLD)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [*drive(script), str(model), "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert error.strip() == told
    assert output.read_bytes() == OLD
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert list(temporary.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 24 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_returns_13_and_leaves_the_old_seed(small_disk: Path, model: Path, capfd: Any) -> None:
    output = small_disk / "model.seed"
    output.write_bytes(OLD)
    error = refused(capfd, 13, model, "-o", output, "--method", "lossless")
    assert "No space left on device" in error
    assert "with -o" in error
    assert output.read_bytes() == OLD
    assert [path.name for path in small_disk.iterdir()] == ["model.seed"]


def test_a_full_folder_for_temporary_files_returns_13_and_names_it(small_disk: Path, model: Path, output: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(model), "-o", str(output)],
        env=os.environ | {"TMPDIR": str(small_disk)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (13, ""), done.stderr
    assert str(small_disk) in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(small_disk.iterdir()) == []
    assert not output.exists()
