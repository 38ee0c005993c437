"""Sizes of the sections that are added once the weights are coded: golden sample, footprint, signature."""

from __future__ import annotations

from typing import Final

from seed_exporter.evaluate import golden as golden_sample
from seed_exporter.evaluate import thinning
from seed_exporter.evaluate.reference import GOLDEN_RNG_SEED
from seed_exporter.quantize.default_size import LEAST_RATIO
from seed_exporter.records import Work
from seed_exporter.results import Source

PROOF_SHARE: Final = 0.03
"""Share of a seed above which golden sample and footprint are shortened, as far as they can be."""
SECTION_BYTES: Final = 6
"""Id and size of a section of the header [B]."""


def front_bytes(source: Source, work: Work) -> int:
    """Compute the most that the sections take that are added once the weights are coded [B]."""
    reference, size = source.reference, proof_bytes(source, work)
    golden = golden_sample.golden_from_runs(
        [reference.sample_outputs] * 2, reference.recipes, GOLDEN_RNG_SEED, noisy=reference.noisy, size=size
    )
    golden_bytes = len(golden.pack()) if golden else 0
    footprint_bytes = thinning.thinned_size_max(reference.specs, size, reference.backend)
    return 2 * SECTION_BYTES + golden_bytes + footprint_bytes + work.signature_bytes


def proof_bytes(source: Source, work: Work) -> int:
    """Compute how large golden sample and footprint may be without being shortened, each [B]."""
    size = source.weight_bytes / LEAST_RATIO
    if (goal := source.goal(work.options)) is not None:
        size = min(size, goal)
    return min(int(PROOF_SHARE * size / 2), golden_sample.GOLDEN_BYTES)
