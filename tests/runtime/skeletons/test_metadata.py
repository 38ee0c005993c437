"""Metadata: what a seed carries for programs, and what it must not."""

from __future__ import annotations

import pytest

from seed_runtime.limits import METADATA_ENTRIES_MAX, METADATA_MAX
from seed_runtime.skeletons import metadata, onnx
from tests.support.onnx_bytes import model, put

NAMES = "{0: 'cat',\n 1: 'dog',\n 2: '\u732b\u202e'}"


def test_pairs_come_out_as_they_are_with_line_breaks_and_in_order() -> None:
    pairs = {"names": NAMES, "stride": "32", "empty": "", "onnx.infer": "onnxruntime.quant"}
    extra = b"".join(put(14, put(1, key) + put(2, value)) for key, value in pairs.items())
    assert list(onnx.scan(model(extra=extra)).metadata.items()) == list(pairs.items())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", "['a/b', '/c']"),
        ("character", "/\n\\\n~"),
        ("url", "https://example.org/model"),
        ("epochs", "3"),
        ("Report", "x"),
        ("profile", "x"),
        ("token", "/"),
        ("slash", "/ "),
        ("direction", "up"),
        ("license", "AGPL-3.0 License (https://example.org/license)"),
    ],
)
def test_what_programs_read_is_carried(key: str, value: str) -> None:
    assert metadata.problem_of(key, value) is None


@pytest.mark.parametrize(
    "key", ["ort_config", "ORT_CONFIG", "ort.x", "ortConfig", "onnxruntime", "ep.context", "tuning_results"]
)
def test_what_onnx_runtime_reads_itself_is_not(key: str) -> None:
    assert metadata.problem_of(key, "x") == "ONNX Runtime reads options from it"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels_path", "x"),
        ("labelsPath", "x"),
        ("LABELS-FILE", "x"),
        ("model.location", "x"),
        ("data", "/srv/data.yaml"),
        ("data", "~/data.yaml"),
        ("data", "../data.yaml"),
        ("data", "C:\\data.yaml"),
        ("data", "\\\\server\\data"),
        ("data", "FILE:///data"),
        ("data", "/\u00a0data"),
    ],
)
def test_what_names_a_file_is_not(key: str, value: str) -> None:
    assert metadata.problem_of(key, value) == "it names a file"


def test_of_two_pairs_with_one_key_the_last_counts() -> None:
    assert metadata.select([("k", "1"), ("l", "2"), ("k", "3")]) == ({"k": "3", "l": "2"}, {})


def test_what_is_left_out_says_why_and_leaves_room_for_the_rest() -> None:
    kept, dropped = metadata.select([("big", "x" * METADATA_MAX), ("ort_config", "{}"), ("small", "x")])
    assert kept == {"small": "x"}
    assert list(dropped) == ["big", "ort_config"]
    many = [(str(number), "") for number in range(METADATA_ENTRIES_MAX + 2)]
    kept, dropped = metadata.select(many)
    assert (len(kept), list(dropped)) == (METADATA_ENTRIES_MAX, ["256", "257"])
