"""The page of what matters: it is what the records say, its charts can be read, and each topic can be measured."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bench import chart
from bench.matters import page, ratio, records
from bench.matters.records import FOLDER
from seed_exporter import loaders
from tests.exporter.support.exporting import dense

SVG = "{http://www.w3.org/2000/svg}"


def of(name: str, variable: str) -> float:
    """A bar's width or a point's place in a drawing's file."""
    return float(ET.fromstring(name).attrib[variable])


# The page


def test_the_page_and_its_charts_are_what_the_records_say() -> None:
    found = records.load()
    assert FOLDER.with_suffix(".md").read_text() == page.text(found)
    drawn = page.drawings(found)
    assert {path.stem: path.read_text() for path in FOLDER.glob("*.svg")} == drawn


def test_rendering_writes_the_page_and_every_chart_that_it_shows(tmp_path: Path) -> None:
    folder = tmp_path / "what-matters"
    folder.mkdir()
    for path in FOLDER.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    written = page.write(folder)
    text = (tmp_path / "what-matters.md").read_text()
    assert written[0] == tmp_path / "what-matters.md"
    assert {f"what-matters/{path.name}" for path in written[1:]} == {
        part.split(")")[0] for part in text.split("](")[1:] if part.startswith("what-matters/")
    }


def test_a_topic_without_a_record_is_said_to_be_not_measured_yet() -> None:
    found = {name: record for name, record in records.load().items() if name in ("trials", "others")}
    text = page.text(found)
    for name in ("published", "ratio", "times", "transfer"):
        assert f"Not measured yet; `python -m bench.matters --run {name}` measures it." in text
    assert "| noise or straight-through | | noise in place of" in text
    assert "no seed of it is kept" in text


def test_runs_on_other_machines_stand_beside_those_of_the_trials() -> None:
    found = records.load()
    run = {"question": "noise or straight-through", "model": "ResNet-50", "variant": "half", "bytes": 50_000,
           "quality": 0.9}  # fmt: skip
    text = page.text({**found, "training-gpu": {"source": "a GPU", "runs": [run]}})
    assert "| noise or straight-through | ResNet-50 | half | 50,000 | 0.9000 | product |" in text
    assert "The product's runs: a GPU." in text


def test_kept_seeds_stand_above_the_trials_with_their_controls() -> None:
    row = {
        "model": "ResNet-50", "measure": "accuracy", "parameters": 25_000_000, "bytes": 50_000, "ratio": 2000.0,
        "quality": 0.95, "reference": 0.96, "kept": [0.9896, 0.985, 0.994], "assembly_s": 0.5, "seconds": 600.0,
        "steps": 9000, "controls": [{"label": "student", "bytes": 50_000, "kept": [0.99, 0.98, 1.0]}],
    }  # fmt: skip
    text = page.text({**records.load(), "healed": {"rows": [row]}})
    assert "| ResNet-50 | 50,000 | 2,000x | 0.95 | 0.96 | 0.9896 [0.985, 0.994] | 600 s, 9,000 steps |" in text
    assert "| - student | 50,000 | | | | 0.99 [0.98, 1] | |" in text


def test_the_first_paragraph_has_the_figures_of_the_records() -> None:
    found = copy.deepcopy(records.load())
    found["published"]["controls"][1]["after"]["accuracy"] = 0.4321
    assert "random weights in 43.2 %" in page.summary(found)


def test_every_source_of_others_has_a_link() -> None:
    found = json.loads((FOLDER / "others.json").read_text())
    assert all(row["link"].startswith("https://") and row["what"] for row in found["rows"])


# Charts


def test_charts_can_be_read_on_dark_pages_and_name_their_axes() -> None:
    for name, svg in page.drawings(records.load()).items():
        root = ET.fromstring(svg)
        assert "prefers-color-scheme: dark" in svg, name
        texts = [element.text or "" for element in root.iter(f"{SVG}text")]
        assert any(", over " in text for text in texts) or any("%" in text for text in texts[2:]), name


def test_a_logarithmic_axis_gives_equal_ratios_equal_distances() -> None:
    across, up = chart.Axis("size [KB]", logarithmic=True), chart.Axis("accuracy [%]")
    svg = chart.lines("t", {"a": [(1, 0), (10, 50), (100, 100)]}, across, up)
    places = [element.attrib for element in ET.fromstring(svg).iter(f"{SVG}circle")]
    x, y = ([float(place[axis]) for place in places] for axis in ("cx", "cy"))
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert y[0] > y[1] > y[2]
    assert "accuracy [%], over size [KB]; logarithmic across" in svg


def test_a_linear_axis_has_round_values() -> None:
    assert chart.Axis("x").ticks(-3.7, 99.2) == [0, 20, 40, 60, 80]
    assert chart.Axis("x").ticks(0.943, 0.967) == pytest.approx([0.945, 0.95, 0.955, 0.96, 0.965])


def test_points_that_are_not_joined_have_no_line() -> None:
    series = {"a": [(1.0, 2.0), (3.0, 4.0)]}
    axis = chart.Axis("x")
    assert "<polyline" in chart.lines("t", series, axis, axis)
    assert "<polyline" not in chart.lines("t", series, axis, axis, joined=False)


# Measurements


def test_pruning_sets_the_smallest_weights_to_zero_and_makes_the_file_smaller(tmp_path: Path) -> None:
    import onnx

    rng = np.random.default_rng(0)
    data = rng.standard_normal((64, 96)).astype(np.float32)
    graph = loaders.load(dense([data], [np.ones(96, np.float32)]))
    for name in ("whole", "pruned"):
        (tmp_path / name).mkdir()
    whole = ratio._gzipped(graph, tmp_path / "whole")
    pruned = ratio._pruned(graph, 0.8, tmp_path / "pruned")
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(pruned.model).graph.initializer]
    (found,) = (array for array in arrays if array.shape == data.shape)
    assert np.mean(found == 0) == pytest.approx(0.8, abs=0.01)
    assert np.array_equal(found[found != 0], data[found != 0])
    assert np.abs(data[found == 0]).max() <= np.abs(found[found != 0]).min()
    assert pruned.size < 0.5 * whole.size
