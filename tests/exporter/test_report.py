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
from seed_exporter.evaluate.compare import OutputError
from seed_exporter.report import page as pages
from seed_exporter.report import text as texts
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


@pytest.fixture
def result(tmp_path: Path, rng: np.random.Generator) -> Result:
    """Of a model all of whose names are odd."""
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
    return quick_export(model, tmp_path / "odd.seed", model_id=f"m{ODD}")


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
