"""Seeds of one model at several sizes, from one calibration, whose weights are probed once for neighbouring sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from seed_exporter.graph.model import Graph
from seed_exporter.peers import Deliverable
from seed_exporter.quantize.effort import Effort
from seed_exporter.quantize.findings import Findings
from seed_exporter.records import Calibrated, Progress, Work
from seed_exporter.results import Options
from seed_exporter.stages.fitting import build_and_prove
from seed_exporter.stages.loading import calibrate, load
from seed_exporter.stages.tuning import tune_vectors
from seed_runtime.errors import UsageError
from seed_runtime.skeletons.onnx import MODEL_FILE
from seed_runtime.system.scratch import scratch_folder


@dataclass(frozen=True)
class OwnSeeds:
    """A model that was loaded and calibrated, of which seeds are made: what `export` writes for the same options."""

    original: Graph
    calibrated: Calibrated
    work: Work

    @property
    def weight_bytes(self) -> int:
        """Size of the source's weights, to which ratios refer [B]."""
        return self.calibrated.source.weight_bytes

    def make(self, size: int, folder: Path) -> Deliverable:
        """Make the seed of at most `size` bytes, or the smallest there is, and assemble it in an existing folder."""
        work = replace(self.work, options=replace(self.work.options, target=None, size=size))
        proven = tune_vectors(build_and_prove(self.calibrated, work), self.calibrated, work)
        if proven.built.interruption is not None:
            # Not the seed of this size, but the best that there was by then.
            raise proven.built.interruption
        proven.draft.assemble(folder)
        return Deliverable(proven.draft.size, folder / MODEL_FILE)

    def with_parts(self, parts: Effort) -> OwnSeeds:
        """Return what makes seeds of the same calibration with these parts of an effort, at most the one's it is of."""
        options = replace(self.work.options, parts=parts)
        findings = Findings(footprint=self.work.findings.footprint)
        return replace(self, work=replace(self.work, options=options, findings=findings))


def check_comparable(graph: Graph) -> None:
    """Raise UsageError for a model that peers don't take."""
    if graph.file is not None:
        raise UsageError(
            "the peers take ONNX models, and this is a TFLite model; measure its seed with seed-export alone"
        )


@contextmanager
def own_seeds(model: Path, options: Options, progress: Progress | None = None) -> Iterator[OwnSeeds]:
    """Load and calibrate a model, and yield what makes seeds of it.

    Args:
        model: path of the model.
        options: of all seeds; a size in it is not used.
        progress: called while work goes on.
    """
    with threadpool_limits(1, "blas"), scratch_folder() as folder:
        work = Work(options, folder, progress or (lambda phase, done, total: None))
        loaded = load(model, work)
        check_comparable(loaded.graph)
        yield OwnSeeds(loaded.graph, calibrate(loaded, work), work)
