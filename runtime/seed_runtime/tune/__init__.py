"""Fine-tuning on the device, with NumPy and the backend alone: `tune` trains a seed's model on a few samples."""

from seed_runtime.tune.checkpoint import CheckpointError
from seed_runtime.tune.modes import class_count
from seed_runtime.tune.records import Progress, Score, Settings, TierResult, TuneResult
from seed_runtime.tune.tuning import tune

__all__ = ["CheckpointError", "Progress", "Score", "Settings", "TierResult", "TuneResult", "class_count", "tune"]
