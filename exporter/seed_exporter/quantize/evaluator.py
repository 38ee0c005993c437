"""Evaluate plans for a method: the size of the seed that a plan gives, and its effect on the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from seed_exporter.build import draft
from seed_exporter.build.streams import EstimatedStream, Plans, StreamEncoder, groups, restored
from seed_exporter.calibrate import Statistics
from seed_exporter.evaluate import compare, run
from seed_exporter.evaluate.damage import Metric, metric_of
from seed_exporter.evaluate.line import Line
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.noise import Noisy
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize.effort import EFFORTS, Effort
from seed_exporter.quantize.findings import Findings
from seed_exporter.quantize.trail import Trail
from seed_exporter.skeletons import SkeletonBuilder
from seed_exporter.targets import FP32, Target
from seed_runtime.backends import Array, Feeds
from seed_runtime.codecs.encode.symbols import StreamEstimate
from seed_runtime.data.calls import LABELS
from seed_runtime.format.header import ModelInfo

_OF_DECISIONS: Final = frozenset({"agreement", LABELS})
"""Metrics that count decisions, and so change by jumps."""


@dataclass(frozen=True)
class Evaluator:
    """A graph, the size wanted of its seed, and inputs with the original's outputs.

    Attributes:
        encoder: encoder of the graph's weights.
        skeletons: builder of the same graph's skeletons.
        model: section MODEL of the seed's header.
        statistics: statistics that the method asked for.
        front_bytes: size of golden sample, footprint and signature, which a plan doesn't change [B].
        goal: largest size of the seed; None where no size was asked for [B].
        feeds: inputs to judge outputs on.
        expected: the original's outputs on them.
        folder: place for models with other weights.
        noisy: outputs that noise decides, which measure no error, and the axes whose sizes it decides.
        calibration: other inputs, on which single weights are probed; `feeds` if there are none.
        line: what the outputs' damage has to stay under where no size was asked for; None where nothing is measured.
        metric: measures the damage that is reported, and that of single weights.
        effort: what is done for fewer bytes.
        trail: what the search leaves behind.
        findings: what searches for other sizes of the same model and effort found out.
        target: what the device holds and runs.
    """

    encoder: StreamEncoder
    skeletons: SkeletonBuilder
    model: ModelInfo
    statistics: Statistics
    front_bytes: int
    goal: int | None
    feeds: Sequence[Feeds]
    expected: Sequence[Mapping[str, Array]]
    folder: Path
    noisy: Noisy = field(default_factory=dict)
    calibration: Sequence[Feeds] = ()
    line: Line | None = None
    metric: Metric = field(default_factory=lambda: metric_of("auto"))
    effort: Effort = EFFORTS[2]
    trail: Trail = field(default_factory=Trail)
    findings: Findings = field(default_factory=Findings)
    target: Target = FP32

    @property
    def graph(self) -> Graph:
        """The graph whose weights are planned."""
        return self.encoder.graph

    @property
    def source_bytes(self) -> int:
        """Size of the graph's weights, tied ones counted once [B]."""
        return self.graph.distinct_bytes

    @property
    def line_to_keep(self) -> Line | None:
        """Return the line that a search has to keep; None where a size was asked for, or nothing is measured."""
        return self.line if self.goal is None else None

    @property
    def measures_errors(self) -> bool:
        """False if noise decides all outputs, so that no error tells anything of the weights."""
        return self.expected[0].keys() > self.noisy.keys()

    @property
    def smooth_metric(self) -> Metric:
        """The metric, or one in its place that grows with the squared error: single decisions change by jumps."""
        return metric_of("auto", self.noisy) if self.metric.name in _OF_DECISIONS else self.metric

    def size_of(self, plans: Plans) -> int:
        """Compute the size of the whole seed, within 0.1 % and not less than it will have [B]."""
        streams = self.encoder.estimate(plans)
        return draft.estimate_size(self.graph, streams, self.model, self.skeletons) + self.front_bytes

    def kept_bytes(self, plans: Plans) -> int:
        """Compute what all but the quantized matrices takes: vectors, integers, graph and header [B]."""
        rest = [name for name in self.graph.weights if not plans[name].adjustable]
        matrices = [weight for name, weight in self.graph.weights.items() if plans[name].adjustable]
        streams = self.encoder.estimate(plans, names=rest)
        # A stream has a head and a chunk of data at least, whose digests stand in the header.
        empty = StreamEstimate((0, 0), ())
        streams += [EstimatedStream(group.codec, group.names, empty) for group in groups(matrices, plans)]
        return draft.estimate_size(self.graph, streams, self.model, self.skeletons) + self.front_bytes

    def outputs_with(self, plans: Plans, more: Sequence[Feeds] = ()) -> list[dict[str, Array]]:
        """Compute the outputs of the model that a device makes of these plans, on all inputs and then on `more`."""
        if self.target.lower is None:
            return list(self._outputs(lambda weight: restored(weight, plans[weight.name]), more))
        lowered = self.target.lowered(self.graph, plans)
        write_model_files(lowered.graph, self.folder, lambda weight: restored(weight, lowered.plans[weight.name]))
        return list(run.iterate_outputs(self.folder, [*self.feeds, *more]))

    def error_with(self, data: Callable[[Weight], np.ndarray]) -> float:
        """Compute the worst output's relative error of the original model with other weights.

        Args:
            data: gives the other data of a weight, in the layout of `Weight.data`.
        """
        outputs = list(self._outputs(data))
        return compare.worst_relative(compare.compare(self.expected, outputs, self.noisy))

    def keeps(self, data: Callable[[Weight], np.ndarray], error: float) -> bool:
        """Return whether `error_with` is at most `error`; where it is far more, the first input shows it."""
        seen: list[Mapping[str, Array]] = []
        for outputs in self._outputs(data):
            seen.append(outputs)
            if len(seen) in (1, len(self.feeds)):
                # As if all inputs to come made no error at all.
                errors = compare.compare(self.expected, [*seen, *self.expected[len(seen) :]], self.noisy)
                if compare.worst_relative(errors) > error:
                    return False
        return True

    def _outputs(self, data: Callable[[Weight], np.ndarray], more: Sequence[Feeds] = ()) -> Iterator[dict[str, Array]]:
        write_model_files(self.graph, self.folder, data, self.skeletons)
        return run.iterate_outputs(self.folder, [*self.feeds, *more])
