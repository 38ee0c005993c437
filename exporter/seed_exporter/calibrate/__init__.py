"""Measures what methods need to know before they plan: only what they asked for.

A statistic is one file here; a method imports it, and names it in its `needs`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from seed_exporter.calibrate.sensitivity import SENSITIVITIES
from seed_exporter.calibrate.spectra import SPECTRA
from seed_exporter.calibrate.statistic import Statistic, Statistics, Subject
from seed_exporter.calibrate.weight_scales import WEIGHT_SCALES
from seed_exporter.graph.model import Graph
from seed_runtime.backends import Feeds

__all__ = ["SENSITIVITIES", "SPECTRA", "WEIGHT_SCALES", "Statistic", "Statistics", "Subject", "collect"]


def collect(
    graph: Graph,
    wanted: Collection[Statistic[Any]],
    feeds: Sequence[Feeds] = (),
    folder: Path | None = None,
    jobs: int = 1,
) -> Statistics:
    """Measure the wanted statistics of every weight.

    Args:
        graph: stays as it is.
        wanted: the statistics.
        feeds: inputs to run the model on, for those that look at activations.
        folder: for what they write; None where none does.
        jobs: threads.
    """
    subject = Subject(graph, feeds, folder, jobs)
    return Statistics({statistic: statistic.measure(subject) for statistic in wanted})
