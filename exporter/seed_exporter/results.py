"""Input and output of an export: options, the facts of the original, the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seed_exporter.build.draft import SeedDraft
from seed_exporter.codecs.base import Plan
from seed_exporter.evaluate.compare import OutputError
from seed_exporter.evaluate.damage import Metric, error_rate, metric_of
from seed_exporter.evaluate.line import GENERATED_STRICTNESS, Line, line_by_metric, line_by_outputs
from seed_exporter.evaluate.mixed import NO_MIXES
from seed_exporter.evaluate.reference import Reference
from seed_exporter.graph.model import Graph
from seed_exporter.heal.looks import Look
from seed_exporter.heal.settings import HealSettings
from seed_exporter.quantize.distilled import INPUTS_LEAST
from seed_exporter.quantize.effort import DEFAULT, EFFORTS, WITHOUT_DATA, WITHOUT_GRADIENTS, Effort
from seed_exporter.quantize.trail import Point
from seed_exporter.shrink.cost import Shrinkage
from seed_exporter.targets import TARGETS
from seed_exporter.tuning import Tuning
from seed_runtime import backends
from seed_runtime.backends import Array


@dataclass(frozen=True)
class Options:
    """Options of the command line. At most one of `target` (ratio), `size` (bytes) and `quality` may be given.

    Attributes:
        method: a word of `quantize.methods.METHODS`.
        target: ratio to reach, source weights over the whole file.
        size: largest size of the file [B].
        quality: share of equal decisions to keep, or the mean cosine where outputs are none; 1 - damage with `metric`.
        metric: how damage is measured, a word of `evaluate.damage.metric_of`; by the outputs' kind if None.
        effort: 1 to 9, see `quantize.effort`.
        parts: what exactly is done in place of `effort`, for measurements of each part's worth.
        dtype: what the device holds of matrices, a word of `targets.TARGETS`; `auto` for what suits it and the model.
        device: what `auto` is for, a board or processor as `seed_runtime.agent.processors` names them; None for this
            machine.
        decided: share of equal decisions, and cosine, that a seed keeps without a goal; None for that of `dtype`.
        shrink: whether dead channels are cut out of the model first.
        finetune_graph: whether the seed holds a training graph, for fine-tuning on the device.
        processing: file with a description of what stands before and behind the model; the word `auto` for what the
            model's package says of it; `none`, or None, for a seed without.
        base: seeds to code against, the first one whole and each other one on top of the one before; the last one is
            the base.
        time_limit: time after which the search takes the best so far [s].
        calib: file with real inputs (.npz), for statistics and to compare outputs on.
        heal: file with inputs (.npz) to train the seed's weights on, a quarter of which is compared on without `calib`.
        draw: from Python, returns so many samples to train on, as tensors by the inputs' names, and `labels` where
            there are some (-100: none), in place of the inputs of `heal`: for data that is augmented afresh each time.
        teacher: from Python, an ONNX file with the same inputs and outputs, whose answers `heal` learns and
            chooses states by in place of the model's own: for a smaller model, or the same one with other weights to
            begin with. The damage of the result is measured by the model's own.
        heal_settings: from Python, learning rates and schedule of `heal`; None for those of the run's length.
        resume: folder in which the state of `heal` is saved, and from which it is continued.
        resume_key: from Python, what tells that training from others, in place of a digest of model, inputs and
            settings: where a run is continued on another machine, on which these differ in a last bit.
        model_id: name that stays the same over versions; the base's, or the file's name, by default.
        model_version: grows with every release of a model id.
        sign: SSH key to sign with, see `sign`.
        jobs: threads.
    """

    method: str = "grid"
    target: float | None = None
    size: int | None = None
    quality: float | None = None
    metric: str | None = None
    effort: int = DEFAULT
    parts: Effort | None = None
    dtype: str = "fp32"
    device: str | None = None
    decided: float | None = None
    shrink: bool = False
    finetune_graph: bool = False
    processing: Path | None = None
    base: Sequence[Path] = ()
    time_limit: float | None = None
    calib: Path | None = None
    heal: Path | None = None
    draw: Callable[[int], Mapping[str, Any]] | None = None
    teacher: Path | None = None
    heal_settings: HealSettings | None = None
    resume: Path | None = None
    resume_key: str = ""
    model_id: str | None = None
    model_version: int = 1
    sign: Path | None = None
    jobs: int = field(default_factory=backends.usable_cores)


@dataclass(frozen=True)
class Source:
    """Facts of the original, frozen when it is loaded: whatever a stage does to its graph, ratios refer to these.

    Attributes:
        model_id: name of the model in its seed.
        weight_bytes: size of the distinct weights, tied copies counted once, at the source's own types; of all of the
            model where its numbers are in attributes of nodes [B].
        parameters: number of distinct weights, those in attributes included there.
        reference: inputs with the original's outputs.
        scores: outputs that a dense layer or a softmax makes (`line.score_outputs`).
        has_gradients: whether the model can be differentiated, as ONNX models can.
    """

    model_id: str
    weight_bytes: int
    parameters: int
    reference: Reference
    scores: frozenset[str] = frozenset()
    has_gradients: bool = True

    def ratio(self, size: int) -> float:
        """Compute how many times smaller a file of `size` bytes is than the weights."""
        return self.weight_bytes / size

    def goal(self, options: Options) -> int | None:
        """Compute the bytes that were asked for; None where no size was."""
        if options.size is not None:
            return options.size
        return int(self.weight_bytes / options.target) if options.target else None

    def effort(self, options: Options) -> Effort:
        """Return what is done for fewer bytes; less where inputs were generated."""
        effort = options.parts or EFFORTS[options.effort]
        effort = replace(effort, **dict.fromkeys(TARGETS[options.dtype].restricted, False))
        if not self.has_gradients:
            effort = replace(effort, **WITHOUT_GRADIENTS)
        return effort if self.reference.kind == "real" else replace(effort, **WITHOUT_DATA)

    def metric(self, options: Options) -> Metric:
        """Return the metric that was asked for, of all outputs that noise doesn't decide."""
        return metric_of(options.metric or "auto", self.reference.noisy, self.reference.labels)

    def damage(self, options: Options, outputs: Sequence[Mapping[str, Array]]) -> float:
        """Compute the damage of outputs; NaN where noise decides all of them."""
        reference = self.reference
        if not reference.is_measured:
            return math.nan
        if not reference.outputs[0].keys() > reference.noisy.keys():
            return math.nan
        return self.metric(options).damage(reference.outputs, outputs, reference.feeds)

    def error_rates(self, outputs: Sequence[Mapping[str, Array]]) -> tuple[float, float] | None:
        """Compute the shares of decisions that labels call wrong, of the original and of `outputs`; None without."""
        labels = self.reference.labels
        if labels is None or (before := error_rate(labels, self.reference.outputs)) is None:
            return None
        after = error_rate(labels, outputs)
        return None if after is None else (before, after)

    def doubts(self, options: Options) -> list[str]:
        """Say what of the given inputs can't be used, tells nothing, or isn't enough."""
        reference = self.reference
        if not reference.is_measured:
            return []
        said = []
        count = len(reference.calibration) if reference.kind == "real" else 0
        if EFFORTS[options.effort].distills and count < INPUTS_LEAST:
            said.append(
                f"nothing is trained, as --effort {options.effort} does with {INPUTS_LEAST} inputs beside those that "
                f"outputs are judged on, and there are {count}; give more with --calib"
            )
        if reference.labels is not None and self.error_rates(reference.outputs) is None:
            said.append("the labels are left out: they are no integer for each row of scores in an output")
        first, *others = reference.outputs
        if reference.kind == "real" and others and all(_equal(first, each) for each in others):
            said.append(
                "all outputs are the same whatever the given inputs, so that these tell little of the weights; give "
                "inputs that differ with --calib"
            )
        return said

    def line(self, options: Options) -> Line | None:
        """Return the line of the quality that was asked for, else the default's; None where nothing is measured."""
        reference = self.reference
        if not reference.is_measured:
            return None
        if options.quality is not None and options.metric is not None:
            return line_by_metric(self.metric(options), options.quality)
        target = TARGETS[options.dtype]
        # Rounding the inputs of layers costs what it costs, however fine weights are.
        careful = reference.kind == "generated" and options.quality is None and target.is_exact
        strictness = GENERATED_STRICTNESS if careful else 1.0
        mixed = reference.mixed if self.goal(options) is None else NO_MIXES
        return line_by_outputs(
            reference.outputs,
            reference.noisy,
            self.scores,
            options.quality,
            strictness,
            mixed,
            options.decided or target.decided,
        )


