"""`seed_runtime.device` is the agent's former name, which units on devices and older hosts still use."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support.project import ROOT


def test_the_former_name_is_the_same_agent() -> None:
    command = [sys.executable, "-P", "-m", "seed_runtime.device"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    done = subprocess.run([*command, "agent"], input=b"", env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["agent"] == 1
    # A unit of an older runtime runs this before the server.
    subprocess.run([*command, "settle", "tiny"], env=environment, check=True)
    done = subprocess.run([*command, "status"], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["models"] == []
    # Older hosts import this to find out whether a runtime starts.
    imported = "import numpy, seed_runtime.cli, seed_runtime.device.agent"
    subprocess.run([sys.executable, "-c", imported], env=environment, check=True)
