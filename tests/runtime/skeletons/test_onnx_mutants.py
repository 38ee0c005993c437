"""The skeleton walker against mutated real skeletons: refused, or read as protobuf and ONNX Runtime read them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from seed_runtime import skeletons
from seed_runtime.errors import SeedError
from seed_runtime.skeletons import onnx


def real_skeleton() -> bytes:
    """A small skeleton with all that real ones have, each weight returned so that it can be read back."""
    from onnx import TensorProto, helper

    tensors = []
    for name, dims, offset in (("a", [2, 3], 0), ("b.weight", [5], 64), ("c", [1, 4], 128)):
        tensor = TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        size = 4 * int(np.prod(dims))
        for key, text in (("location", "model.weights"), ("offset", str(offset)), ("length", str(size))):
            tensor.external_data.add(key=key, value=text)
        tensors.append(tensor)
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["t"])], "g", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    nodes = [helper.make_node("Identity", [tensor.name], [f"out{i}"]) for i, tensor in enumerate(tensors)]
    nodes.append(helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch))
    small = helper.make_tensor("flag", TensorProto.BOOL, [], b"\1", raw=True)
    main = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info(node.output[0], 1, None) for node in nodes],
        [*tensors, small],
    )
    opsets = [helper.make_opsetid("", 17)]
    built: onnx.ModelProto = helper.make_model(main, opset_imports=opsets, ir_version=8)
    built.ClearField("producer_name")
    return built.SerializeToString(deterministic=True)


def mutate(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        at = dice.randrange(len(out))
        match dice.randrange(6):
            case 0:
                out[at] ^= 1 << dice.randrange(8)
            case 1:
                out[at] = dice.randrange(256)
            case 2:
                del out[at : at + dice.randrange(1, 9)]
            case 3:
                out[at:at] = out[at : at + dice.randrange(1, 40)]
            case 4:
                other = dice.randrange(len(out))
                out[at : at + 8] = out[other : other + 8]
            case _:
                out[at:at] = dice.randbytes(dice.randrange(1, 5))
        if not out:
            return b"\0"
    return bytes(out)


def references(data: bytes) -> list[tuple[str, int, tuple[int, ...], dict[str, str]]]:
    """What another parser, protobuf's own, sees as external data, anywhere in the model."""
    import onnx

    found = []

    def search(message) -> None:
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            place = {entry.key: entry.value for entry in message.external_data}
            found.append((message.name, message.data_type, tuple(message.dims), place))
        for field, content in message.ListFields():
            if field.message_type is not None:
                for inner in [content] if hasattr(content, "DESCRIPTOR") else content:
                    search(inner)

    search(onnx.ModelProto.FromString(data))
    return found


def accepted_mutants(count: int, seed: int) -> list[tuple[bytes, skeletons.SkeletonInfo]]:
    whole = real_skeleton()
    dice = random.Random(seed)
    accepted = [(whole, onnx.scan(whole))]
    for _ in range(count):
        data = mutate(whole, dice)
        try:
            accepted.append((data, onnx.scan(data)))
        except SeedError:
            continue
    return accepted


def test_mutated_skeletons_are_refused_or_read_as_protobuf_reads_them():
    accepted = accepted_mutants(3000, seed=1)
    assert len(accepted) > 50
    for data, info in accepted:
        ours = [
            (
                tensor.name,
                tensor.dtype.code,
                tensor.dims,
                {"location": "model.weights", "offset": str(tensor.offset), "length": str(tensor.size)},
            )
            for tensor in info.tensors
        ]
        assert ours == references(data)


@pytest.mark.slow
def test_mutated_skeletons_are_refused_or_read_as_onnx_runtime_reads_them(tmp_path: Path):
    import onnx
    import onnxruntime as ort

    content = np.arange(256, dtype="<f4")
    (tmp_path / "model.weights").write_bytes(content.tobytes())
    path = tmp_path / "model.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    compared = 0
    for data, info in accepted_mutants(20_000, seed=2):
        path.write_bytes(data)
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            outputs = session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3), np.float32)})
        except Exception:
            continue  # refused by one of the two is refused
        got = dict(zip([output.name for output in session.get_outputs()], outputs, strict=True))
        tensors = {tensor.name: tensor for tensor in info.tensors}
        for node in onnx.ModelProto.FromString(data).graph.node:
            tensor = tensors.get(node.input[0])
            if node.op_type == "Identity" and tensor and tensor.dtype.name == "float32" and node.output[0] in got:
                expected = content[tensor.offset // 4 :][: tensor.size // 4].reshape(tensor.dims)
                assert np.array_equal(got[node.output[0]], expected)
                compared += 1
    assert compared > 100
