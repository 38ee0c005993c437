"""The summary in the terminal, and the page that needs nothing but itself."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter import Result
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.evaluate.compare import OutputError
from seed_exporter.quantize.trail import Point as Tried
from seed_exporter.report import gains
from seed_exporter.report import page as pages
from seed_exporter.report import text as texts
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from tests.exporter.support.exporting import of_nodes, quick_export

ODD = "<script>alert('1')</script>&amp;\"{0}{title}%s"


class Page(HTMLParser):
    """Collects tags, attributes and text; void and optional end tags are HTML's business."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Of a model all of whose names are odd."""
    rng = np.random.default_rng(8)
    model = of_nodes(
        [
            helper.make_node("MatMul", ["x", f"w{ODD}"], ["h"]),
            helper.make_node("Add", ["h", f"b{ODD}"], [f"y{ODD}"]),
            helper.make_node("Gather", [f"i{ODD}", "zero"], ["n"]),
        ],
        [
            numpy_helper.from_array(rng.standard_normal((40, 50)).astype(np.float32), f"w{ODD}"),
            numpy_helper.from_array(rng.standard_normal(50).astype(np.float32), f"b{ODD}"),
            numpy_helper.from_array(np.arange(40), f"i{ODD}"),
            numpy_helper.from_array(np.array(3), "zero"),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 40])],
        [
            helper.make_tensor_value_info(f"y{ODD}", TensorProto.FLOAT, ["batch", 50]),
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
        ],
    )
    return quick_export(model, tmp_path_factory.mktemp("odd") / "odd.seed", model_id=f"m{ODD}", effort=4)


