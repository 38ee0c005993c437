"""Leave out attributes that say what a node does without them.

Of convolutions and pools alone, of which a small network has dozens: ONNX Runtime's fusions look for attributes of
other operators, such as the axis of a Gather, and don't take what is missing for the default.
"""

from __future__ import annotations

from typing import Any, Final

import onnx

from seed_exporter.graph.index import all_graphs

_OPERATORS: Final = frozenset(
    {"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "QLinearConv"}
)
_DEFAULTS: Final[dict[str, Any]] = {
    "auto_pad": b"NOTSET",
    "ceil_mode": 0,
    "count_include_pad": 0,
    "group": 1,
    "storage_order": 0,
}
"""Values by attribute, in all versions of these operators. Source: onnx.ai/onnx/operators."""


def drop_defaults(model: onnx.ModelProto) -> None:
    """Remove attributes that have their default's value."""
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx") and node.op_type in _OPERATORS:
                kept = [each for each in node.attribute if not _is_default(each)]
                del node.attribute[:]
                node.attribute.extend(kept)


def _is_default(attribute: onnx.AttributeProto) -> bool:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "dilations":
        return all(size == 1 for size in value)
    return attribute.name in _DEFAULTS and bool(_DEFAULTS[attribute.name] == value)
