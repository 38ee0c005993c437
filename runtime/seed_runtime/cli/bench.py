"""`--bench`: measure the time and memory of assembly and runs on this machine."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any, Final

from seed_runtime.backends import Feeds
from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_cache, open_seed, open_session
from seed_runtime.cli.terminal import Terminal, heading, print_json, table
from seed_runtime.data import stored
from seed_runtime.data.calls import bind
from seed_runtime.errors import InputError
from seed_runtime.memory.process import peak_rss
from seed_runtime.seed import Seed
from seed_runtime.session import Session
from seed_runtime.units import mib

WARM_UP: Final = 3
"""Runs before the timed ones."""
RUNS_MIN, RUNS_MAX, RUNS_S = 10, 100, 10.0
"""Without --runs, as many runs as fit into RUNS_S seconds, within these bounds."""


def bench(job: Job, terminal: Terminal) -> int:
    """Assemble into a new folder, then time runs on the input's first call or the golden sample."""
    with contextlib.ExitStack() as stack:
        seed = stack.enter_context(open_seed(job))
        if job.input is not None:
            arrays = stack.enter_context(stored.open_arrays(job.input))
            calls = bind(arrays, seed.inputs(), seed.optional_inputs())
            shapes: Feeds | None = calls.shapes()
            beside = calls.extra_bytes
        else:
            shapes, beside = seed.golden_shapes(), 0
            if shapes is None:
                raise InputError(f"{seed.name} holds no golden sample; give an input: --bench --input x.npz")
        cache = stack.enter_context(open_cache(job, fresh=True))
        session = stack.enter_context(open_session(job, seed, cache, terminal, shapes, beside=beside))
        feeds = next(iter(calls)) if job.input is not None else _golden_feeds(seed, session)
        latencies = _timed(session, feeds, job.runs, terminal)
        values: dict[str, Any] = {
            "assemble_s": round(session.assembly_seconds, 4),
            "assemble_peak_rss_mib": mib(session.assembly_peak),
            "opening_s": round(session.opening_seconds, 4),
            "latency_ms": {f"p{share}": round(1000 * percentile(latencies, share), 4) for share in (50, 90, 99)},
            "runs": len(latencies),
            "peak_rss_mib": mib(peak_rss()),
            "planned_mib": mib(session.needed_bytes),
            "mode": session.plan.mode,
            "threads": session.plan.threads,
            "input": "golden sample" if job.input is None else job.input,
        }
    terminal.clear()
    if job.json:
        print_json(values)
    else:
        _print(values, seed)
    return 0


def percentile(values: Sequence[float], share: int) -> float:
    """Return the nearest-rank percentile, which is one of the values."""
    return sorted(values)[max(0, math.ceil(share / 100 * len(values)) - 1)]


def _golden_feeds(seed: Seed, session: Session) -> Feeds:
    assert seed.golden is not None
    return seed.golden.feeds(session.inputs)


def _timed(session: Session, feeds: Feeds, runs: int | None, terminal: Terminal) -> list[float]:
    """Return the seconds of each run after the warm-up."""
    for _ in range(WARM_UP):
        session.run(feeds)
    show = terminal.progress("running")
    latencies: list[float] = []
    begin = time.perf_counter()
    while len(latencies) < (runs or RUNS_MAX):
        if runs is None and len(latencies) >= RUNS_MIN and time.perf_counter() - begin > RUNS_S:
            break
        start = time.perf_counter()
        session.run(feeds)
        latencies.append(time.perf_counter() - start)
        if show is not None:
            show(len(latencies), runs or RUNS_MAX)
    return latencies


def _print(values: dict[str, Any], seed: Seed) -> None:
    latency = ", ".join(f"{name} {value:.4g} ms" for name, value in values["latency_ms"].items())
    print(heading(seed.name))
    rows = [
        ("assembly", f"{values['assemble_s']:.3g} s, peak {values['assemble_peak_rss_mib']} MiB"),
        ("opening", f"{values['opening_s']:.3g} s"),
        ("run", latency),
        ("", "{runs} runs on {input}, {threads} threads, mode {mode}".format_map(values)),
        ("peak memory", f"{values['peak_rss_mib']} MiB"),
    ]
    for line in table(rows):
        print(line)
