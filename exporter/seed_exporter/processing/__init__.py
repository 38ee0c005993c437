"""What stands before and behind a model, as a part of its seed: from the user's file, or the model's package."""

from seed_exporter.processing.attach import attach

__all__ = ["attach"]
