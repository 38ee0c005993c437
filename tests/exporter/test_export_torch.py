"""PyTorch modules and exported programs become seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_exporter
import seed_runtime
from tests.exporter.support.exporting import quick_export


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "model.seed"


def _torch() -> Any:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'seed-runtime[torch]'")
    return pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")


@pytest.mark.slow
def test_a_torch_module_becomes_a_seed_that_gives_its_outputs(output: Path) -> None:
    torch = _torch()
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 40))
    x = torch.randn(2, 64)
    result = seed_exporter.export(module, (x,), output=output)
    assert 4 * result.parameters / output.stat().st_size > 2
    with seed_runtime.open(output).session() as session, torch.no_grad():
        (y,) = session.run({session.inputs[0].name: x.numpy()}).values()
        expected = module(x).numpy()
    assert np.linalg.norm(y - expected) < 0.05 * np.linalg.norm(expected)


@pytest.mark.slow
def test_an_exported_program_in_a_file_becomes_a_seed(output: Path, tmp_path: Path) -> None:
    torch = _torch()
    torch.manual_seed(0)
    module = torch.nn.Linear(64, 96).eval()
    x = torch.randn(2, 64)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "linear.pt2")
    quick_export(tmp_path / "linear.pt2", output, method="lossless")
    with seed_runtime.open(output).session() as session, torch.no_grad():
        (y,) = session.run({session.inputs[0].name: x.numpy()}).values()
        assert np.allclose(y, module(x).numpy(), atol=1e-5)
    assert seed_runtime.open(output).header.model.model_id == "linear"
