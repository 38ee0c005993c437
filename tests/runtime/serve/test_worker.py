"""The thread of the model, and what a call leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import numpy as np

from seed_runtime.serve.worker import Worker


def test_what_a_failed_call_held_is_free_without_a_collection() -> None:
    held: list[weakref.ref[np.ndarray]] = []

    def fail() -> None:
        array = np.zeros(1)
        held.append(weakref.ref(array))
        raise ValueError

    async def call(worker: Worker) -> None:
        with contextlib.suppress(ValueError):
            await worker.call(fail)
        # The thread lets go of a call before it takes the next one.
        await worker.call(lambda: None)

    worker, was_enabled = Worker(), gc.isenabled()
    gc.disable()
    try:
        asyncio.run(call(worker))
        assert [array() for array in held] == [None]
    finally:
        if was_enabled:
            gc.enable()
        worker.end()
