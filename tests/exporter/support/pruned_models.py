"""Build small models with dead channels, and check that shrinking one changes no output. Holds no tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.shrink.run import shrink
from tests.exporter.support.onnx_models import tensor


class Builder:
    """Collects the nodes and initializers of one model from `x` to the last value.

    Args:
        inputs: shape of each input of floats; strings are free.
        opset: version of ONNX's operators.
    """

    def __init__(self, *, opset: int = 18, **inputs: Sequence[int | str]) -> None:
        self.rng = np.random.default_rng(11)
        self._opset = opset
        self._inputs = inputs
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, np.ndarray] = {}
        self._outputs: list[str] = []

    @property
    def parameters(self) -> int:
        """Number of elements of all initializers so far."""
        return sum(array.size for array in self._tensors.values())

    def constant(self, array: np.ndarray | Sequence[int], name: str | None = None) -> str:
        """Add an initializer, int64 if it is no array."""
        name = name or f"c{len(self._tensors)}"
        self._tensors[name] = array if isinstance(array, np.ndarray) else np.array(array, np.int64)
        return name

    def weight(self, name: str, *shape: int, dead: Sequence[int] = (), axis: int = 0) -> str:
        """Add random weights that are 0 at some places along an axis."""
        fan_in = max(np.prod(shape) / max(shape[0], shape[-1]), 1)
        array = self.rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
        np.moveaxis(array, axis, 0)[list(dead)] = 0
        return self.constant(array, name)

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        """Add a node of one output."""
        return self.nodes(op, 1, *inputs, domain=domain, **attributes)[0]

    def nodes(self, op: str, count: int, *inputs: str, domain: str = "", **attributes: object) -> list[str]:
        """Add a node of some outputs."""
        outputs = [f"v{len(self._nodes)}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs

    def conv(
        self,
        value: str,
        name: str,
        out: int,
        into: int,
        side: int = 1,
        *,
        dead: Sequence[int] = (),
        bias: bool = False,
        **attributes: object,
    ) -> str:
        """Add a padded convolution; with `bias`, dead rows have one that isn't 0."""
        inputs = [value, self.weight(name, out, into, side, side, dead=dead)]
        if bias:
            inputs.append(self.constant(self.rng.normal(0.5, 0.1, out).astype(np.float32), f"{name}.bias"))
        return self.node("Conv", *inputs, **{"pads": [side // 2] * 4, **attributes})

    def graph(self, *outputs: str) -> Graph:
        """Load the model with these outputs."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in self._inputs.items()
        ]
        found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        proto = helper.make_graph(
            self._nodes, "g", inputs, found, [tensor(array, name) for name, array in self._tensors.items()]
        )
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid("com.microsoft", 1)]
        return load(helper.make_model(proto, opset_imports=opsets, ir_version=8))

    def feeds(self, **free: int) -> dict[str, np.ndarray]:
        """Draw inputs; free sizes are 2 if they aren't given."""
        return {
            name: self.rng.standard_normal(
                [size if isinstance(size, int) else free.get(size, 2) for size in shape]
            ).astype(np.float32)
            for name, shape in self._inputs.items()
        }


def whole(graph: Graph) -> onnx.ModelProto:
    """Return a graph's model with its weights in it."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for initializer in model.graph.initializer:
        if initializer.name in graph.weights:
            initializer.CopyFrom(tensor(graph.weights[initializer.name].data, initializer.name))
    return model


def run(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a graph with ONNX Runtime, without any optimization that could hide a wrong node."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(whole(graph).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def shrunk(built: Builder, *outputs: str, **free: int) -> tuple[Graph, dict[str, tuple[int, ...]]]:
    """Shrink a model, check its outputs, and return the graph and the shapes of its weights and other initializers."""
    before = built.graph(*outputs)
    after = shrink(before)
    onnx.shape_inference.infer_shapes(whole(after), check_type=True, strict_mode=True)
    feeds = built.feeds(**free)
    for one, other in zip(run(before, feeds), run(after, feeds), strict=True):
        assert one.shape == other.shape
        error = np.sqrt(np.mean((other - one) ** 2, dtype=np.float64))
        assert error <= 1e-5 * np.sqrt(np.mean(one**2, dtype=np.float64)), f"{error} of values up to {abs(one).max()}"
    return after, {each.name: tuple(each.dims) for each in after.model.graph.initializer}
