"""`--assemble`: write a seed's model as a folder."""

from __future__ import annotations

import time

from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_base_cache, open_seed
from seed_runtime.cli.terminal import Terminal, print_json
from seed_runtime.memory.process import peak_rss
from seed_runtime.units import mib, size_text


def assemble(job: Job, terminal: Terminal) -> int:
    """Write the model as a folder that any ONNX Runtime program can open; return the exit code."""
    with open_seed(job) as seed, open_base_cache(job, seed) as cache:
        start = time.perf_counter()
        progress = terminal.progress("assembling")
        folder = seed.assemble(job.folder or "", max_memory=job.max_memory, progress=progress, cache=cache)
        seconds = time.perf_counter() - start
    terminal.clear()
    if job.json:
        print_json(
            {
                "model": str(folder / seed.kind.layout.model_file),
                "weights": str(folder / seed.kind.layout.weights_file),
                "weights_bytes": seed.header.weights.size,
                "digest": seed.digest.hex(),
                "weights_digest": seed.header.weights.digest.hex(),
                "assemble_s": round(seconds, 4),
                "peak_rss_mib": mib(peak_rss()),
            }
        )
    else:
        print(folder / seed.kind.layout.model_file)
        terminal.note(f"{size_text(seed.header.weights.size)} of weights in {seconds:.2f} s")
    return 0
