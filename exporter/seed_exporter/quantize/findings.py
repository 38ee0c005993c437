"""Findings: what a search finds out of a calibrated model that the search for another size needs as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seed_exporter.quantize.rounding import Rounder
from seed_exporter.quantize.rounding.by_blocks import BlockRounder
from seed_exporter.targets.ranges import Ranges
from seed_runtime.memory.footprint import Footprint


@dataclass(frozen=True)
class Probed:
    """What a probe found.

    Attributes:
        units: unit steps by the weights' damage.
        damages: damage that each weight did alone.
    """

    units: Mapping[str, float]
    damages: Mapping[str, float]


@dataclass
class Findings:
    """What no size changes, of one model, its calibration and an effort; filled in by the first search that needs it.

    Attributes:
        rounders: of weights, which hold what left-out inputs confirmed.
        probes: by the coarseness at which weights were probed.
        footprint: memory of the model's sessions, which no effort changes either; None until it is measured.
        ranges: of values that convolutions round on the device.
        blocks: rounds weights in blocks; None where the target has none, or no inputs were given.
    """

    rounders: dict[str, Rounder] = field(default_factory=dict)
    probes: dict[float, Probed] = field(default_factory=dict)
    footprint: Footprint | None = None
    ranges: Ranges = field(default_factory=dict)
    blocks: BlockRounder | None = None

    @property
    def calibrated(self) -> frozenset[str]:
        """Names of the weights that are rounded by something that was measured on inputs."""
        return frozenset(name for name, rounder in self.rounders.items() if rounder.is_calibrated)
