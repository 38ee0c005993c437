"""Where a network of glyphs is right: parts of the data, and kinds of characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.claims import sides
from tests.support.claims_data import tiny_data


def test_no_data_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sides.main(["x.seed", "--data", str(tmp_path)]) == 3
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_a_checkpoint_is_judged_on_each_part_and_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.claims import teachers

    data, out = tiny_data(tmp_path / "data"), tmp_path / "mobilenetv2"
    command = ["mobilenetv2", "--data", str(data), "--out", str(out), "--steps", "2", "--batch", "8", "--tiny"]
    assert teachers.main(command) == 0
    capsys.readouterr()
    assert sides.main([str(out), "--data", str(data), "--count", "12"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["network", "training", "validation", "held out"]
    for part in list(found)[1:]:
        assert 0 < found[part]["n"] <= 12
        kinds = [value for name, value in found[part].items() if name not in ("n", "accuracy")]
        assert kinds
        assert all(0 <= value <= 1 for value in kinds)
