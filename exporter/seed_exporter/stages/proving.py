"""Prove what a seed promises: assemble it as a device does, compare outputs, measure memory; and seal it."""

from __future__ import annotations

import math
from dataclasses import replace

from seed_exporter import sign
from seed_exporter.build.draft import SeedDraft
from seed_exporter.evaluate import compare, footprint, run, thinning
from seed_exporter.evaluate import golden as golden_sample
from seed_exporter.evaluate.reference import GOLDEN_RNG_SEED
from seed_exporter.graph.model import Graph
from seed_exporter.processing.sizes import picture_sizes
from seed_exporter.records import Built, Judgement, Work
from seed_exporter.results import Source
from seed_exporter.stages import front_size
from seed_runtime import backends
from seed_runtime.format.writer import to_sign


def prove(built: Built, source: Source, work: Work) -> tuple[SeedDraft, Judgement]:
    """Assemble the seed as a device does and compare its outputs with the original's.

    Returns:
        The draft with the weights' digest and the golden sample, and how far the outputs are from the original's.
    """
    reference = source.reference
    with work.timed("check"):
        assembled = work.subfolder("assembled")
        made = built.draft.assemble(assembled)
        if not reference.is_measured:
            return made, Judgement({}, math.nan, False)
        threads = backends.usable_cores()
        line = source.line(work.options)
        feeds = [*reference.feeds, *(line.mixed.feeds if line is not None else ()), reference.sample]
        *found, sampled = run.run_all(assembled, feeds, "fast", threads)
        outputs = found[: len(reference.feeds)]
        errors = compare.compare(reference.outputs, outputs, reference.noisy)
        kept = line is not None and line.excess(reference.outputs, found, reference.feeds) <= 1
        judgement = Judgement(errors, source.damage(work.options, outputs), kept, source.error_rates(outputs))
        golden = golden_sample.make_golden(
            assembled,
            reference.recipes,
            reference.sample,
            GOLDEN_RNG_SEED,
            golden_sample.least_relative_tolerance(built.graph),
            {("fast", threads): sampled},
            reference.noisy,
            front_size.proof_bytes(source, work),
        )
    return replace(made, header=replace(made.header, golden=golden.pack() if golden else None)), judgement


def measure_memory(graph: Graph, source: Source, work: Work) -> bytes | None:
    """Measure what sessions of the assembled model need, as section FOOTPRINT; None where nothing is measured."""
    reference = source.reference
    if not reference.is_measured:
        return None
    with work.timed("footprint"):
        work.progress("footprint", 0, 1)
        # Generated inputs are as small as the model takes them; only real ones say what sizes are used.
        if work.findings.footprint is None:
            work.findings.footprint = footprint.measure(
                work.subfolder("assembled"),
                inputs=reference.specs,
                sample=reference.call,
                generated=reference.sample,
                described=picture_sizes(graph.processing, reference.specs),
                backend=reference.backend,
            )
        work.progress("footprint", 1, 1)
    if work.findings.footprint is None:
        return None
    return thinning.thinned(work.findings.footprint, front_size.proof_bytes(source, work)).pack()


def seal(made: SeedDraft, memory: bytes | None, work: Work) -> SeedDraft:
    """Add the measured memory and, where there is a key, the signature."""
    if made.shares and made.base is not None and made.base.seed.header.footprint is not None:
        memory = None  # the base's is used, which is that of the same graph
    made = replace(made, header=replace(made.header, footprint=memory))
    header = made.header
    if work.options.sign is not None:
        header = replace(header, signature=sign.make_signature(to_sign(made.written), work.options.sign))
    return replace(made, header=header)
