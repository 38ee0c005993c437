"""PyTorch modules and exported programs. Without torch these are skipped; CI installs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from seed_exporter import loaders
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.matrix import matrix_view
from seed_exporter.graph.model import Graph
from seed_runtime.errors import UnsupportedError, UsageError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'seed-runtime[torch]'")
pytestmark = pytest.mark.slow  # importing torch and tracing take seconds


class Tied(torch.nn.Module):
    """An embedding whose table is the output layer too, with dropout and batch norm on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(200, 32)
        self.inner = torch.nn.Linear(32, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, tokens):
        hidden = self.norm(self.dropout(torch.relu(self.inner(self.table(tokens)))))
        return hidden @ self.table.weight.T


def tied() -> Tied:
    torch.manual_seed(0)
    return Tied()


def outputs(graph: Graph, folder: Path, feeds) -> list[np.ndarray]:
    check_runnable(graph)
    session = ort.InferenceSession(write_model_files(graph, folder), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([value.name for value in session.get_inputs()], feeds, strict=True)))


TOKENS = torch.arange(12).reshape(2, 6)


def test_a_module_gives_its_outputs_and_keeps_its_mode(tmp_path: Path):
    module = tied()
    module.train()
    module.inner.eval()
    graph = loaders.load(module, example_inputs=(TOKENS,))
    assert (module.training, module.inner.training, module.dropout.training) == (True, False, True)
    got = outputs(graph, tmp_path, [TOKENS.numpy()])[0]
    with torch.no_grad():
        expected = module.eval()(TOKENS).numpy()
    assert np.allclose(got, expected, atol=1e-5)


def test_a_tied_table_is_stored_once():
    graph = loaders.load(tied(), example_inputs=(TOKENS,))
    assert sorted(weight.shape for weight in graph.weights.values() if weight.count > 32) == [
        (32, 32),
        (200, 32),
    ]


def test_dimensions_can_be_free_and_inputs_named(tmp_path: Path):
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    graph = loaders.load(
        tied(),
        example_inputs=(TOKENS,),
        dynamic_shapes=({0: batch, 1: length},),
        input_names=["ids"],
        output_names=["scores"],
    )
    assert [value.name for value in graph.model.graph.input] == ["ids"]
    assert [value.name for value in graph.model.graph.output] == ["scores"]
    assert outputs(graph, tmp_path, [np.zeros((5, 9), np.int64)])[0].shape == (5, 9, 200)


def test_keyword_inputs_are_taken():
    graph = loaders.load(tied(), example_inputs={"tokens": TOKENS})
    assert [value.name for value in graph.model.graph.input] == ["tokens"]


def test_a_module_without_example_inputs_is_a_mistake_in_use():
    with pytest.raises(UsageError, match="example_inputs"):
        loaders.load(tied())


def test_a_module_that_onnx_cannot_express_is_refused_with_one_line():
    class Strange(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x)

    with pytest.raises(UnsupportedError) as caught:
        loaders.load(Strange(), example_inputs=(torch.eye(3),))
    assert "\n" not in str(caught.value)


def test_a_convolution_keeps_its_channels_first(tmp_path: Path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.Conv2d(16, 24, 1))
    image = torch.randn(1, 3, 8, 8)
    graph = loaders.load(module, example_inputs=(image,))
    views = {weight.shape: matrix_view(weight) for weight in graph.weights.values()}
    assert views[16, 3, 3, 3] == (16, 27)
    got = outputs(graph, tmp_path, [image.numpy()])[0]
    with torch.no_grad():
        assert np.allclose(got, module.eval()(image).numpy(), atol=1e-5)


def test_an_exported_program_gives_the_same_graph_from_its_file(tmp_path: Path):
    program = torch.export.export(tied().eval(), (TOKENS,))
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    graph = loaders.load(path)
    with torch.no_grad():
        expected = tied().eval()(TOKENS).numpy()
    assert np.allclose(outputs(graph, tmp_path, [TOKENS.numpy()])[0], expected, atol=1e-5)
    assert loaders.load(program).weights.keys() == graph.weights.keys()


def test_a_pt2_file_that_is_none_or_is_missing_says_so(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        loaders.load(tmp_path / "model.pt2")
    (tmp_path / "model.pt2").write_bytes(b"not a zip")
    with pytest.raises(UnsupportedError, match="no exported program"):
        loaders.load(tmp_path / "model.pt2")


def test_loading_an_onnx_file_imports_no_torch(tmp_path: Path):
    code = (
        "import sys\n"
        "from seed_exporter import loaders\n"
        "try: loaders.load('nowhere.onnx')\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["UsageError", "False"]


def test_a_missing_torch_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model.pt2").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"pip install 'seed-runtime\[torch\]'"):
        loaders.load(tmp_path / "model.pt2")
