"""`--verify`: check a seed, its copy in the cache, and what it computes."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_base_cache, open_cache, open_seed, open_session
from seed_runtime.cli.terminal import Terminal, print_json
from seed_runtime.errors import SeedError, UnsupportedError
from seed_runtime.memory.cgroup import cgroup_limit


def verify(job: Job, terminal: Terminal) -> int:
    """Check all digests, the copy in the cache, and the golden sample; return the exit code.

    With --json an object is printed for a seed that fails, too. `golden` is null where no output is compared
    with a sample, or where the checks didn't get as far.
    """
    result: dict[str, Any] = {"ok": False, "digest": None, "golden": None, "golden_skipped": []}
    try:
        _verify(job, terminal, result)
    except SeedError as error:
        if job.json:
            terminal.clear()
            print_json({**result, "error": str(error)})
        raise
    terminal.clear()
    if job.json:
        print_json(result)
        return 0
    print(f"ok: {result['model_id']} version {result['model_version']}, digest {result['digest']}")
    if result["golden"]:
        print(f"the golden sample agrees ({_distance(result['golden_distance'])})")
        if result["golden_skipped"]:
            print(f"not compared, as noise or rounding decides them: {', '.join(result['golden_skipped'])}")
    elif result["golden_skipped"]:
        print("the golden sample ran: noise or rounding decides all outputs, which were not compared")
    elif _runs_nothing():
        print("ONNX Runtime has no build for 32-bit systems: the model's outputs were not checked")
    else:
        print("the seed holds no golden sample: the model's outputs were not checked")
    return 0


def _verify(job: Job, terminal: Terminal, result: dict[str, Any]) -> None:
    with open_seed(job) as seed:
        result |= {
            "digest": seed.digest.hex(),
            "model_id": seed.header.model.model_id,
            "model_version": seed.header.model.version,
            "weights_digest": seed.header.weights.digest.hex(),
        }
        # What commands that need it would refuse.
        seed.processing()
        shapes = seed.golden_shapes()
        if shapes is None or _runs_nothing():
            # Nothing to run: digests alone, which need no backend.
            plan = seed.plan_assembly(job.max_memory, cgroup_limit())
            with open_base_cache(job, seed) as base_cache:
                seed.check(terminal.progress("checking"), cores=plan.cores, cache=base_cache)
            result["ok"] = True
            return
        with open_cache(job) as cache, open_session(job, seed, cache, terminal, shapes, verify=True) as session:
            verdict = session.verify()
    result |= {"ok": verdict.ok, "golden": verdict.ok if verdict.present else None}
    result |= {"golden_skipped": list(verdict.skipped)}
    result |= {"golden_distance": verdict.worst, "golden_output": verdict.output}
    if not verdict.ok:
        raise UnsupportedError(f"{seed.name}: {verdict.problem}")


def _runs_nothing() -> bool:
    """Return whether this is a system for which no ONNX Runtime is built, and none is installed."""
    return sys.maxsize < 1 << 32 and importlib.util.find_spec("onnxruntime") is None


def _distance(worst: float) -> str:
    return "exactly" if worst == 0 else f"within {100 * worst:.3g} % of the tolerance"
