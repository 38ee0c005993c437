"""TFLite files of two public packages: every bit kept, given back byte for byte, run with equal outputs.

`python -m bench tflite` does the same with the larger ones, which take a minute together.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import seed_runtime
from seed_exporter.evaluate import footprint
from seed_exporter.pipeline import export
from seed_exporter.results import Options
from seed_runtime.errors import UnsupportedError
from tests.support.public_models import CACHE

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")

FOLDERS = ("mediapipe-0.10.14", "basic-pitch-0.4.0")
LARGEST = 1 << 20
FILES = sorted(
    path for folder in FOLDERS for path in (CACHE / "pypi" / folder).rglob("*.tflite") if path.stat().st_size <= LARGEST
)
COUNT = 6
CUSTOM = {"selfie_segmentation", "selfie_segmentation_landscape"}


@pytest.mark.slow
@pytest.mark.skipif(len(FILES) < COUNT, reason="fetch the models first: python -m bench.public prepare tflite")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_public_model_is_given_back_byte_for_byte(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "measure", lambda *given, **named: None)  # takes seconds, and is tested elsewhere
    result = export(path, output=tmp_path / "m.seed", options=Options(method="lossless"))
    assert all(error.identical for error in result.outputs.values())
    seed = seed_runtime.open(tmp_path / "m.seed")
    assert (seed.assemble(tmp_path / "out") / "model.tflite").read_bytes() == path.read_bytes()
    assert seed.file_size < path.stat().st_size
    if path.stem in CUSTOM:
        assert result.outputs == {}
        with pytest.raises(UnsupportedError, match="only its maker's programs have"):
            seed.session()
    else:
        assert len(result.outputs) == len(seed.skeleton().outputs)
        with seed.session() as session:
            assert session.verify().ok
