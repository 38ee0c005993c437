"""Healing: a model trained in torch to be the original again, with the seed's bits in the loss.

torch is imported by the modules of this room alone, and they when something is healed: exporting without it stays
possible.
"""

from __future__ import annotations

from typing import Any

from seed_exporter.codecs.base import Plan
from seed_runtime.errors import UsageError


def distill(*args: Any, **keywords: Any) -> dict[str, Plan]:
    """Train plans on calibration inputs, see `distillation.distill`.

    Raises:
        UsageError: torch isn't installed.
    """
    try:
        from seed_exporter.heal import distillation
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise UsageError(
            "training on the calibration inputs needs the package torch: pip install 'seed-runtime[torch]'; "
            "or give a lower --effort"
        ) from error
    return distillation.distill(*args, **keywords)
