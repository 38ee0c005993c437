"""The part of ONNX's protobuf that a skeleton may hold: field numbers, kinds, and how many of each.

Source: onnx.proto of ONNX IR version 14.
"""

from __future__ import annotations

from typing import Final

from seed_runtime.limits import METADATA_ENTRIES_MAX, METADATA_MAX, TENSORS_MAX, TRAINING_RAW_MAX
from seed_runtime.skeletons.info import BREAKING_OPERATORS, MISSING_OPERATORS

DEPTH_MAX: Final = 64
"""Largest depth of messages in messages; protobuf itself stops at 100."""
FIELDS_MAX: Final = 1 << 21
"""Largest number of fields: seconds on a small device. A graph of 10,000 nodes has some 300,000."""
RUN_MIN: Final = 16
"""Number of equal fields in a row from which further ones are counted together, and as a sixteenth each: it takes less
than a hundredth of the time."""
RUN_SHARE: Final = 16
"""Number of fields in a run that count as one."""
TEXT_MAX: Final = 4096
"""Largest name [B]; TensorFlow's reach some hundreds."""
AXES_MAX: Final = 64
"""Largest number of axes of tensors inside the model; those in the weights file have RANK_MAX."""
ENTRIES_MAX: Final = 3
"""Largest number of entries of external data."""
ATTRIBUTES_MAX: Final = 256
"""Largest number of attributes of a node; operators have some tens."""
OPSETS_MAX: Final = 16
UNREACHED: Final = TRAINING_RAW_MAX
"""Length that no list has whose elements stand in as many bytes at most."""
VALUES_MAX: Final = 4096
"""Largest number of inputs, and of outputs."""

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains of operators that a skeleton may use."""
OPERATORS_REFUSED: Final = frozenset({"EPContext", "PythonOp", "PythonOpGrad", "PyOp", "ATen", "TritonOp"})
"""Operators that name files, or functions of another language, in their attributes."""
OPERATORS_NOTED: Final = MISSING_OPERATORS | BREAKING_OPERATORS
"""Operators whose presence a scan tells, because they decide what the model may be given."""
ATTRIBUTES_REFUSED: Final = frozenset({"ep_cache_context", "func_name", "func_module", "onnx_model_filename"})

Message = dict[int, tuple[str, str, int]]
"""Field number: (name, kind, how many)."""

# Kinds of fields. A capital letter begins the name of a message.
INT = "int64"
INT32 = "int32, not negative"
STR = "UTF-8"
LONG = "UTF-8, long"
BYTES = "bytes"
VARINTS = "packed numbers"
FLOAT = "fixed32"

TEXT_LIMITS: Final = {STR: TEXT_MAX, LONG: METADATA_MAX}
"""Largest texts by the kind of their field [B]."""

ONE = 1  # given twice is refused; any larger number is the length of a list
MANY = 0  # any number, of which only the count is stored: a list of a million names would take 60 MiB

WIRE = {INT: 0, INT32: 0, FLOAT: 5}  # all others are length-delimited

# What isn't here is refused: metadata of anything but the model, texts for people,
# training_info, functions, references to a function's attributes, sparse tensors, segments, annotations,
# device configurations, opaque types, and whatever later versions add.
_TENSOR: Message = {
    1: ("dims", INT, AXES_MAX),
    2: ("data_type", INT32, ONE),
    4: ("float_data", BYTES, ONE),  # packed: one run of bytes; in several runs it is not ours
    5: ("int32_data", VARINTS, ONE),
    6: ("string_data", BYTES, MANY),
    7: ("int64_data", VARINTS, ONE),
    8: ("name", STR, ONE),
    9: ("raw_data", BYTES, ONE),
    10: ("double_data", BYTES, ONE),
    11: ("uint64_data", VARINTS, ONE),
    13: ("external_data", "Entry", ENTRIES_MAX),
    14: ("data_location", INT32, ONE),
}
_NODE: Message = {
    1: ("input", STR, MANY),
    2: ("output", STR, MANY),
    3: ("name", STR, ONE),
    4: ("op_type", STR, ONE),
    5: ("attribute", "Attribute", ATTRIBUTES_MAX),
    7: ("domain", STR, ONE),
}
_GRAPH: Message = {
    1: ("node", "Node", MANY),
    2: ("name", STR, ONE),
    5: ("initializer", "Tensor", MANY),
    11: ("input", "Value", MANY),
    12: ("output", "Value", MANY),
    13: ("value_info", "Value", MANY),
}
_MODEL: Message = {
    1: ("ir_version", INT, ONE),
    2: ("producer_name", STR, ONE),
    3: ("producer_version", STR, ONE),
    4: ("domain", STR, ONE),
    5: ("model_version", INT, ONE),
    7: ("graph", "MainGraph", ONE),
    8: ("opset_import", "Opset", OPSETS_MAX),
    14: ("metadata_props", "Property", METADATA_ENTRIES_MAX),
}
# Only the main graph's initializers may lie in the weights file: they alone have holes.
_MAIN_GRAPH: Message = _GRAPH | {
    5: ("initializer", "Weight", TENSORS_MAX),
    11: ("input", "Value", VALUES_MAX),
    12: ("output", "Value", VALUES_MAX),
}
MESSAGES: dict[str, Message] = {
    "Model": _MODEL,
    "Property": {1: ("key", STR, ONE), 2: ("value", LONG, ONE)},
    "Opset": {1: ("domain", STR, ONE), 2: ("version", INT, ONE)},
    "MainGraph": _MAIN_GRAPH,
    "Graph": _GRAPH,
    # More of a main graph, which a training graph holds: all of it is inside the model, and its names matter.
    "Addition": {7: ("graph", "AddedGraph", ONE)},
    "AddedGraph": {
        1: ("node", "NamedNode", UNREACHED),
        5: ("initializer", "Tensor", TENSORS_MAX),
        11: ("input", "Value", TENSORS_MAX),
        12: ("output", "Value", TENSORS_MAX),
    },
    "NamedNode": _NODE | {2: ("output", STR, UNREACHED)},
    # A skeleton once more, where its names matter as well.
    "NamedModel": _MODEL | {7: ("graph", "NamedGraph", ONE)},
    "NamedGraph": _MAIN_GRAPH | {1: ("node", "NamedNode", UNREACHED)},
    "Node": _NODE,
    "Attribute": {
        1: ("name", STR, ONE),
        2: ("f", FLOAT, ONE),
        3: ("i", INT, ONE),
        4: ("s", BYTES, ONE),
        5: ("t", "Tensor", ONE),
        6: ("g", "Graph", ONE),
        7: ("floats", FLOAT, MANY),
        8: ("ints", INT, MANY),
        9: ("strings", BYTES, MANY),
        10: ("tensors", "Tensor", MANY),
        11: ("graphs", "Graph", MANY),
        14: ("tp", "Type", ONE),
        15: ("type_protos", "Type", MANY),
        20: ("type", INT32, ONE),
    },
    "Tensor": _TENSOR,
    "Weight": _TENSOR,
    "Entry": {1: ("key", STR, ONE), 2: ("value", STR, ONE)},
    "Value": {1: ("name", STR, ONE), 2: ("type", "Type", ONE)},
    "Type": {
        1: ("tensor_type", "TensorType", ONE),
        4: ("sequence_type", "ElementType", ONE),
        5: ("map_type", "MapType", ONE),
        6: ("denotation", STR, ONE),
        8: ("sparse_tensor_type", "TensorType", ONE),
        9: ("optional_type", "ElementType", ONE),
    },
    "TensorType": {1: ("elem_type", INT32, ONE), 2: ("shape", "Shape", ONE)},
    "ElementType": {1: ("elem_type", "Type", ONE)},
    "MapType": {1: ("key_type", INT32, ONE), 2: ("value_type", "Type", ONE)},
    "Shape": {1: ("dim", "Dim", AXES_MAX)},
    "Dim": {1: ("dim_value", INT, ONE), 2: ("dim_param", STR, ONE), 3: ("denotation", STR, ONE)},
}

# AttributeProto.type: the field that holds the value.
VALUE_FIELD = {
    1: "f",
    2: "i",
    3: "s",
    4: "t",
    5: "g",
    6: "floats",
    7: "ints",
    8: "strings",
    9: "tensors",
    10: "graphs",
    13: "tp",
    14: "type_protos",
}
DATA_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "raw_data",
    "double_data",
    "uint64_data",
)
