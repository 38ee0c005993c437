"""SPEC.md against the code: its example, its limits, and a decoder that was written from it alone."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_runtime import codecs, generator, limits
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.format import dtypes, header, packing, parts
from seed_runtime.skeletons import ALIGNMENT, metadata
from seed_runtime.skeletons import onnx as onnx_skeleton
from seed_runtime.skeletons import onnx_schema as schema
from tests.golden import plain
from tests.support import spec_fields
from tests.support.seed_builder import ALL, build_seed, decoded_weights

EXAMPLE = Path(__file__).with_name("example.seed")


def laid_out(tensors: dict[str, list[float]]) -> bytes:
    out = b""
    for values in tensors.values():
        out += bytes(-len(out) % 64) + struct.pack(f"<{len(values)}f", *values)
    return out


def test_the_example_of_the_specification_is_the_golden_file() -> None:
    data, _ = spec_fields.example()
    assert data == EXAMPLE.read_bytes()


def test_the_runtime_decodes_the_example_to_the_weights_stated_there(tmp_path: Path) -> None:
    data, tensors = spec_fields.example()
    (tmp_path / "example.seed").write_bytes(data)
    folder = seed_runtime.open(tmp_path / "example.seed").assemble(tmp_path / "model")
    assert (folder / "model.weights").read_bytes() == laid_out(tensors)


def test_a_decoder_written_from_the_specification_alone_decodes_the_example() -> None:
    data, tensors = spec_fields.example()
    skeleton, weights = plain.decode(data)
    assert weights == laid_out(tensors)
    assert b"model.weights" in skeleton


def test_the_example_runs_and_passes_its_golden_sample(tmp_path: Path) -> None:
    x = np.ones((2, 3, 4), np.float32)
    _, tensors = spec_fields.example()
    with seed_runtime.open(EXAMPLE).session(cache=ModelCache(tmp_path, 1 << 30)) as session:
        verdict = session.verify()
        outputs = session.run({"x": x})
    assert (verdict.present, verdict.ok) == (True, True)
    grid = np.array(tensors["grid"], np.float32).reshape(3, 4)
    assert np.array_equal(outputs["y"], x + grid + np.array(tensors["raw"], np.float32))


def test_the_example_is_what_the_seed_builder_writes() -> None:
    assert build_seed(streams=("raw", "grid")) == EXAMPLE.read_bytes()


@pytest.mark.parametrize("name", ALL)
def test_both_decoders_agree_on_each_codec(name: str, tmp_path: Path) -> None:
    (tmp_path / "one.seed").write_bytes(build_seed(streams=[name]))
    skeleton, weights = plain.decode((tmp_path / "one.seed").read_bytes())
    folder = seed_runtime.open(tmp_path / "one.seed").assemble(tmp_path / "model")
    assert (folder / "model.weights").read_bytes() == weights == decoded_weights([name])
    assert (folder / "model.onnx").read_bytes() == skeleton


def test_the_limits_of_the_specification_are_those_of_the_code() -> None:
    assert spec_fields.limits() == {name: value for name, value in vars(limits).items() if name.isupper()}


def test_the_numbers_of_the_specification_are_those_of_the_code() -> None:
    text = spec_fields.PATH.read_text()

    def rows(pattern: str) -> dict[int, str]:
        return dict(_rows(text, pattern))

    assert rows(r"\| (\d+) \| (raw|grid|split|moments|lowrank|delta|adaptive|integers(?= \| int8)) \|") == {
        codec.number: codec.name for codec in codecs.CODECS.values()
    }
    sections = {number: section.name for number, section in header.SECTIONS.items()}
    assert rows(r"\| (0x[0-9a-fA-F]{4}) \| ([A-Z]+) \|") == sections
    assert rows(r"\| (0x[0-9a-fA-F]{4}) \| (ONNX skeleton|TFLite skeleton|training graph|processing) \|") == {
        number: kind.title for number, kind in parts.KINDS.items()
    }
    kinds = rows(r"\| (\d+) \| (zeros|uniform|normal|integers(?= \| a)) \|")
    assert kinds == generator.KINDS
    names = "|".join(dtypes.BY_NAME)
    assert rows(rf"\| (\d+) \| ({names}) \|(?= \d+ \|)") == {
        dtype.code: dtype.name for dtype in dtypes.BY_CODE.values()
    }
    assert rows(r"\| (\d+) \| (stored|deflate|LZMA) \|") == {
        packing.STORED: "stored",
        packing.DEFLATE: "deflate",
        packing.LZMA: "LZMA",
    }


def test_the_rules_for_skeletons_name_what_the_code_refuses() -> None:
    text = " ".join(spec_fields.rule_text("skeleton").split())
    for name in (*schema.OPERATORS_REFUSED, *schema.ATTRIBUTES_REFUSED, onnx_skeleton.WEIGHTS_FILE):
        assert name in text
    assert all(f'"{domain}"' in text for domain in schema.DOMAINS)
    assert f"multiple of {ALIGNMENT}" in text
    assert f"deeper than {schema.DEPTH_MAX}" in text
    assert f"{schema.VALUES_MAX} inputs, {schema.VALUES_MAX} outputs" in text
    assert f"{schema.OPSETS_MAX} opsets" in text
    assert schema.FIELDS_MAX == 1 << 21
    assert "2^21 fields" in text
    assert f"at most {schema.TEXT_MAX} bytes" in text
    section = spec_fields.PATH.read_text()
    for word in (*metadata._RUNTIME_WORDS, *metadata._RUNTIME_KEYS, *metadata._FILE_WORDS):
        assert f"`{word}`" in section


def _rows(text: str, pattern: str) -> list[tuple[int, Any]]:
    return [(int(number, 0), name) for number, name in re.findall(pattern, text)]
