"""Gradients of ONNX graphs as ONNX graphs: reverse mode from graph to graph, in standard operators.

ONNX Runtime executes the result; nothing here needs a framework that trains.
"""

from seed_exporter.gradients.build import gradient_graph, gradient_name, missing_rules, refused_nodes

__all__ = ["gradient_graph", "gradient_name", "missing_rules", "refused_nodes"]
