"""Recipes as users follow them: wheels from the package index, and lines of text that are found and read."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.exporter.support.command import COMMAND
from tests.support.seed_run import result, seed_run

pytestmark = [pytest.mark.slow, pytest.mark.network]

LINE = "The quick brown fox"
PAGE = ("Small seeds grow", "A network in kilobytes", "over a slow radio link")


def picture(path: Path) -> Path:
    """Draw a line of text in Pillow's own font."""
    draw = pytest.importorskip("PIL.ImageDraw")
    from PIL import Image, ImageFont

    image = Image.new("RGB", (310, 48), "white")
    draw.Draw(image).text((8, 6), LINE, fill="black", font=ImageFont.load_default(28))
    image.save(path)
    return path


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes the seed of a recipe."""
    pip = [sys.executable, "-m", "pip", "--version"]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("this environment has no pip")

    def make(name: str) -> Path:
        seed = tmp_path / f"{name}.seed"
        # Bit by bit, which searches nothing: what is tested is the way, not the quality.
        command = [*COMMAND, f"zoo:{name}", "-o", str(seed), "--method", "lossless", "--json", "-q"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return seed

    return make


def test_a_line_is_read_by_the_seed_of_a_recipe(made: Callable[[str], Path], tmp_path: Path) -> None:
    answer = asked(made("ppocr-recognition"), picture(tmp_path / "line.png"))
    assert (answer["kind"], answer["text"].strip()) == ("ctc", LINE)
    assert answer["score"] > 0.9


def test_the_lines_of_a_page_are_found(made: Callable[[str], Path], tmp_path: Path) -> None:
    draw = pytest.importorskip("PIL.ImageDraw")
    from PIL import Image, ImageFont

    page, font, boxes = Image.new("RGB", (640, 480), "white"), ImageFont.load_default(30), []
    for row, line in enumerate(PAGE):
        place = (40 + 60 * row, 60 + 130 * row)
        draw.Draw(page).text(place, line, fill="black", font=font)
        boxes.append(draw.Draw(page).textbbox(place, line, font=font))
    page.save(tmp_path / "page.png")
    # Larger than any size at which memory is usually measured: the recipe's processing says how large pages are.
    answer = asked(made("ppocr-detection"), tmp_path / "page.png", "--max-memory", "500MB")
    assert answer["kind"] == "regions"
    assert len(answer["regions"]) == len(boxes)
    for region, box in zip(answer["regions"], boxes, strict=True):
        corners = region["corners"]
        found = (*corners[0], *corners[2])
        assert max(abs(one - other) for one, other in zip(found, box, strict=True)) < 12
        assert region["score"] > 0.6


def test_the_notes_of_a_melody_are_found(made: Callable[[str], Path], tmp_path: Path) -> None:
    rate, played = 44_100, [(0.3, 0.8, 60), (0.9, 1.4, 64), (1.5, 2.0, 67), (2.1, 3.0, 57), (2.1, 3.0, 64)]
    samples = np.zeros(int(3.4 * rate))
    for start, end, pitch in played:
        time = np.arange(round((end - start) * rate)) / rate
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(np.sin(2 * np.pi * frequency * order * time) / order**1.3 for order in range(1, 7))
        envelope = np.exp(-1.5 * time) * np.minimum(1, time / 0.005) * np.minimum(1, (time[-1] - time) / 0.02)
        samples[round(start * rate) :][: len(time)] += 0.25 * tone * envelope
    with wave.open(str(tmp_path / "melody.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    answer = asked(made("basic-pitch"), tmp_path / "melody.wav")
    assert answer["kind"] == "notes"
    # Octaves that the model hears in harmonics are faint.
    loud = [note for note in answer["notes"] if note["amplitude"] > 0.5]
    assert [note["pitch"] for note in loud] == [pitch for _, _, pitch in played]
    for note, (start, end, _) in zip(loud, played, strict=True):
        assert abs(note["start"] - start) < 0.05
        assert abs(note["end"] - end) < 0.1


def test_a_face_is_found_by_a_tflite_model(made: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    seed, path = made("face-detection"), drawn_face(tmp_path / "face.png")
    answer = asked(seed, path)
    assert answer["kind"] == "boxes"
    (face,) = answer["boxes"]
    assert face["label"] == "face"
    assert face["score"] > 0.7
    left, top, right, bottom = face["box"]
    assert 100 < left < 180 < 300 < right < 380
    assert 100 < top < 210 < 320 < bottom < 400
    inspected = seed_run(seed, "--inspect", "--json").stdout
    assert json.loads(inspected)["processing"]["description"]["about"]["license"] == "Apache-2.0"


def drawn_face(path: Path) -> Path:
    """Draw a face, of which photos would have to be downloaded."""
    draw = pytest.importorskip("PIL.ImageDraw")
    from PIL import Image, ImageFilter

    image = Image.new("RGB", (480, 480), (120, 150, 180))
    pen, skin, hair = draw.Draw(image), (222, 178, 148), (70, 45, 30)
    pen.rectangle((190, 330, 290, 480), fill=(200, 155, 128))
    pen.ellipse((80, 420, 400, 620), fill=(60, 70, 110))
    pen.ellipse((130, 70, 350, 290), fill=hair)
    pen.ellipse((150, 100, 330, 370), fill=skin)
    for x in (200, 280):
        pen.ellipse((x - 20, 205, x + 20, 229), fill=(250, 250, 250))
        pen.ellipse((x - 10, 206, x + 10, 228), fill=(60, 40, 30))
        pen.arc((x - 26, 180, x + 26, 215), 200, 340, fill=hair, width=7)
    pen.polygon([(240, 225), (226, 275), (254, 275)], fill=(200, 150, 125))
    pen.ellipse((205, 300, 275, 326), fill=(170, 70, 75))
    pen.line((207, 313, 273, 313), fill=(110, 40, 45), width=3)
    image.filter(ImageFilter.GaussianBlur(2)).save(path)
    return path


def asked(seed: Path, item: Path, *options: str) -> Any:
    """Return what the only step behind the model says."""
    return result(seed, item, *options, process=True)["answers"][0]["outputs"][0]
