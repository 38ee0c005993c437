"""Texts that are written side by side: which ones may begin, and whose turn it is to run the model.

Each text has keys and values of its own, and the model runs for one of them at a time. A turn is one run. All that
want the model, inferences as well, wait for one lock, which they get in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seed_runtime.errors import MemoryBudgetError
from seed_runtime.serve import limits
from seed_runtime.serve.ending import EndedError, Ending

if TYPE_CHECKING:
    from seed_runtime.processing.generation import Generator
    from seed_runtime.serve.protocol import Writer
    from seed_runtime.serve.worker import Worker


class NoRoomError(Exception):
    """A text has no room beside the others, and may have some once one of them is whole."""


class Text:
    """One text. It is made, and goes on, in the model's thread."""

    def __init__(self, head: dict[str, Any], generator: Generator, writer: Writer, others: Sequence[Text]) -> None:
        """Prepare a text.

        Args:
            head: what each part of the answer begins with.
            generator: of the text.
            writer: runs the model.
            others: texts that are being written, whose runs must have room beside this one's keys and values.

        Raises:
            InputError: the text is longer than what was measured.
            MemoryBudgetError: there is no room for it even alone.
            NoRoomError: there is none beside the others.
        """
        self.head, self._generator = head, generator
        self.planned, self.held_bytes = generator.planned_feeds(), generator.held_bytes
        self.queue = self.run = 0.0
        """Times that it waited for the model, and that the model ran for it [s]."""
        for feeds in self.planned:
            writer.admit(feeds, 0)
        texts = (*others, self)
        held = sum(each.held_bytes for each in texts)
        try:
            for each in texts:
                for feeds in each.planned:
                    # What a run needs has that text's own keys and values in it.
                    writer.admit(feeds, held - each.held_bytes)
        except MemoryBudgetError:
            raise NoRoomError from None
        self._steps: Iterator[str] = generator.steps(writer.run_into)

    @property
    def is_whole(self) -> bool:
        """Whether it ended by itself."""
        return self._generator.is_whole

    def end(self, otherwise: str) -> dict[str, Any]:
        """Return why it ended, `otherwise` where it isn't whole, and its numbers of tokens."""
        generator = self._generator
        stop = generator.stop if self.is_whole else otherwise
        return {"stop": stop, "tokens": len(generator.tokens), "prompt_tokens": len(generator.prompt_tokens)}

    def step(self) -> str:
        """Run the model once; return what that adds to the text."""
        return next(self._steps, "")

    def free(self) -> None:
        """Drop its keys and values."""
        self._steps = iter(())


class Desk:
    """All texts that are being written."""

    def __init__(self, worker: Worker, run_lock: asyncio.Lock) -> None:
        """Write texts in the thread `worker`, each run with `run_lock` held."""
        self._worker, self._run_lock = worker, run_lock
        self._texts: list[Text] = []
        self._door = asyncio.Lock()
        """Lock that is held by the request that begins next, while it waits for room."""
        self._has_changed = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        """Memory that the texts hold between their runs."""
        return sum(text.held_bytes for text in self._texts)

    async def begin(self, ending: Ending, prepare: Callable[[Sequence[Text]], Text]) -> Text:
        """Begin a text once there is room for it. Call `leave` with it at its end.

        Args:
            ending: of the text.
            prepare: makes the text beside others, in the model's thread; raises NoRoomError if it has to wait.

        Raises:
            EndedError: the text has to end before it has begun.
            MemoryBudgetError: it has no room even alone.
        """
        asked = time.perf_counter()
        async with ending.holding(self._door):
            while True:
                self._has_changed.clear()
                others = tuple(self._texts)
                if len(others) < limits.WRITTEN_MAX:
                    try:
                        async with ending.holding(self._run_lock):
                            queued = time.perf_counter() - asked
                            text = await self._worker.call(functools.partial(prepare, others))
                            self._texts.append(text)
                    except NoRoomError:
                        pass
                    else:
                        text.queue = queued
                        return text
                async with ending.waiting():
                    await self._has_changed.wait()

    async def next_piece(self, text: Text, ending: Ending) -> str:
        """Return the next piece of a text, "" where it is whole or has to end. It waits for a turn for each run."""
        piece = ""
        with contextlib.suppress(EndedError):
            while not (piece or text.is_whole):
                asked = time.perf_counter()
                async with ending.holding(self._run_lock):
                    begun = time.perf_counter()
                    piece = await self._worker.call(text.step)
                    text.queue += begun - asked
                    text.run += time.perf_counter() - begun
        return piece

    def leave(self, text: Text) -> None:
        """Free what a text holds, for the next one."""
        text.free()
        self._texts.remove(text)
        self._has_changed.set()
