"""Records that the stages of an export hand on to each other, one record a stage, and what the stages share.

A record is never changed: a stage that edits the graph hands on another one, and none can reach the original's facts
but through `Source`, which is frozen when the model is loaded.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from seed_exporter.build.base_model import BaseModel
from seed_exporter.build.draft import SeedDraft
from seed_exporter.build.streams import Plans, StreamEncoder
from seed_exporter.calibrate import Statistics
from seed_exporter.evaluate.compare import OutputError
from seed_exporter.graph.model import Graph
from seed_exporter.heal.looks import Training
from seed_exporter.quantize.findings import Findings
from seed_exporter.quantize.methods import METHODS, Method
from seed_exporter.quantize.trail import Trail
from seed_exporter.results import Options, Source
from seed_exporter.shrink.cost import Shrinkage
from seed_exporter.skeletons import SkeletonBuilder
from seed_exporter.targets import TARGETS, Target
from seed_exporter.targets.target import Measured
from seed_exporter.tuning import Tuning

Progress = Callable[[str, int, int], None]
"""Progress callback: gets the name of a phase, the amount of it that is done, and its total; 0 of 0 where unknown."""


@dataclass(frozen=True)
class Loaded:
    """A model that was read: the facts of the original, and the graph that stages work on."""

    source: Source
    graph: Graph
    skeletons: SkeletonBuilder
    """Builder of the skeletons of `graph`."""
    shrinkage: Shrinkage | None = None
    """What was cut out of the model; None if nothing was."""


@dataclass(frozen=True)
class Calibrated:
    """A loaded model with the statistics that the method needs."""

    source: Source
    graph: Graph
    skeletons: SkeletonBuilder
    statistics: Statistics


@dataclass(frozen=True)
class Planned:
    """Plans of all weights, and whether the method kept the goal by its estimate; `encoder` has prepared them."""

    graph: Graph
    skeletons: SkeletonBuilder
    plans: Plans
    met: bool
    encoder: StreamEncoder
    trail: Trail = field(default_factory=Trail)
    interruption: BaseException | None = None
    """What ended the search early, such as Ctrl-C; the plans are the best so far then."""
    shrinkage: Shrinkage | None = None
    """What was cut out of the planned model; None if nothing was."""


@dataclass(frozen=True)
class Built:
    """A seed in memory, without golden sample, footprint and signature."""

    graph: Graph
    plans: Plans
    draft: SeedDraft
    met: bool = True
    """True if the method kept its goal by what it measured."""
    trail: Trail = field(default_factory=Trail)
    interruption: BaseException | None = None
    shrinkage: Shrinkage | None = None
    weight_bytes: Mapping[str, float] = field(default_factory=dict)
    """Size of each weight, with its share of what its stream's weights share [B]."""


@dataclass(frozen=True)
class Judgement:
    """How far a seed's outputs are from the original's.

    Attributes:
        errors: error of each output.
        damage: of all outputs by the export's metric; NaN where nothing is measured.
        line_kept: True if the outputs keep the line that was asked for, or the default's.
        error_rates: share of decisions that labels call wrong, of the original and of the seed; None without labels.
    """

    errors: dict[str, OutputError]
    damage: float
    line_kept: bool
    error_rates: tuple[float, float] | None = None


@dataclass(frozen=True)
class Proven:
    """A seed that the device's decoder has assembled, with all its sections, and how it was judged."""

    built: Built
    draft: SeedDraft
    judgement: Judgement
    tuning: Tuning | None = None
    """What was tried of its vectors; None where nothing was."""

    @property
    def front_bytes(self) -> int:
        """Size of the sections that proving added [B]."""
        return self.draft.size - self.built.draft.size


@dataclass(frozen=True)
class Work:
    """What all stages of one export share: options, a folder for models, progress, the clock, notes."""

    options: Options
    folder: Path
    progress: Progress
    signature_bytes: int = 0
    """Size of the section SIGNATURE; 0 if the seed isn't signed [B]."""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Lines for the user on what the export met with."""
    deadline: float | None = None
    """When a search takes its best so far, on `time.monotonic`'s clock; None without a limit."""
    findings: Findings = field(default_factory=Findings)
    say: Callable[[str], None] = lambda line: None
    """Tells the user something while work goes on."""
    base: BaseModel | None = None
    """The seed that weights are coded against; None for a whole seed."""
    watch: Callable[[Training], None] = lambda training: None
    """Is shown a training at each look."""
    is_auto: bool = False
    """Whether the target was decided by the device's processor, and floats take its place where it doesn't suit."""

    @property
    def target(self) -> Target:
        """The target that was asked for, or the one that it fell back to."""
        return replace(TARGETS[self.options.dtype], measured=Measured(self.findings.ranges, self.findings.blocks))

    @property
    def method(self) -> Method:
        """The method that was asked for."""
        return METHODS[self.options.method]

    def subfolder(self, name: str) -> Path:
        """Make a folder of this name, if it isn't there, and return it."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        start = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
