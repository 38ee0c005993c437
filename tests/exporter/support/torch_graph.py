"""Torch's own gradients of an ONNX graph, to compare with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from seed_exporter.graph.model import Graph
from seed_exporter.heal.interpreter import Interpreter


def torch_gradients(
    graph: Graph,
    feeds: Mapping[str, np.ndarray],
    seeds: Mapping[str, np.ndarray],
    wrt: list[str],
    dtype: torch.dtype = torch.float64,
) -> list[np.ndarray]:
    """Return torch's gradients of weights and inputs, given those of the outputs; all floats are of one type."""
    interpreter = Interpreter(graph, dtype)
    values = {name: interpreter.tensor(np.asarray(array)) for name, array in feeds.items()} | interpreter.weights()
    for name in wrt:
        values[name].requires_grad_()
    weights = {name: values[name] for name in graph.weights}
    outputs = interpreter.run({name: values[name] for name in feeds}, weights)
    loss = sum((outputs[name] * interpreter.tensor(seed)).sum() for name, seed in seeds.items())
    found = torch.autograd.grad(loss, [values[name] for name in wrt], allow_unused=True)
    pairs = zip(wrt, found, strict=True)
    return [(torch.zeros_like(values[name]) if each is None else each).detach().numpy() for name, each in pairs]
