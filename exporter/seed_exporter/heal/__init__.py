"""Healing: a model trained in torch to be the original again, with the seed's bits in the loss.

torch is imported by the modules of this room alone, and they when something is healed: exporting without it stays
possible.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seed_runtime.errors import UsageError

if TYPE_CHECKING:
    from seed_exporter.heal.checkpoint import is_started
    from seed_exporter.heal.distillation import check, distill
    from seed_exporter.heal.healing import Healing
    from seed_exporter.heal.starts import is_short

__all__ = ["Healing", "check", "distill", "is_short", "is_started"]

_MODULES = {
    "Healing": "healing",
    "check": "distillation",
    "distill": "distillation",
    "is_short": "starts",
    "is_started": "checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import what trains when it is first asked for.

    Raises:
        UsageError: torch isn't installed.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise UsageError(
            "training needs the package torch: pip install 'seed-runtime[torch]'; "
            "or give a lower --effort and no --heal"
        ) from error
