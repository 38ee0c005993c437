"""Healing: a model trained in torch to be the original again, with the seed's bits in the loss.

torch is imported by the modules of this room alone, and they when something is healed: exporting without it stays
possible.
"""

from __future__ import annotations

import importlib
from typing import Any

from seed_exporter.codecs.base import Plan
from seed_exporter.graph.model import Graph
from seed_runtime.errors import UsageError


def check(graph: Graph) -> None:
    """Find out before hours of work whether a graph can be trained.

    Raises:
        UsageError: torch isn't installed.
        UnsupportedError: the graph has an operator that torch can't compute here.
    """
    _distillation().check(graph)


def distill(*args: Any, **keywords: Any) -> dict[str, Plan]:
    """Train plans on calibration inputs, see `distillation.distill`.

    Raises:
        UsageError: torch isn't installed.
    """
    plans: dict[str, Plan] = _distillation().distill(*args, **keywords)
    return plans


def _distillation() -> Any:
    try:
        return importlib.import_module(f"{__name__}.distillation")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise UsageError(
            "training on the calibration inputs needs the package torch: pip install 'seed-runtime[torch]'; "
            "or give a lower --effort"
        ) from error
