"""Recipes as users follow them: wheels from the package index, and a line of text that is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exporter.support.command import COMMAND
from tests.support.seed_run import result

pytestmark = [pytest.mark.slow, pytest.mark.network]

LINE = "The quick brown fox"


def picture(path: Path) -> Path:
    """Draw a line of text in Pillow's own font."""
    draw = pytest.importorskip("PIL.ImageDraw")
    from PIL import Image, ImageFont

    image = Image.new("RGB", (310, 48), "white")
    draw.Draw(image).text((8, 6), LINE, fill="black", font=ImageFont.load_default(28))
    image.save(path)
    return path


def test_a_line_is_read_by_the_seed_of_a_recipe(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--version"]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("this environment has no pip")
    seed = tmp_path / "ocr.seed"
    # Bit by bit, which searches nothing: what is tested is the way, not the quality.
    command = [*COMMAND, "zoo:ppocr-recognition", "-o", str(seed), "--method", "lossless", "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] > 2e6
    answer = result(seed, picture(tmp_path / "line.png"))["answers"][0]["outputs"][0]
    assert (answer["kind"], answer["text"].strip()) == ("ctc", LINE)
    assert answer["score"] > 0.9
