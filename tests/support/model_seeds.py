"""Build whole, valid seeds of ONNX models without the exporter: the runtime's encoders and its writer, no search.

`tests.support.seed_builder` writes single fields from SPEC.md instead, and can write wrong ones.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seed_runtime import backends, generator
from seed_runtime.assembly.assemble import decode_streams, working_bytes
from seed_runtime.codecs import BY_NAME as CODECS
from seed_runtime.codecs.encode import grid, split, symbols
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.format.dtypes import BY_NAME as DTYPES
from seed_runtime.format.header import Header, Hole, ModelInfo, Part, WeightsInfo
from seed_runtime.format.parts import ONNX_SKELETON
from seed_runtime.format.sections.holes import ALIGNMENT
from seed_runtime.format.sections.model import FEATURE_LEVEL
from seed_runtime.format.writer import stream_of, write_into
from seed_runtime.golden import Golden, Recipe, sample
from seed_runtime.memory.footprint import Footprint, ModeFootprint
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE

F32 = DTYPES["float32"]
CLASSES = 40
FEATURES = 32
DETECTOR_METADATA = {"names": "0: cat\n1: \x1b[31mdog", "stride": "32"}
_GOLDEN_RNG_SEED = 5
_TOLERANCE = 2.0**-12
"""Tolerance of golden samples, relative to the largest output."""


def build_model_seed(
    model: onnx.ModelProto,
    *,
    model_id: str = "model",
    version: int = 1,
    feature_level: int = FEATURE_LEVEL,
    step: float | None = None,
    on_trellis: Collection[str] = (),
    recipes: Sequence[Recipe] = (),
    golden_error: float = 0.0,
    footprint: Footprint | None = None,
    least_working_bytes: int = 0,
    defaults: Sequence[TensorProto] = (),
    parts: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """Return the seed of a model whose initializers are float32.

    Args:
        model: Its initializers become the seed's weights; it isn't changed.
        model_id: The name in the section MODEL.
        version: The version in the section MODEL.
        feature_level: The level of the format in the section MODEL.
        step: Quantization step of matrices, in root mean squares of each; None stores all weights bit by bit.
        on_trellis: Names of matrices whose integers are those of a trellis, whatever weights these make.
        recipes: Inputs of the golden sample, in the order of the model's; none for a seed without one.
        golden_error: What is added to the golden sample's values, so that it fails.
        footprint: The section FOOTPRINT.
        least_working_bytes: Least value of the header's working bytes.
        defaults: Initializers of inputs, which stay in the skeleton.
        parts: Kind and bytes of the parts behind the skeleton.
    """
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = sorted(weights, key=lambda name: not _is_quantized(weights[name], step))
    holes, offset = [], 0
    for name in names:
        dtype, dims = DTYPES[weights[name].dtype.name], weights[name].shape
        skip = -offset % ALIGNMENT
        holes.append(Hole(dtype, dims, skip, offset + skip))
        offset += skip + weights[name].nbytes
    skeleton = _external(model, dict(zip(names, holes, strict=True)), defaults)
    packed = [(ONNX_SKELETON.number, skeleton, pack(skeleton)), *((kind, data, pack(data)) for kind, data in parts)]

    groups: list[tuple[str, list[str], list[bytes]]] = []
    quantized = [name for name in names if _is_quantized(weights[name], step)]
    exact = names[len(quantized) :]
    if quantized:
        assert step is not None
        groups.append(("grid", quantized, _grid_chunks({name: weights[name] for name in quantized}, step, on_trellis)))
    if exact:
        matrices = [
            split.matrix_of(weights[name].reshape(weights[name].shape[0] if weights[name].ndim > 1 else 1, -1), F32)
            for name in exact
        ]
        groups.append(("split", exact, symbols.encode(matrices).chunks))
    streams, first = [], 0
    for codec, held, chunks in groups:
        streams.append(stream_of(CODECS[codec].number, first, len(held), chunks))
        first += len(held)
    header = Header(
        model=ModelInfo(
            model_id,
            version,
            feature_level,
            sum(weight.size for weight in weights.values()),
            sum(weight.nbytes for weight in weights.values()),
        ),
        weights=WeightsInfo(offset, bytes(32)),
        parts=tuple(
            Part(kind, packing, len(data), len(part), hashlib.sha256(part).digest())
            for kind, data, (packing, part) in packed
        ),
        holes=tuple(holes),
        streams=tuple(streams),
        footprint=footprint.pack() if footprint else None,
    )
    needed = max(working_bytes(header), least_working_bytes)
    header = replace(header, weights=replace(header.weights, working_bytes=needed))

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / MODEL_FILE).write_bytes(skeleton)
        with (folder / WEIGHTS_FILE).open("wb") as file:
            digest = decode_streams(
                header, lambda index, _: iter([memoryview(chunk) for chunk in groups[index][2]]), file.write
            )
        header = replace(header, weights=replace(header.weights, digest=digest))
        if recipes:
            header = replace(header, golden=golden_sample(folder, recipes, golden_error).pack())
        with (folder / "seed").open("w+b") as file:
            write_into(
                file,
                header,
                [part for _, _, (_, part) in packed],
                (chunk for _, _, chunks in groups for chunk in chunks),
            )
            file.seek(0)
            return file.read()


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, np.ndarray],
    codes: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Return a model of opset 17; inputs and outputs are float32 unless `codes` gives another ONNX type of a name."""
    code = dict(codes or {})

    def values(shapes: Mapping[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, code.get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "g", values(inputs), values(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@functools.cache
def classifier(*, footprint: bool = True, golden: str = "right", on_trellis: Sequence[str] = ()) -> bytes:
    """Return a seed of x: float32[batch, FEATURES] -> scores: float32[batch, CLASSES].

    Args:
        footprint: Whether it has the section FOOTPRINT.
        golden: Its golden sample: "right", "wrong" or "none".
        on_trellis: Weights that have a trellis.
    """
    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.normal(size=(FEATURES, 64)),
        "w2": rng.normal(size=(64, CLASSES)),
        "b": rng.normal(size=CLASSES),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["relu"]),
        helper.make_node("MatMul", ["relu", "w2"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["scores"]),
    ]
    # As measured for a model of this kind, and rounded up: 16 MiB above the imported library.
    measured = Footprint(
        (("x", 0),),
        ((1,), (64,)),
        (ModeFootprint("fast", 256, 1, (256, 272)), ModeFootprint("lean", 240, 1, (240, 256))),
    )
    return build_model_seed(
        onnx_model(nodes, {"x": ["batch", FEATURES]}, {"scores": ["batch", CLASSES]}, weights),
        model_id="classifier",
        version=3,
        step=0.05,
        on_trellis=on_trellis,
        recipes=() if golden == "none" else (Recipe(generator.NORMAL, F32, (1, FEATURES), 0.0, 1.0),),
        golden_error=1.0 if golden == "wrong" else 0.0,
        footprint=measured if footprint else None,
    )


@functools.cache
def tokens() -> bytes:
    """Return a seed with two inputs.

    They are ids: int32[batch, length] and shift: float32[8]; the output is states: float32[batch, length, 8].
    """
    table = np.random.default_rng(8).normal(size=(200, 8))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Add", ["rows", "shift"], ["states"]),
    ]
    inputs = {"ids": ["batch", "length"], "shift": [8]}
    model = onnx_model(nodes, inputs, {"states": ["batch", "length", 8]}, {"table": table}, {"ids": TensorProto.INT32})
    return build_model_seed(model, model_id="tokens", version=3, step=0.05)


@functools.cache
def detector() -> bytes:
    """Return a seed of x: float32[4] -> y: float32[4] with metadata: names on two lines, and a stride."""
    model = onnx_model([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [4]}, {"y": [4]}, {"w": np.ones(4)})
    helper.set_model_props(model, DETECTOR_METADATA)
    return build_model_seed(model, model_id="detector")


@functools.cache
def with_gain() -> bytes:
    """Return a seed of x: float32[n, 4] and optionally gain: float32[1], 2 by default; y is x * w * gain."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["h"]), helper.make_node("Mul", ["h", "gain"], ["y"])]
    model = onnx_model(nodes, {"x": ["n", 4], "gain": [1]}, {"y": ["n", 4]}, {"w": np.ones(4)})
    default = numpy_helper.from_array(np.full(1, 2, np.float32), "gain")
    recipe = Recipe(generator.NORMAL, F32, (1, 4), 0.0, 1.0)
    return build_model_seed(model, model_id="gain", recipes=(recipe,), defaults=(default,))


def _is_quantized(weight: np.ndarray, step: float | None) -> bool:
    return step is not None and weight.ndim > 1


def _grid_chunks(weights: Mapping[str, np.ndarray], step: float, on_trellis: Collection[str]) -> list[bytes]:
    matrices = []
    for name, weight in weights.items():
        own_step = float(np.float32(step * float(np.sqrt(np.square(weight).mean()))))
        rounded = grid.round_to_nearest(weight.reshape(len(weight), -1), own_step)
        matrices.append(grid.matrix_of(replace(rounded, delay=1 if name in on_trellis else None)))
    return symbols.encode(matrices).chunks


def _external(model: onnx.ModelProto, holes: Mapping[str, Hole], defaults: Sequence[TensorProto]) -> bytes:
    """Return the model's bytes with the initializers as external data in the weights file."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    for tensor in skeleton.graph.initializer:
        hole = holes[tensor.name]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(hole.offset)), ("length", str(hole.size))):
            tensor.external_data.add(key=key, value=value)
    skeleton.graph.initializer.extend(defaults)
    return skeleton.SerializeToString()


def golden_sample(folder: Path, recipes: Sequence[Recipe], error: float) -> Golden:
    """Return the golden sample of the model assembled in `folder`."""
    engine = backends.get()
    engine.load()
    runner = engine.open(folder, "fast", 1)
    try:
        empty = Golden(_GOLDEN_RNG_SEED, tuple(recipes), ())
        expected = []
        for output in runner.run(empty.feeds(runner.inputs)).values():
            found = sample(output, 64, float(np.float32(_TOLERANCE * np.abs(output).max())))
            expected.append(replace(found, values=found.values + np.float32(error)))
    finally:
        runner.close()
    return replace(empty, outputs=tuple(expected))
