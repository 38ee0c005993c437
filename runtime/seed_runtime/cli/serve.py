"""`--serve ADDRESS`: answer requests of the Open Inference Protocol until a signal ends it."""

from __future__ import annotations

import contextlib

from seed_runtime import serve as serving
from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_cache, open_seed, open_session
from seed_runtime.cli.terminal import Terminal
from seed_runtime.errors import UnsupportedError
from seed_runtime.memory.cgroup import cgroup_limit


def serve(job: Job, terminal: Terminal) -> int:
    """Open the session, then answer requests. A signal's exception ends it, after the requests that run."""
    wanted = serving.parse_address(job.address or "")
    with contextlib.ExitStack() as stack:
        seed = stack.enter_context(open_seed(job))
        # Before the weights: a seed from a pipe is read once.
        takes_empty = not seed.skeleton().breaks_on_empty
        steps = serving.processing_of(seed)
        # Before the plan, which counts what the process holds.
        written, writes_not = None, ""
        try:
            written = serving.generation_of(seed, job.max_memory)
        except UnsupportedError as error:
            writes_not = str(error)
        plan = serving.plan_server(seed, job.max_memory, job.threads, cgroup_limit())
        cache = stack.enter_context(open_cache(job))
        session = stack.enter_context(open_session(job, seed, cache, terminal, plan.feeds, beside=plan.extra_bytes))
        info = seed.header.model
        model = serving.ServedModel(
            info.model_id,
            str(info.version),
            session.inputs,
            session.outputs,
            session.run,
            session.optional_inputs,
            seed.digest.hex(),
            takes_empty=takes_empty,
            processing=steps,
            writer=written and serving.Writer(*written, session.run_into, session.admit),
            writes_not=writes_not,
            memory_limit=job.max_memory,
            backend=seed.kind.backend,
        )
        listener, address = stack.enter_context(serving.listen(wanted))
        server = stack.enter_context(
            serving.Server(
                model,
                listener,
                body_max=plan.body_max,
                asked_max=plan.asked_max,
                bodies_max=plan.bodies_max,
                memory_limit=job.max_memory,
            )
        )
        stack.callback(serving.notify_manager, "STOPPING=1")
        terminal.clear()
        if writes_not:
            terminal.note(f"tensors alone are taken: {writes_not}")
        terminal.note(f"serving {model.name}, version {model.version}, on {address}")
        serving.notify_manager("READY=1")
        server.run()
    return 0
