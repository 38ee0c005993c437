"""Training graphs: what a device needs beside a model to train it, as one more part of its seed (SPEC.md, "Training").

`prepare` edits a model so that it can be trained; `training_part` builds what is joined to its skeleton.
"""

from seed_exporter.training.part import training_part
from seed_exporter.training.prepare import prepare

__all__ = ["prepare", "training_part"]