@dataclass(frozen=True)
class Result:
    """Result of an export: the seed that was written, and how close it is to the original.

    Attributes:
        path: the seed.
        bytes: size of the whole file [B].
        ratio: `Source.weight_bytes` over the size of the whole file.
        parameters: number of the source's distinct weights.
        bits_per_weight: bits of the file for each of them.
        outputs: error of each output against the original's.
        goal_met: True if the size that was asked for is kept.
        seconds: time of each phase [s].
        inputs: kind of the inputs on which outputs were compared, `real` or `generated`.
        inputs_note: sentence on where they are from and which are used for what.
        notes: lines for the user on what the export met with.
        graph: the graph whose weights the seed holds.
        plans: plan of how each of them is coded.
        seed: all of the seed's bytes.
        digest: digest of the seed, in hexadecimal.
        signed_with: type and fingerprint of the key; None without a signature.
        default: True if no goal was given and the method has a ratio that users expect.
        damage: of all outputs by `metric`; NaN where noise decides them.
        metric: name of the metric.
        line: what the outputs were to keep, for people; "" where a size was asked for, or nothing is measured.
        line_kept: True if they keep it.
        points: the seeds that the search tried.
        weight_bytes: size of each weight in the seed [B].
        weight_damages: damage that each weight does alone, rounded at the step at which it was probed.
        calibrated: names of the weights that were rounded by something that was measured on inputs.
        effort: 1 to 9.
        timed_out: True if the time limit ended the search.
        error_rates: share of decisions that labels call wrong, of the original and of the seed; None without labels.
        shrinkage: what was cut out of the model; None if nothing was.
        tuning: what fitting its vectors was worth; None where that wasn't tried.
        healing: looks at the training that made it; none without.
        dtype: what devices hold of matrices, a word of `targets.TARGETS`.
    """

    path: Path
    bytes: int
    ratio: float
    parameters: int
    bits_per_weight: float
    outputs: dict[str, OutputError]
    goal_met: bool
    seconds: dict[str, float]
    inputs: str
    inputs_note: str
    notes: tuple[str, ...]
    graph: Graph
    plans: Mapping[str, Plan]
    seed: SeedDraft
    digest: str
    signed_with: str | None
    default: bool
    damage: float = math.nan
    metric: str = "auto"
    line: str = ""
    line_kept: bool = False
    points: Sequence[Point] = ()
    weight_bytes: Mapping[str, float] = field(default_factory=dict)
    weight_damages: Mapping[str, float] = field(default_factory=dict)
    calibrated: frozenset[str] = frozenset()
    effort: int = DEFAULT
    timed_out: bool = False
    error_rates: tuple[float, float] | None = None
    shrinkage: Shrinkage | None = None
    tuning: Tuning | None = None
    healing: Sequence[Look] = ()
    dtype: str = "fp32"

    @property
    def held_bytes(self) -> int:
        """Size of the weights file that devices assemble [B]."""
        return self.seed.header.weights.size

    def as_json(self) -> dict[str, Any]:
        """Return the keys that programs rely on, and a few more."""
        return {
            "seed": str(self.path),
            "bytes": self.bytes,
            "ratio": round(self.ratio, 3),
            "parameters": self.parameters,
            "dtype": self.dtype,
            "held_bytes": self.held_bytes,
            "bits_per_weight": round(self.bits_per_weight, 4) if self.parameters else None,
            "seconds": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "outputs": {name: error.as_json() for name, error in self.outputs.items()},
            "inputs": self.inputs,
            "inputs_note": self.inputs_note,
            "metric": self.metric,
            "damage": self.damage if math.isfinite(self.damage) else None,
            "error_rate": self.error_rates[1] if self.error_rates else None,
            "original_error_rate": self.error_rates[0] if self.error_rates else None,
            "shrunk": self.shrinkage.as_json() if self.shrinkage else None,
            "tuned": self.tuning.as_json() if self.tuning else None,
            "effort": self.effort,
            "timed_out": self.timed_out,
            "goal_met": self.goal_met,
            "digest": self.digest,
            "base": None if self.seed.base is None else self.seed.base.seed.digest.hex(),
            "signed_with": self.signed_with,
            "notes": [*self.graph.notes, *self.notes],
        }


def _equal(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


class InterruptedExport(KeyboardInterrupt):
    """Ctrl-C ended the search, and the best so far was written; the exception that stands for it in Python."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"interrupted; the best so far, {result.bytes:,} bytes, was written to {result.path}")
        self.result = result
