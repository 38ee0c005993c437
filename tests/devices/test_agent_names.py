"""The agent was renamed: hosts find it on devices with older runtimes, and older hosts find it on newer devices."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from seed_devices.remote import agent_client, health

STAND_IN = """#!/bin/sh
# Stands in for the Python of a runtime that knows the agent by these names only.
for name in {names}; do
  case " $* " in *" $name "*) echo "$@"; exit 0;; esac
done
echo "python: No module named $3" >&2
exit 1
"""


def put_runtime(store: Path, names: str) -> Path:
    """Put a runtime into a store, whose Python says with which words it was called."""
    runtime = store / "runtime" / "current"
    (runtime / "bin").mkdir(parents=True)
    (runtime / "bin" / "python").write_text(STAND_IN.format(names=names))
    (runtime / "bin" / "python").chmod(0o755)
    for name in names.split():
        package = runtime / "lib" / "python3.11" / "site-packages" / name.replace(".", "/")
        package.mkdir(parents=True)
        (package / "__main__.py").touch()
    return runtime / "bin" / "python"


@pytest.mark.parametrize(
    ("names", "started"),
    [
        ("seed_runtime.device", "seed_runtime.device"),
        ("seed_runtime.agent", "seed_runtime.agent"),
        ("seed_runtime.agent seed_runtime.device", "seed_runtime.agent"),
    ],
)
def test_a_host_starts_the_agent_by_the_name_that_the_runtime_has(tmp_path: Path, names: str, started: str) -> None:
    put_runtime(tmp_path / "a store", names)
    environment = {**os.environ, "SEED_HOME": str(tmp_path / "a store")}
    done = subprocess.run(["sh", "-c", agent_client._SCRIPT], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"-P -m {started} agent\n"), done.stderr


@pytest.mark.parametrize("name", ["seed_runtime.agent", "seed_runtime.device"])
def test_the_doctor_asks_the_agent_by_the_name_that_the_runtime_has(tmp_path: Path, name: str) -> None:
    python = put_runtime(tmp_path, name)
    python.write_text(python.read_text().replace('echo "$@"', """echo '{"models": []}'"""))
    assert health.status(str(python)) == ({"models": []}, None)
