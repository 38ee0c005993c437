"""Write a torch module as an ONNX file that has no paths or names of this machine."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch
from onnxscript import optimizer

OPSET = 18


def export_onnx(
    model: torch.nn.Module,
    example: dict[str, torch.Tensor],
    axes: dict[str, tuple[str | None, ...]],
    output: str,
    target: Path,
    keep_batch_norm: bool = False,
) -> None:
    """Export `model` by torch's exporter.

    Args:
        model: put into evaluation mode; takes `example`'s values in order.
        example: one tensor per input. Sizes of free axes must not be 1, which torch would fix.
        axes: per input, a name for each free axis, None for each fixed one.
        output: the name of the only output.
        target: one file, weights inside.
        keep_batch_norm: fold constants only. Torch's own optimization would fold batch norms
            into the weights, and fine-tuning and re-estimation need them.
    """
    torch.set_num_threads(2)
    names = sorted({name for axis in axes.values() for name in axis if name})
    free = {name: torch.export.Dim(name, min=1, max=4096) for name in names}
    shapes = tuple({at: free[name] for at, name in enumerate(axes[key]) if name} for key in example)
    # The exporter warns of its own deprecations and of torchvision, which no model here needs.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            tuple(example.values()),
            dynamo=True,
            optimize=not keep_batch_norm,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=list(example),
            output_names=[output],
            verbose=False,
        )
    if keep_batch_norm:
        optimizer.inline(program.model)
        optimizer.fold_constants(program.model, onnx_shape_inference=True)
        optimizer.remove_unused_nodes(program.model)
    proto = program.model_proto
    _drop_zero_biases(proto.graph)
    _strip(proto)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(target))


def _drop_zero_biases(graph: onnx.GraphProto) -> None:
    # Without its optimizer torch writes a vector of zeros for each convolution that has no bias.
    zeros = {item.name for item in graph.initializer if not onnx.numpy_helper.to_array(item).any()}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _strip(proto: onnx.ModelProto) -> None:
    # The exporter writes stack traces with paths of this machine; without them, equal inputs give equal files.
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    proto.doc_string = proto.graph.doc_string = ""
    graph = proto.graph
    for item in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
