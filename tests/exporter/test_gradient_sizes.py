"""Names for sizes that aren't known: equal only where the sizes are equal."""

from __future__ import annotations

import onnx
from onnx import helper

from seed_exporter.gradients.sizes import name_sizes

IMAGE = (None, 4, None, None)
KERNEL = (4, 4, 3, 3)


def shapes_after(*nodes: onnx.NodeProto, **shapes: tuple) -> dict[str, tuple]:
    graph = helper.make_graph(nodes, "g", [], [])
    return name_sizes(graph, shapes, {"sizes": [0, 8, -1], "axes": [1]}.get)


def conv(**attributes) -> onnx.NodeProto:
    return helper.make_node("Conv", ["x", "w"], ["y"], **attributes)


def test_sizes_of_different_inputs_have_different_names() -> None:
    found = shapes_after(x=IMAGE, z=IMAGE)
    names = [dim for shape in found.values() for dim in shape if dim != 4]
    assert len(set(names)) == 6


def test_a_value_has_the_sizes_of_what_is_broadcast_to_it() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["y"]), helper.make_node("Mul", ["y", "x"], ["z"])]
    found = shapes_after(*nodes, x=IMAGE, b=(4, 1, 1), y=IMAGE, z=IMAGE)
    assert found["x"] == found["y"] == found["z"]
    found = shapes_after(helper.make_node("Add", ["x", "b"], ["y"]), x=IMAGE, b=IMAGE, y=IMAGE)
    assert set(found["y"]).isdisjoint({*found["x"], *found["b"]} - {4})


def test_a_convolution_keeps_sizes_where_its_pads_make_up_for_its_kernel() -> None:
    for attributes in [{"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}, {"pads": [2] * 4, "dilations": [2, 2]}]:
        found = shapes_after(conv(**attributes), x=IMAGE, w=KERNEL, y=IMAGE)
        assert found["y"] == found["x"]
    for attributes in [{}, {"pads": [1] * 4, "strides": [2, 1]}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}]:
        found = shapes_after(conv(**attributes), x=IMAGE, w=KERNEL, y=IMAGE)
        assert found["y"][0] == found["x"][0]
        assert set(found["y"][2:]).isdisjoint(found["x"])


def test_sizes_move_with_axes() -> None:
    x = (None, None, None)
    found = shapes_after(helper.make_node("Transpose", ["x"], ["y"], perm=[2, 0, 1]), x=x, y=x)
    assert found["y"] == (found["x"][2], found["x"][0], found["x"][1])
    found = shapes_after(helper.make_node("Reshape", ["x", "sizes"], ["y"]), x=x, y=(None, 8, None))
    assert found["y"][:2] == (found["x"][0], 8)
    assert found["y"][2] not in found["x"]
    found = shapes_after(helper.make_node("ReduceMean", ["x", "axes"], ["y"]), x=x, y=(None, 1, None))
    assert found["y"] == (found["x"][0], 1, found["x"][2])
    found = shapes_after(helper.make_node("MatMul", ["x", "w"], ["y"]), x=x, w=(5, 6), y=(None, None, 6))
    assert found["y"] == (*found["x"][:2], 6)
