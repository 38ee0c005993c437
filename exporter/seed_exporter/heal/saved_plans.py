"""Plans of a search as arrays and JSON, which a checkpoint holds: a run that is continued doesn't search again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.lowrank import Factors, LowRankPlan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_runtime.codecs.encode.contexts import Classes
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.matrix import CodedMatrix

_RECORDS: Final[dict[str, type[Any]]] = {
    record.__name__: record
    for record in (Classes, CodedMatrix, Factors, GridPlan, LowRankPlan, QuantizedMatrix, RawPlan, SplitPlan)
}
"""What the plans of a search are made of."""


def packed(plans: Mapping[str, Plan]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of plans, and what else there is of them, as JSON holds it."""
    arrays: dict[str, np.ndarray] = {}
    return arrays, {name: _packed(plan, arrays) for name, plan in plans.items()}


def unpacked(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> dict[str, Plan]:
    """Return the plans that `packed` took apart."""
    return {name: _unpacked(each, arrays) for name, each in facts.items()}


def _packed(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, tuple):
        return {"tuple": [_packed(each, arrays) for each in value]}
    if dataclasses.is_dataclass(value):
        held = {field.name: _packed(getattr(value, field.name), arrays) for field in dataclasses.fields(value)}
        return {"record": type(value).__name__, "fields": held}
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "tuple" in value:
        return tuple(_unpacked(each, arrays) for each in value["tuple"])
    return _RECORDS[value["record"]](**{name: _unpacked(each, arrays) for name, each in value["fields"].items()})