def test_the_page_names_nothing_outside_itself(result: Result, tmp_path: Path) -> None:
    pages.write(tmp_path / "report.html", result)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|url\(|@import|\bsrc=|\bhref=", text)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_odd_names_stand_in_the_page_as_they_are(result: Result, tmp_path: Path) -> None:
    pages.write(tmp_path / "report.html", result)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for name in (f"w{ODD}", f"b{ODD}", f"i{ODD}", f"y{ODD}", f"m{ODD}, version 1"):
        assert name in page.text


def test_the_page_says_where_the_bytes_went(result: Result, tmp_path: Path) -> None:
    pages.write(tmp_path / "report.html", result)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for part in ("original", "seed", "grid (2)", "graph", "header", "40x50", "float32"):
        assert part in page.text
    assert texts.size(result.bytes) in page.text


def test_weights_stand_by_their_bytes_with_bits_and_the_damage_of_each(result: Result, tmp_path: Path) -> None:
    sizes = {f"w{ODD}": 1000.0, f"b{ODD}": 100.0, f"i{ODD}": 2000.0}
    probed = replace(result, weight_bytes=sizes, weight_damages={f"w{ODD}": 0.004, f"b{ODD}": 0.001})
    pages.write(tmp_path / "report.html", probed)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    places = [page.text.index(name, page.text.index("weight")) for name in (f"i{ODD}", f"w{ODD}", f"b{ODD}")]
    assert places == sorted(places)
    assert "4.00" in page.text[places[1] : places[2]]  # bits of each of 40 x 50 weights
    assert "0.004" in page.text[places[1] : places[2]]
    assert text.count("class=damage") == 2
    assert 'class=damage style="width:25.00%"' in text
    assert "0.004" not in Page(_written(result, tmp_path)).text


def _written(result: Result, folder: Path) -> str:
    pages.write(folder / "report.html", result)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_frontier_marks_the_seed_among_those_that_were_tried(result: Result, tmp_path: Path) -> None:
    points = (Tried(2000, 0.01), Tried(4000, 0.001))
    drawn = _written(replace(result, points=points, damage=0.002, metric="kl", line="0.99 of <all>"), tmp_path)
    page = Page(drawn)
    assert page.tags.count("svg") == 1
    assert page.tags.count("circle") == 4  # those tried, the seed, and the ring around it
    assert "damage by kl" in drawn
    assert "0.99 of <all>" in page.text
    assert "http" not in drawn
    assert "svg" not in Page(_written(replace(result, damage=float("nan")), tmp_path)).tags


def test_weights_on_a_trellis_of_which_nothing_was_measured_are_not_called_calibrated(result: Result) -> None:
    name = f"w{ODD}"
    plan = GridPlan.of(QuantizedMatrix(np.zeros((40, 50), np.int32), 0.1, delay=1))
    real = replace(result, inputs="real", plans={**result.plans, name: plan})
    assert gains.texts(real)[0].startswith("No weight was rounded by the calibration")
    measured = gains.texts(replace(real, calibrated=frozenset({name})))[0]
    assert measured.startswith(f"1 of {len(result.plans)} weights, with ")
    assert measured.endswith("the others each for itself.")


def test_the_page_says_what_more_could_gain_by_what_was_measured(result: Result, tmp_path: Path) -> None:
    assert "No real inputs were given" in gains.texts(result)[0]
    damages = {f"w{ODD}": 0.004, f"b{ODD}": 0.001}
    sizes = {f"w{ODD}": result.bytes / 2, f"b{ODD}": 100.0}
    real = replace(result, inputs="real", weight_damages=damages, weight_bytes=sizes, timed_out=True, effort=1)
    texts_of_it = gains.texts(real)
    assert "1 of 2 probed weights do half of the damage that weights do alone, with 50.0 %" in texts_of_it[3]
    assert f"w{ODD}" in texts_of_it[3]
    for start in ("No weight was rounded by the calibration", "The time limit ended", "The effort was 1; --effort 2"):
        assert any(text.startswith(start) for text in texts_of_it), start
    assert texts_of_it[-1].startswith("Graph and header take ")
    assert all(text in " ".join(Page(_written(real, tmp_path)).text) for text in texts_of_it)
    highest = gains.texts(replace(real, effort=9, timed_out=False))
    assert not any("effort was" in text or "time limit" in text for text in highest)


def test_the_summary_has_size_ratio_bits_and_an_error_per_output(result: Result) -> None:
    text = texts.summary(result)
    assert f"{result.ratio:.2f}x smaller" in text
    assert "bits per weight" in text
    assert f"y{ODD}: error" in text
    assert "n: identical" in text
    assert "on generated inputs" in text
    assert text.endswith(f"seed-run {result.path} --verify")


def test_a_seed_that_is_larger_than_its_model_is_called_larger(result: Result) -> None:
    assert texts.ratio_text(replace(result, ratio=0.8)).startswith("1.25x larger, ")


def test_indices_that_moved_are_no_reason_to_call_a_seed_useless(result: Result, tmp_path: Path) -> None:
    good, moved = OutputError(0.02, 0.1, 0.99, None, False), OutputError(np.inf, np.inf, 0.0, 0.0, False)
    near = replace(result, outputs={f"y{ODD}": good, "n": moved})
    assert texts.beyond_use(near) == ""
    assert "n: its shape, or where it is infinite or NaN, differs" in texts.summary(near)
    pages.write(tmp_path / "report.html", near)
    assert "its shape, or where it is infinite" in (tmp_path / "report.html").read_text()
    assert "(n: another shape, infinity or NaN)" in texts.beyond_use(replace(result, outputs={"n": moved}))
    assert f"(y{ODD}: another shape" in texts.beyond_use(replace(near, outputs={f"y{ODD}": moved, "n": good}))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 KB"), (1_234_567, "1.23 MB"), (5e9, "5.00 GB")],
)
def test_sizes_are_in_powers_of_a_thousand(count: float, text: str) -> None:
    assert texts.size(count) == text


def test_the_page_says_how_each_codec_keeps_a_weight(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = {"published": rng.standard_normal((64, 64)), "bias": rng.standard_normal(300)}
    nodes = [helper.make_node("MatMul", ["x", "published"], ["y"]), helper.make_node("Shape", ["bias"], ["n"])]
    model = of_nodes(
        nodes,
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64]),
            helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
        ],
    )
    result = quick_export(model, tmp_path / "model.seed", method="moments", target=4.0)
    pages.write(tmp_path / "report.html", result)
    text = " ".join(Page((tmp_path / "report.html").read_text(encoding="utf-8")).text)
    assert "components, the rest redrawn" in text
    assert "10 mantissa bits" in text
