"""`seed-run model.seed --input x.npz`: plan from the headers, assemble, run call by call."""

from __future__ import annotations

import contextlib
import sys
import time

from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_cache, open_seed, open_session
from seed_runtime.cli.outputs import Sink, Summary, written
from seed_runtime.cli.terminal import Terminal, print_json
from seed_runtime.data import stored
from seed_runtime.data.calls import bind
from seed_runtime.errors import UsageError
from seed_runtime.memory.process import peak_rss
from seed_runtime.units import mib


def run(job: Job, terminal: Terminal) -> int:
    """Run the model on every call of the input; return the exit code."""
    with contextlib.ExitStack() as stack:
        seed = stack.enter_context(open_seed(job))
        specs = seed.inputs()
        if job.input is None and specs:
            expected = ", ".join(map(str, specs))
            raise UsageError(f"give {seed.name} an input: --input x.npz with {expected}; or --inspect, or --verify")
        arrays = stack.enter_context(stored.open_arrays(job.input)) if job.input is not None else []
        calls = bind(arrays, specs, seed.optional_inputs())
        for line in calls.conversions():
            terminal.note(line)
        sink: Sink
        sink = summary = Summary(calls.is_counted)
        outputs_file = stack.enter_context(contextlib.ExitStack())
        if job.output is not None:
            sink = outputs_file.enter_context(written(job.output, calls.is_counted))
        cache = stack.enter_context(open_cache(job))
        session = stack.enter_context(
            open_session(job, seed, cache, terminal, calls.shapes(), beside=calls.extra_bytes, runs=len(calls))
        )
        progress = terminal.progress("running") if len(calls) > 1 else None
        seconds = 0.0
        for number, feeds in enumerate(calls, start=1):
            start = time.perf_counter()
            outputs = session.run(feeds)
            seconds += time.perf_counter() - start
            sink.add(outputs)
            if sink is not summary and job.json:
                summary.add(outputs)
            del outputs  # the next call's must not stand beside it
            if progress is not None:
                progress(number, len(calls))
        outputs_file.close()
        # Only now is the output in its place, so that nothing claims it too early.
        terminal.clear()
        if job.json:
            print_json(
                {
                    "outputs": summary.as_json(),
                    "output": job.output,
                    "calls": len(calls),
                    "seconds": {
                        "assembly": round(session.assembly_seconds, 4),
                        "opening": round(session.opening_seconds, 4),
                        "run": round(seconds, 4),
                    },
                    "mode": session.plan.mode,
                    "planned_mib": mib(session.needed_bytes),
                    "peak_rss_mib": mib(peak_rss()),
                }
            )
        elif job.output is None:
            for line in summary.lines():
                print(line)
        # An assembled model may still be on its way to the disk, which the session's end waits for.
        sys.stdout.flush()
    return 0
