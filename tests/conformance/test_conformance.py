"""The conformance vectors: both decoders pass, and the files are those that the checked-in program makes."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest

import seed_runtime
from seed_runtime.errors import SeedError
from seed_runtime.format.dtypes import BY_CODE, BY_NAME
from tests.conformance.__main__ import main
from tests.conformance.make import LIST, SEEDS, listing, small_vectors, vectors
from tests.conformance.support.running import FILES, base_of, load, problem, runtime
from tests.conformance.support.vector import NAMES
from tests.golden import plain

RECORDS = load(LIST)
VALID = [record for record in RECORDS if not record["exit_code"]]
MAKE = "make them again: python -m tests.conformance.make"
LARGE = 1 << 19
"""Weights from which the plain decoder takes seconds [B]."""


def name_of(record: dict[str, Any]) -> str:
    return str(record["name"])


def test_the_vectors_are_those_that_the_program_makes() -> None:
    listed = {record["name"]: record for record in RECORDS}
    assert {path.stem for path in SEEDS.iterdir()} == listed.keys()
    for vector in small_vectors():
        assert listed.get(vector.name) == vector.record(), MAKE
        assert (SEEDS / f"{vector.name}.seed").read_bytes() == vector.seed, MAKE
    names = {vector.name for vector in small_vectors()}
    assert listed.keys() - names == {"raw-two-chunks", "split-two-chunks"}, MAKE


@pytest.mark.slow
def test_the_large_vectors_and_the_list_are_those_that_the_program_makes() -> None:
    for vector in vectors():
        assert (SEEDS / f"{vector.name}.seed").read_bytes() == vector.seed, MAKE
    assert LIST.read_text() == listing(vectors()), MAKE


def test_the_vectors_stay_small() -> None:
    assert LIST.stat().st_size + sum(path.stat().st_size for path in SEEDS.iterdir()) < 750_000


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_the_runtime_conforms(record: dict[str, Any], tmp_path: Path) -> None:
    assert problem(record, SEEDS, runtime, tmp_path) is None


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_a_pipe_gives_the_same_exit_code(record: dict[str, Any]) -> None:
    code = 0
    try:
        base = base_of(paths_of_bases(record))
        data = (SEEDS / f"{record['name']}.seed").read_bytes()
        seed_runtime.open(io.BytesIO(data), enforce=False, base=base).check()
    except SeedError as error:
        code = error.exit_code
    assert code == record["exit_code"]


def paths_of_bases(record: dict[str, Any]) -> list[Path]:
    return [SEEDS / f"{name}.seed" for name in record.get("bases", [])]


def plain_digests(record: dict[str, Any]) -> dict[str, str]:
    bases = [path.read_bytes() for path in paths_of_bases(record)]
    found = plain.decode_all((SEEDS / f"{record['name']}.seed").read_bytes(), bases).files()
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


def stated_digests(record: dict[str, Any]) -> dict[str, str]:
    return {name: record[name] for name in FILES if name in record}


@pytest.mark.parametrize("record", [each for each in VALID if each["weights_size"] < LARGE], ids=name_of)
def test_the_plain_decoder_conforms(record: dict[str, Any]) -> None:
    assert plain_digests(record) == stated_digests(record)


@pytest.mark.slow
@pytest.mark.parametrize("record", [each for each in VALID if each["weights_size"] >= LARGE], ids=name_of)
def test_the_plain_decoder_conforms_where_chunks_are_full(record: dict[str, Any]) -> None:
    assert plain_digests(record) == stated_digests(record)


def test_the_stated_holes_are_those_of_the_header() -> None:
    for record in VALID:
        base = base_of(paths_of_bases(record))
        header = seed_runtime.open(SEEDS / f"{record['name']}.seed", enforce=False, base=base).header
        holes = [{"dtype": hole.dtype.name, "dims": list(hole.dims), "offset": hole.offset} for hole in header.holes]
        assert holes == record["holes"]
        assert record["weights_size"] == header.weights.size


def test_each_codec_is_tried_with_each_of_its_types() -> None:
    floats = {"float32", "float16", "bfloat16", "float64"}
    types = {
        "raw": set(NAMES.values()),
        "grid": floats,
        "split": {"float32", "float16", "bfloat16", "int8", "uint8", "int4", "uint4"},
        "moments": floats,
        "lowrank": floats,
        "delta-difference": floats,
        "delta-anew": floats,
        "delta-octaves": floats - {"float64"},
        "delta": {name for code, name in NAMES.items() if BY_CODE[code].bits <= 32},
    }
    assert set(NAMES.values()) == set(BY_NAME)
    names = {record["name"] for record in VALID}
    assert {f"{codec}-{dtype}" for codec, found in types.items() for dtype in found} <= names


# The command


def test_the_command_prints_passed_and_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid-", "bad-file-"]) == 0
    count = sum(name_of(record).startswith(("grid-", "bad-file-")) for record in RECORDS)
    assert capsys.readouterr().out == f"{count} passed, 0 failed\n"


def test_a_decoder_can_be_any_command(capsys: pytest.CaptureFixture[str]) -> None:
    decoder = f"{sys.executable} -m tests.golden.plain"
    assert main(["--decoder", decoder, "--valid", "--verbose", "grid-dead-both", "delta-chain-2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 0 failed"
    run = f"{sys.executable} -m seed_runtime.cli {{seed}} --assemble {{folder}}"
    assert main(["--decoder", run, "grid-dead-both", "order-digest-version"]) == 0
    assert capsys.readouterr().out == "2 passed, 0 failed\n"


def test_a_decoder_that_is_wrong_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    makes_nothing = f"{sys.executable} -c pass"
    assert main(["--decoder", makes_nothing, "grid-ties", "bad-file-empty"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  grid-ties: it made no model.onnx" in out
    assert "FAILED  bad-file-empty: exit code 0 instead of 10; it tests: an empty file" in out
    assert out.endswith("0 passed, 2 failed\n")
    leaves = tmp_path / "leaves.py"
    leaves.write_text("import os, sys\nos.mkdir(sys.argv[2])\nopen(sys.argv[2] + '/model.weights', 'w')\nsys.exit(10)")
    assert main(["--decoder", f"{sys.executable} {leaves}", "bad-file-empty"]) == 1
    assert "it left model.weights" in capsys.readouterr().out
    assert main(["no-such-name"]) == 1
