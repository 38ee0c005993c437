"""Round weights to integers: to nearest, or with errors that later weights compensate."""

from seed_exporter.quantize.rounding.rounder import Rounder, rounder_of

__all__ = ["Rounder", "rounder_of"]
