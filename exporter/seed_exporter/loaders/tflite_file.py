"""Load TFLite files: constants that are weights, and a description of the graph in the words of ONNX.

The runtime's own check reads where constants are, so that nothing is exported which no device takes; operators and
their options are read by the schema that LiteRT's package has.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

from seed_exporter.graph import tflite_file
from seed_exporter.graph.index import with_uses
from seed_exporter.graph.model import Graph, Weight, stays_inline
from seed_exporter.graph.tflite_file import DOMAIN, TFLiteFile
from seed_runtime.errors import FormatError, UnsupportedError, UsageError
from seed_runtime.limits import TENSORS_MAX
from seed_runtime.skeletons.tflite import BufferPlace, buffers, scan_file
from seed_runtime.skeletons.tflite_schema import IDENTIFIER, OPERATORS

FILE_MAX: Final = (1 << 31) - 1
"""Largest flatbuffer [B]."""
_SUFFIXES: Final = frozenset({".tflite", ".lite"})
_WORDS: Final = {
    "SOFTMAX": "Softmax", "LOG_SOFTMAX": "LogSoftmax", "RESHAPE": "Reshape", "SQUEEZE": "Squeeze", "CAST": "Cast",
    "ADD": "Add", "GATHER": "Gather", "EMBEDDING_LOOKUP": "Gather", "QUANTIZE": "QuantizeLinear",
    "RANDOM_STANDARD_NORMAL": "RandomNormal", "RANDOM_UNIFORM": "RandomUniform", "MULTINOMIAL": "Multinomial",
    "FULLY_CONNECTED": "Gemm",
}  # fmt: skip
"""Operators of ONNX that are like one of LiteRT in what those look at who read a description."""
_PASSING: Final = frozenset({"DEQUANTIZE", "DENSIFY"})
"""Operators whose result, of a constant, stands for the constant itself."""
_PADDING: Final = ("SAME_UPPER", "VALID")
"""ONNX's words for LiteRT's paddings, by their number."""


def matches(source: object) -> bool:
    """Return whether `source` is the path of a TFLite file."""
    if not isinstance(source, (str, Path)):
        return False
    if Path(source).suffix.lower() in _SUFFIXES:
        return True
    try:
        with open(source, "rb") as file:
            return file.read(8)[4:] == IDENTIFIER
    except (OSError, ValueError):
        return False


def load(source: str | Path) -> Graph:
    """Load a TFLite file. It stays mapped: nothing of it is copied.

    Raises:
        UsageError: there is no such file.
        UnsupportedError: it is no TFLite model, is damaged, or has data outside of itself.
    """
    path = Path(source)
    try:
        size = path.stat().st_size
        if not 8 <= size <= FILE_MAX:
            raise UnsupportedError(f"{path} has {size:,} bytes, which no TFLite model has; copy or convert it again")
        with path.open("rb") as opened:
            data = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; check the path") from None
    try:
        info, found = scan_file(data), buffers(data)
    except FormatError as error:
        raise UnsupportedError(
            f"{path} is no TFLite model that LiteRT could be given, or it is cut or damaged: {error.problem}; "
            f"copy or convert it again"
        ) from None
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    names = _unique([value.name for value in (*info.inputs, *info.outputs)])
    chosen = {each.number: each for each in found if _is_weight(each)}
    if len(chosen) > TENSORS_MAX:
        raise UnsupportedError(f"{path} has {len(chosen):,} constants, and a seed carries {TENSORS_MAX:,}")
    weight_names = {number: names(each.name or f"buffer {number}") for number, each in chosen.items()}
    weights = {weight_names[number]: _weight(weight_names[number], each, data) for number, each in chosen.items()}
    described = _Description(model.Subgraphs(0), model, schema, weight_names, info)
    file = TFLiteFile(
        data, info, {weight_names[number]: each.place for number, each in chosen.items()}, described.numbers
    )
    notes: tuple[str, ...] = ()
    if info.custom_operators:
        names = ", ".join(info.custom_operators)
        notes = (f"{names}: operators that only its maker's programs have; the model was not run, only assembled",)
    return with_uses(Graph(described.proto(weights), weights, notes, file=file))


def _is_weight(each: BufferPlace) -> bool:
    """Return whether a buffer leaves the model: those that tensors use, if they are large enough."""
    return each.is_used and not stays_inline(each.dtype, each.place.size)


def _weight(name: str, each: BufferPlace, data: memoryview) -> Weight:
    storage = each.dtype.storage
    values = np.frombuffer(data, storage, each.place.size // storage.itemsize, each.place.offset)
    shape = each.dims if each.dtype.bits >= 8 else (values.size,)
    return Weight(name, each.dtype, each.dims, values.reshape(shape))


def _unique(taken: list[str]) -> Any:
    """Return a function that makes names differ from these and from each other."""
    counts = Counter(taken)

    def name(wanted: str) -> str:
        chosen = wanted
        while counts[chosen]:
            counts[wanted] += 1
            chosen = f"{wanted}#{counts[wanted]}"
        counts[chosen] += 1
        return chosen

    return name


class _Description:
    """The first subgraph in the words of ONNX.

    Attributes:
        numbers: tensors by the names that they have there.
    """

    def __init__(self, graph: Any, model: Any, schema: Any, weights: Mapping[int, str], info: Any) -> None:
        self._graph, self._model, self._schema, self._info = graph, model, schema, info
        self._names: dict[int, str] = {}
        for number in range(graph.TensorsLength()):
            buffer = graph.Tensors(number).Buffer()
            self._names[number] = weights.get(buffer, f"t{number}")
        ends = ((graph.Outputs, info.outputs), (graph.Inputs, info.inputs))
        for read, values in ends:
            self._names |= {read(index): value.name for index, value in enumerate(values)}
        self._nodes = list(self._described())
        self.numbers = {name: number for number, name in self._names.items()}

    def proto(self, weights: Mapping[str, Weight]) -> onnx.ModelProto:
        """Return the description, with the weights as initializers without data."""
        graph = onnx.GraphProto(name="g", node=self._nodes)
        for values, kept in ((self._info.inputs, graph.input), (self._info.outputs, graph.output)):
            for value in values:
                kept.append(helper.make_tensor_value_info(value.name, value.elem_type or 0, value.dims))
        for weight in weights.values():
            graph.initializer.add(name=weight.name, data_type=weight.dtype.code, dims=weight.shape)
        return helper.make_model(graph)

    def _described(self) -> Iterator[onnx.NodeProto]:
        outputs = {self._graph.Outputs(index) for index in range(self._graph.OutputsLength())}
        for index in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(index)
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            name = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs = [operator.Inputs(place) for place in range(operator.InputsLength())]
            results = [operator.Outputs(place) for place in range(operator.OutputsLength())]
            # What is read of a constant's dequantized or dense copy is read of the constant.
            if name in _PASSING and results and results[0] not in outputs and self._is_constant(inputs[0]):
                self._names[results[0]] = self._names[inputs[0]]
                continue
            read = ["" if number < 0 else self._names[number] for number in inputs]
            if name == "EMBEDDING_LOOKUP":
                read.reverse()
            word = None if name == tflite_file.DENSE and not self._takes_rows(inputs) else _WORDS.get(name)
            attributes = self._attributes(name, operator, inputs)
            yield helper.make_node(
                word or name, read, [self._names[number] for number in results], f"operator {index}",
                domain="" if word else DOMAIN, **attributes,
            )  # fmt: skip

    def _takes_rows(self, inputs: list[int]) -> bool:
        """Return whether a dense layer takes rows as they are: others are made of several axes."""
        taken, weight = (self._graph.Tensors(number) for number in inputs[:2])
        if not taken.ShapeLength() or weight.ShapeLength() != 2:
            return False
        return bool(taken.Shape(taken.ShapeLength() - 1) == weight.Shape(1))

    def _is_constant(self, number: int) -> bool:
        name = self._names[number]
        return self._model.Buffers(self._graph.Tensors(number).Buffer()).DataLength() > 0 or name not in (
            f"t{number}",
            *(value.name for value in self._info.inputs),
        )

    def _attributes(self, name: str, operator: Any, inputs: list[int]) -> dict[str, Any]:
        if name in ("GATHER", "EMBEDDING_LOOKUP"):
            options = self._options(operator, "GatherOptions")
            return {"axis": options.Axis() if options else 0}
        if name == tflite_file.DENSE:
            return {"transB": 1}
        if name == tflite_file.PRODUCT:
            options = self._options(operator, "BatchMatMulOptions")
            return {"transposed": int(bool(options and options.AdjY()))}
        if name not in (tflite_file.CONVOLUTION, tflite_file.DEPTHWISE):
            return {}
        options = self._options(
            operator, "Conv2DOptions" if name == tflite_file.CONVOLUTION else "DepthwiseConv2DOptions"
        )
        shape, taken = (self._graph.Tensors(number).ShapeAsNumpy() for number in (inputs[1], inputs[0]))
        if options is None or len(shape) != 4 or len(taken) != 4 or not all(shape):
            return {}
        return {
            "strides": [options.StrideH(), options.StrideW()],
            "dilations": [options.DilationHFactor(), options.DilationWFactor()],
            "auto_pad": _PADDING[options.Padding() & 1],
            "group": max(1, int(taken[3]) // int(shape[3])) if name == tflite_file.CONVOLUTION else int(taken[3]),
        }

    def _options(self, operator: Any, kind: str) -> Any:
        table = operator.BuiltinOptions()
        if table is None or operator.BuiltinOptionsType() != getattr(self._schema.BuiltinOptions, kind):
            return None
        options = getattr(self._schema, kind)()
        options.Init(table.Bytes, table.Pos)
        return options
