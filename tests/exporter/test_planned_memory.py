"""A session stays within the memory that is planned from the exporter's measurement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seed_exporter.evaluate.footprint import measure
from seed_runtime.memory.plan import THREADS_MEASURED
from tests.support.assembled_models import save_layers
from tests.support.cgroups import MemoryCgroup, memory_cgroup

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak in /proc")
MIB = 1 << 20

# What a device does: measure nothing, plan, and only then import, open and run.
_SESSION = f"""
import sys
from pathlib import Path
import numpy as np
from seed_runtime import backends
from seed_runtime.errors import MemoryBudgetError
from seed_runtime.memory.footprint import Footprint
from seed_runtime.memory.plan import plan_session
from seed_runtime.memory.process import peak_rss
from seed_runtime.format.primitives import Cursor

folder, packed, batch, limit = sys.argv[1:]
footprint = Footprint.unpack(Cursor(bytes.fromhex(packed), "test"))
engine = backends.get()
try:
    plan = plan_session(
        footprint, {{"x:0": int(batch)}}, int(limit) or None, backend=engine,
        weights_size=Path(folder, "model.weights").stat().st_size, threads={THREADS_MEASURED},
    )
except MemoryBudgetError as error:
    assert "onnxruntime" not in sys.modules
    print("refused", error.needed, peak_rss())
    sys.exit(error.exit_code)
runner = engine.open(Path(folder), plan.mode, plan.threads)
width = runner.inputs[0].shape[1]
for _ in range(3):
    runner.run({{"x": np.ones((int(batch), width), np.float32)}})
print(plan.mode, plan.needed_bytes, peak_rss())
"""


@pytest.mark.slow
@pytest.mark.usefixtures("all_sizes_measured")
def test_a_session_at_its_own_figure_survives_in_a_cgroup_of_that_size_and_half_is_refused(tmp_path: Path) -> None:
    footprint = measure(save_layers(tmp_path, width=1024, layers=8))
    assert footprint is not None

    def session(limit: int, group: MemoryCgroup | None = None) -> subprocess.CompletedProcess[str]:
        arguments = [str(tmp_path), footprint.pack().hex(), "7", str(limit)]
        enter = f"import os; open({str(group.processes)!r}, 'w').write(str(os.getpid()))\n" if group else ""
        return subprocess.run(
            [sys.executable, "-c", enter + _SESSION, *arguments], capture_output=True, text=True, check=False
        )

    fastest = session(0)
    assert fastest.returncode == 0, fastest.stderr
    least = session(32 * MIB)
    assert least.returncode == 14, least.stderr
    with memory_cgroup() as group:
        group.limit(24 * MIB)
        assert session(0, group).returncode == -9, "this control group doesn't limit memory"
    for needed in (int(fastest.stdout.split()[1]), int(least.stdout.split()[1])):
        with memory_cgroup() as group:
            group.limit(needed)
            done = session(needed, group)
            assert done.returncode == 0, (done.returncode, done.stderr)
            assert int(done.stdout.split()[2]) <= needed
            half = session(needed // 2, group)
            assert half.returncode == 14, (half.returncode, half.stderr)
            assert half.stdout.startswith("refused")
