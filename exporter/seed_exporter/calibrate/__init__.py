"""Measures what methods need to know before they plan: only what they asked for.

A statistic is one file here; a method imports it, and names it in its `needs`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from seed_exporter.calibrate import activations
from seed_exporter.calibrate.covariances import COVARIANCES, shortage
from seed_exporter.calibrate.excite import excite
from seed_exporter.calibrate.row_counts import ROW_COUNTS
from seed_exporter.calibrate.sensitivity import SENSITIVITIES
from seed_exporter.calibrate.spectra import SPECTRA
from seed_exporter.calibrate.statistic import Observer, Seen, Statistic, Statistics, Subject, Watch
from seed_exporter.calibrate.weight_scales import WEIGHT_SCALES
from seed_exporter.graph.edit import name_first_results
from seed_exporter.graph.linear import RECURRENT
from seed_exporter.graph.model import Graph
from seed_runtime.backends import Feeds

__all__ = [
    "COVARIANCES",
    "ROW_COUNTS",
    "SENSITIVITIES",
    "SPECTRA",
    "WEIGHT_SCALES",
    "Observer",
    "Seen",
    "Statistic",
    "Statistics",
    "Subject",
    "Watch",
    "collect",
    "excite",
    "shortage",
]


def collect(
    graph: Graph,
    wanted: Collection[Statistic[Any]],
    feeds: Sequence[Feeds] = (),
    folder: Path | None = None,
    jobs: int = 1,
) -> Statistics:
    """Measure the wanted statistics of every weight. Those that look at activations share the runs of the model.

    Args:
        graph: stays as it is.
        wanted: the statistics.
        feeds: inputs to run the model on, for those that look at activations.
        folder: for what they write; None where none does.
        jobs: threads.
    """
    # The states that recurrent layers go on from are among their results.
    subject = Subject(name_first_results(graph, RECURRENT), feeds, folder, jobs)
    measured = {statistic: statistic.measure(subject) for statistic in wanted}
    observers = [each for each in measured.values() if isinstance(each, Observer)]
    if observers:
        activations.show(subject, [watch for observer in observers for watch in observer.watches])
    return Statistics(
        {statistic: each.values() if isinstance(each, Observer) else each for statistic, each in measured.items()}
    )
