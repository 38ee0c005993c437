"""Commands that batches run in tests in place of seed-export, and files of jobs. Holds no tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

STAND_IN: Final = [sys.executable, str(Path(__file__).with_name("stand_in_exporter.py"))]
"""Writes a seed at once."""
_QUICK = """
from seed_exporter import cli
from seed_exporter.evaluate import footprint
footprint.measure = lambda *_, **__: None
cli.main()
"""
QUICK: Final = [sys.executable, "-c", _QUICK, "--json"]
"""The real one, without the measuring of memory: what a session takes differs from run to run."""


def jobs_file(folder: Path, *jobs: str, defaults: str = "") -> Path:
    """Write a file of jobs, each given as the lines of its table."""
    path = folder / "jobs.toml"
    path.write_text(f"[defaults]\n{defaults}\n" + "".join(f"[[job]]\n{job}\n" for job in jobs))
    return path


def models(folder: Path, *names: str) -> list[str]:
    """Write files with these names, which only the stand-in takes for models; return a job for each."""
    for name in names:
        (folder / f"{name}.onnx").write_bytes(name.encode())
    return [f'model = "{name}.onnx"' for name in names]
