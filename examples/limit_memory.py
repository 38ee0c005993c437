"""Run a seed under a memory limit, which is checked before anything is allocated; see what a limit too small says.

The same from a shell: seed-run model.seed --input x.npz --max-memory 128MB

Prints:
    within 256 MB: scores of shape (8, 10)
    within 20 MB: exit code 14
    the session needs 129 MiB and --max-memory allows 19.1 MiB; allow at least --max-memory 129MiB
"""

from __future__ import annotations

from pathlib import Path

import small_model

import seed_exporter
import seed_runtime
from seed_runtime.errors import MemoryBudgetError

options = seed_exporter.Options(effort=1, target=4, calib=Path("calib.npz"))
seed_exporter.export(small_model.write_all(), output="model.seed", options=options)

seed = seed_runtime.open("model.seed")
with seed.session(max_memory=256_000_000) as session:
    outputs = session.run({"x": small_model.samples(8, rng_seed=6)["x"]})
print(f"within 256 MB: scores of shape {outputs['scores'].shape}")

try:
    seed.session(max_memory=20_000_000)
except MemoryBudgetError as error:
    print(f"within 20 MB: exit code {error.exit_code}")
    print(error)
