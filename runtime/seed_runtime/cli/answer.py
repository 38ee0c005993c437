"""`seed-run model.seed photo.jpg`: ask a model about pictures, texts and sound, by what its seed says of them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from seed_runtime import processing
from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_cache, open_seed, open_session
from seed_runtime.cli.terminal import Terminal, escaped, print_json
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.memory.process import peak_rss
from seed_runtime.processing import Item, Processing, SampleAnswer
from seed_runtime.processing.drawing import draw
from seed_runtime.seed import Seed
from seed_runtime.session import Session
from seed_runtime.system.files import check_writable
from seed_runtime.units import mib


def answer(job: Job, terminal: Terminal) -> int:
    """Run the model on each sample and show its answers; return the exit code."""
    assert job.asked is not None
    if job.asked.draw is not None:
        check_writable(job.asked.draw)
    with contextlib.ExitStack() as stack:
        seed = stack.enter_context(open_seed(job))
        steps = _processing(seed)
        samples = _samples(job, seed, steps)
        if job.asked.draw is not None and samples[0][0].medium != processing.PICTURE:
            raise UsageError(f"{samples[0][0].name} is no picture; leave out --draw")
        # The first one is prepared before the session is planned, whose size depends on it.
        first = processing.prepare(steps, samples[0], job.max_memory, job.asked.top)
        cache = stack.enter_context(open_cache(job))
        runs = len(samples) * first.count
        session = stack.enter_context(open_session(job, seed, cache, terminal, first.first, runs=runs))
        progress = terminal.progress("running") if len(samples) > 1 else None
        found: list[SampleAnswer] = []
        start = time.perf_counter()
        for number, items in enumerate(samples, start=1):
            prepared = first if number == 1 else processing.prepare(steps, items, job.max_memory, job.asked.top)
            found.append(processing.answer(steps, prepared, session.run))
            if progress is not None:
                progress(number, len(samples))
        seconds = time.perf_counter() - start
        if job.asked.draw is not None:
            draw(samples[0][0], found[0], job.asked.draw, job.max_memory)
        terminal.clear()
        _show(job, terminal, session, found, seconds)
        # An assembled model may still be on its way to the disk, which the session's end waits for.
        sys.stdout.flush()
    return 0


def _show(job: Job, terminal: Terminal, session: Session, found: Sequence[SampleAnswer], seconds: float) -> None:
    assert job.asked is not None
    compared = processing.comparisons(found)
    if job.json:
        print_json(
            {
                "answers": [each.as_json() for each in found],
                "comparisons": [{"kind": each.kind, **each.as_json()} for each in compared.values()],
                "drawn": None if job.asked.draw is None else str(job.asked.draw),
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
        return
    for each in found:
        for note in each.facts.notes:
            terminal.note(f"{escaped(each.facts.source)}: {note}")
    for line in _lines(found, compared):
        print(escaped(line))


def _processing(seed: Seed) -> Processing:
    steps = seed.processing()
    if steps is None:
        raise UnsupportedError(
            f"{seed.name} doesn't say what stands before and behind its model; give arrays with --input, or export the "
            f"model again with --processing"
        )
    if steps.generation is not None:
        raise UsageError(f"{seed.name} writes text and is asked by a prompt; give it one: --prompt TEXT")
    return steps


def _samples(job: Job, seed: Seed, steps: Processing) -> list[tuple[Item, ...]]:
    """Return the items of each sample; an item of one medium serves all samples where there is only one."""
    assert job.asked is not None
    by_medium: dict[str, list[Item]] = {medium: [] for medium in steps.media}
    for name in job.asked.files:
        medium = _medium(name, steps)
        if medium not in by_medium:
            raise UsageError(f"{seed.name} is asked about {_media(steps)}, and {name} is none; see --inspect")
        by_medium[medium].append(Item(medium, name, Path(name)))
    for number, text in enumerate(job.asked.texts, start=1):
        if processing.TEXT not in by_medium:
            raise UsageError(f"{seed.name} is asked about {_media(steps)} and takes no --text; see --inspect")
        by_medium[processing.TEXT].append(Item(processing.TEXT, f"text {number}", text=text))
    count = max(map(len, by_medium.values()))
    for medium, items in by_medium.items():
        if len(items) not in (1, count):
            raise UsageError(f"{seed.name} needs a {medium} for each sample; {len(items)} are given for {count}")
    return [
        tuple(items[number if len(items) > 1 else 0] for items in by_medium.values()) for number in range(count)
    ]  # fmt: skip


def _medium(name: str, steps: Processing) -> str:
    """Return the medium of a file: by its name, and where that says nothing, what the model takes."""
    if processing.FILE in steps.media:
        return processing.FILE
    known = processing.SUFFIXES.get(Path(name).suffix.lower())
    files = [medium for medium in steps.media if medium != processing.TEXT]
    return known or (files[0] if files else "")


def _media(steps: Processing) -> str:
    words = {
        processing.PICTURE: "pictures (photo.jpg)",
        processing.TEXT: 'texts (--text "...")',
        processing.SOUND: "sound (speech.wav)",
        processing.FILE: "files of any kind",
    }
    return " and ".join(words[medium] for medium in steps.media)


def _lines(found: Sequence[SampleAnswer], compared: Mapping[int, processing.Answer]) -> Iterator[str]:
    for each in found:
        shown = [said for column, said in enumerate(each.answers) if column not in compared]
        if len(found) > 1 and shown:
            yield f"{each.facts.source}:"
        for said in shown:
            yield from said.lines()
    for comparison in compared.values():
        yield from comparison.lines()
