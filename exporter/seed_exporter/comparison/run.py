"""Compare: seeds of several sizes and the deliverables of all peers, judged on the same inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from seed_exporter.comparison.own import check_comparable, own_seeds
from seed_exporter.evaluate import compare, run
from seed_exporter.graph.model import Graph
from seed_exporter.option_checks import check_options
from seed_exporter.peers import PEERS, Deliverable, Peer, PeerError
from seed_exporter.records import Loaded, Progress
from seed_exporter.report.comparison import Comparison, Row
from seed_exporter.results import Options, Source
from seed_runtime import backends
from seed_runtime.errors import SeedError
from seed_runtime.system.scratch import scratch_folder

TARGETS: Final = (4.0, 6.0, 8.0, 12.0, 16.0)
"""Ratios of the seeds that are made."""
OWN: Final = "seed"
"""Method of the rows of seeds."""
_CALIBRATION_MAX: Final = 64
"""Most inputs that a peer calibrates on."""


def compare_with_peers(model: Path, options: Options, comparison: Comparison, progress: Progress | None = None) -> None:
    """Make seeds and call peers, and add a row to the comparison as soon as it is measured.

    Args:
        model: path of the model.
        options: of the seeds, with the calibration data where there is some, and the metric.
        comparison: receives rows; what stands in it when this is interrupted is right.
        progress: called while work goes on.

    Raises:
        UsageError: there is no such metric.
        UnsupportedError: the model can't be read or run.
        InputError: the calibration data doesn't fit the model.
    """
    check_options(options)
    with own_seeds(model, options, progress) as seeds:
        source = seeds.calibrated.source
        judge = _Judge(source, options)
        _describe(source, comparison)
        for target in TARGETS:
            size = int(source.weight_bytes / target)
            row = judge.row(OWN, f"{target:g}x", partial(seeds.make, size))
            if row.size not in {each.size for each in comparison.rows}:  # no smaller one may exist
                comparison.rows.append(row)
        _add_peers(seeds.original, judge, comparison, progress)


def call_peers(loaded: Loaded, options: Options, comparison: Comparison, progress: Progress | None = None) -> None:
    """Call peers alone, and add a row to the comparison as soon as it is measured.

    Args:
        loaded: the model as an export loaded it, whose seed is judged on the same inputs.
        options: of the export.
        comparison: receives rows.
        progress: called while work goes on.
    """
    check_comparable(loaded.graph)
    _describe(loaded.source, comparison)
    _add_peers(loaded.graph, _Judge(loaded.source, options), comparison, progress)


def _describe(source: Source, comparison: Comparison) -> None:
    comparison.inputs = f"{source.reference.kind} inputs: {source.reference.note}"
    comparison.weight_bytes = source.weight_bytes


def _add_peers(original: Graph, judge: _Judge, comparison: Comparison, progress: Progress | None) -> None:
    for peer in PEERS.values():
        if not peer.is_installed:
            comparison.missing[peer.name] = peer.install
            continue
        for number, setting in enumerate(peer.settings):
            if progress is not None:
                progress(peer.name, number, len(peer.settings))
            row = judge.row(peer.name, peer.title_of(setting), judge.maker(original, peer, setting))
            comparison.rows.append(replace(row, setting="") if row.reason else row)
            if row.reason:
                break


class _Judge:
    """Measures what is made of one model on the inputs that outputs are judged on."""

    def __init__(self, source: Source, options: Options) -> None:
        self._source, self._options = source, options

    def maker(self, original: Graph, peer: Peer, setting: int) -> Callable[[Path], Deliverable]:
        """Return what makes a peer's deliverable in a folder."""
        calibration = self._source.reference.calibration[:_CALIBRATION_MAX] if peer.needs_data else ()
        feeds = [dict(feed) for feed in calibration]
        return lambda folder: peer.make(original, feeds, folder, setting)

    def row(self, method: str, setting: str, make: Callable[[Path], Deliverable]) -> Row:
        """Make one deliverable and measure it; what can't be made or run is a row with the reason."""
        reference = self._source.reference
        with scratch_folder() as folder:
            start = time.perf_counter()
            try:
                made = make(folder)
                seconds = time.perf_counter() - start
                outputs = run.run_all(made.model.parent, reference.feeds, "fast", backends.usable_cores())
            except PeerError as error:
                return Row(method, setting, reason=str(error))
            except SeedError as error:
                if method == OWN:
                    raise
                return Row(method, setting, reason=f"what it makes of this model doesn't run: {error}")
        errors = list(compare.compare(reference.outputs, outputs, reference.noisy).values())
        agreements = [error.agreement for error in errors if error.agreement is not None]
        cosines = [error.cosine for error in errors if np.isfinite(error.cosine)]
        return Row(
            method,
            setting,
            size=made.size,
            ratio=self._source.ratio(made.size),
            damage=self._source.damage(self._options, outputs) if any(not each.identical for each in errors) else 0.0,
            agreement=min(agreements, default=None),
            cosine=min(cosines, default=None),
            seconds=seconds,
        )
