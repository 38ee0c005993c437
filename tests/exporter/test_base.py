"""`seed-export --base`: a version against the one before, tensor by tensor, at the quality that it has alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import seed_exporter
import seed_runtime
from seed_exporter.build.streams import CodedStream, StreamEncoder
from seed_exporter.codecs.delta import DeltaPlan
from seed_exporter.results import Options, Result
from seed_runtime.codecs.delta import ANEW, BITS, BY_OCTAVE, DIFFERENCE, UNCHANGED
from seed_runtime.delta import write_delta
from seed_runtime.errors import WrongBaseError
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.seed import Seed
from tests.exporter.support.command import Ran, refused
from tests.exporter.support.exporting import dense, layers

pytestmark = pytest.mark.usefixtures("without_measured_memory")

SIZES = (32, 64, 48, 24)


def parts(rng: np.random.Generator, sizes: Sequence[int] = SIZES) -> tuple[list[Any], list[Any]]:
    """Return matrices and biases whose rows differ in scale."""
    matrices = [rng.standard_normal((a, b)) * np.exp(rng.normal(0, 0.5, (a, 1))) / a**0.5 for a, b in pairwise(sizes)]
    return matrices, [rng.normal(0, 0.1, size) for size in sizes[1:]]


def tuned(values: Sequence[Any], rng: np.random.Generator, share: float = 0.01) -> list[Any]:
    """Return what a fine-tune elsewhere made of all but the first tensor."""
    return [v + share * np.abs(v).mean() * rng.standard_normal(v.shape) if i else v for i, v in enumerate(values)]


@pytest.fixture
def versions(rng: np.random.Generator, tmp_path: Path) -> tuple[Path, Path]:
    """Two versions of a model."""
    matrices, biases = parts(rng)
    onnx.save(dense(matrices, biases), tmp_path / "v1.onnx")
    onnx.save(dense(tuned(matrices, rng), tuned(biases, rng)), tmp_path / "v2.onnx")
    return tmp_path / "v1.onnx", tmp_path / "v2.onnx"


def export(model: Path, output: str, base: Sequence[Path] = (), **options: Any) -> Result:
    chosen = {"effort": 1, "jobs": 1} | options
    return seed_exporter.export(model, output=model.with_name(output), options=Options(base=base, **chosen))


def chain(*paths: Path) -> Seed:
    seed = None
    for path in paths:
        seed = seed_runtime.open(path, base=seed)
    assert seed is not None
    return seed


def modes(result: Result) -> dict[str, int]:
    return {name: plan.change.mode for name, plan in result.plans.items() if isinstance(plan, DeltaPlan)}


def weights(seed: Seed) -> list[bytes]:
    with seed.assembled_weights() as found:
        return [found.read(number, 0, hole.count).tobytes() for number, hole in enumerate(seed.header.holes)]


def test_a_version_has_the_model_id_of_its_base_unless_another_is_given(versions: tuple[Path, Path]) -> None:
    first, second = versions
    one = export(first, "1.seed", method="lossless", model_id="bell").path
    made = export(second, "2.seed", [one], method="lossless")
    assert chain(one, made.path).header.model.model_id == "bell"
    assert "the model id is bell, that of the base; --model-id gives another one" in made.notes
    made = export(second, "3.seed", [one], method="lossless", model_id="horn")
    assert chain(one, made.path).header.model.model_id == "horn"


@pytest.mark.parametrize("effort", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_version_that_was_tuned_takes_a_quarter_of_its_own_seed_at_its_own_quality(
    versions: tuple[Path, Path], effort: int
) -> None:
    base = export(versions[0], "v1.seed", effort=effort)
    own = export(versions[1], "own.seed", effort=effort)
    update = export(versions[1], "v2.seed", [base.path], effort=effort)
    assert update.bytes == update.path.stat().st_size < own.bytes / 4
    assert update.damage < 1.2 * own.damage
    assert set(modes(update).values()) <= {UNCHANGED, DIFFERENCE}
    seed = chain(base.path, update.path)
    seed.check()
    assert seed.shares_parts
    assert seed.golden is not None
    assert any(note.endswith("0 are anew") for note in update.notes)
    with seed.session() as session:
        assert session.verify().ok
    with pytest.raises(WrongBaseError):
        chain(own.path, update.path)


def test_a_version_that_did_not_change_is_some_hundred_bytes(versions: tuple[Path, Path]) -> None:
    base = export(versions[0], "v1.seed")
    update = export(versions[0], "v2.seed", [base.path], model_version=2)
    assert set(modes(update).values()) == {UNCHANGED}
    assert update.bytes < 700  # a golden sample, and nothing of the weights
    assert weights(chain(base.path, update.path)) == weights(chain(base.path))


def test_lossless_keeps_every_bit(versions: tuple[Path, Path]) -> None:
    base = export(versions[0], "v1.seed", method="lossless")
    own = export(versions[1], "own.seed", method="lossless")
    update = export(versions[1], "v2.seed", [base.path], method="lossless")
    assert update.bytes < 0.7 * own.bytes
    assert {UNCHANGED} < set(modes(update).values()) <= {UNCHANGED, BITS, BY_OCTAVE}
    assert update.damage == 0
    seed = chain(base.path, update.path)
    source = {each.name: numpy_helper.to_array(each) for each in onnx.load(versions[1]).graph.initializer}
    assert sorted(weights(seed)) == sorted(array.tobytes() for array in source.values())


def test_lossless_works_on_a_base_that_is_not(versions: tuple[Path, Path]) -> None:
    base = export(versions[0], "v1.seed")
    update = export(versions[0], "v2.seed", [base.path], method="lossless")
    source = {each.name: numpy_helper.to_array(each) for each in onnx.load(versions[0]).graph.initializer}
    assert sorted(weights(chain(base.path, update.path))) == sorted(array.tobytes() for array in source.values())


@pytest.mark.slow
def test_a_size_is_used_for_less_damage(versions: tuple[Path, Path]) -> None:
    base = export(versions[0], "v1.seed", size=4500)
    own = export(versions[1], "own.seed", size=4500)
    update = export(versions[1], "v2.seed", [base.path], size=4500)
    assert update.bytes <= 4500
    assert update.damage < own.damage / 4


@pytest.mark.slow
def test_another_graph_has_its_own_parts_and_finds_tensors_by_name(rng: np.random.Generator, tmp_path: Path) -> None:
    matrices, biases = parts(rng)
    onnx.save(dense(matrices, biases), tmp_path / "v1.onnx")
    wider = [*tuned(matrices, rng), rng.standard_normal((24, 30))]
    onnx.save(dense(wider, [*tuned(biases, rng), np.zeros(30)]), tmp_path / "v2.onnx")
    base = export(tmp_path / "v1.onnx", "v1.seed")
    own, update = export(tmp_path / "v2.onnx", "own.seed"), export(tmp_path / "v2.onnx", "v2.seed", [base.path])
    assert modes(update)["w3"] == ANEW
    assert modes(update)["w1"] == DIFFERENCE
    assert update.bytes < 0.6 * own.bytes
    seed = chain(base.path, update.path)
    assert not seed.shares_parts
    seed.check()
    with seed.session() as session:
        assert session.verify().ok


@pytest.mark.slow
def test_a_base_of_no_use_is_left_out(rng: np.random.Generator, tmp_path: Path) -> None:
    for name, sizes in (("v1", (16, 24, 8)), ("v2", (20, 30, 10))):
        onnx.save(layers(rng, *sizes), tmp_path / f"{name}.onnx")
    base = export(tmp_path / "v1.onnx", "v1.seed")
    other = export(tmp_path / "v2.onnx", "v2.seed", [base.path])
    assert other.seed.base is None
    assert other.as_json()["base"] is None
    assert any("the seed is whole and has no base" in note for note in other.notes)
    own = export(tmp_path / "v2.onnx", "own.seed", model_id="v1")  # that of its base, as it has no other one
    assert other.path.read_bytes() == own.path.read_bytes()


@pytest.mark.slow
def test_a_version_may_be_on_top_of_what_a_device_has_learned(versions: tuple[Path, Path]) -> None:
    base = export(versions[0], "v1.seed")
    seed = chain(base.path)
    vector = next(number for number, hole in enumerate(seed.header.holes) if len(hole.dims) == 1)
    with seed.assembled_weights() as found:
        bias = found.read(vector, 0, seed.header.holes[vector].count) + np.float32(0.1)
    write_delta(seed, {vector: bias}, base.path.with_name("tuned.seed"), mode="small")
    links = [base.path, base.path.with_name("tuned.seed")]
    update = export(versions[1], "v2.seed", links)
    assert update.seed.header.base is not None
    assert update.seed.header.base.depth == 2
    chain(*links, update.path).check()


@pytest.mark.slow
@pytest.mark.usefixtures("threads_for_small_models")
def test_the_same_version_has_the_same_bytes_with_any_number_of_threads(versions: tuple[Path, Path]) -> None:
    base = export(versions[0], "v1.seed")
    digests = {export(versions[1], f"v2-{jobs}.seed", [base.path], jobs=jobs).digest for jobs in (1, 3)}
    assert len(digests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_floats_of_other_widths_differ_as_well(dtype: str, rng: np.random.Generator, tmp_path: Path) -> None:
    matrices, biases = parts(rng)
    kind = np.dtype(dtype)
    onnx.save(dense(matrices, biases, kind), tmp_path / "v1.onnx")
    onnx.save(dense(tuned(matrices, rng), tuned(biases, rng), kind), tmp_path / "v2.onnx")
    for method in ("grid", "lossless"):
        base = export(tmp_path / "v1.onnx", f"v1-{method}.seed", method=method)
        own = export(tmp_path / "v2.onnx", f"own-{method}.seed", method=method)
        update = export(tmp_path / "v2.onnx", f"v2-{method}.seed", [base.path], method=method)
        assert update.bytes <= own.bytes
        chain(base.path, update.path).check()


def with_tables(tables: dict[str, np.ndarray], path: Path) -> Path:
    """Save a small model that gives tables out as they are."""
    model = layers(np.random.default_rng(1), 16, 24, 8)
    for name, table in tables.items():
        code = helper.np_dtype_to_tensor_dtype(table.dtype)
        model.graph.initializer.append(numpy_helper.from_array(table, name))
        model.graph.node.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        model.graph.output.append(helper.make_tensor_value_info(f"{name}_out", code, table.shape))
    onnx.save(model, path)
    return path


def test_tables_of_integers_that_stay_cost_nothing(rng: np.random.Generator, tmp_path: Path) -> None:
    table = rng.integers(0, 1 << 40, 400)
    v1, v2 = (with_tables({"table": table}, tmp_path / f"{name}.onnx") for name in ("v1", "v2"))
    base = export(v1, "v1.seed")
    update = export(v2, "v2.seed", [base.path])
    assert modes(update)["table"] == UNCHANGED
    assert update.bytes < export(v2, "own.seed").bytes - 1500


TABLES: dict[str, tuple[np.ndarray, Any]] = {
    "int64": (np.arange(400), 1 << 40),
    "int8": (np.arange(400, dtype=np.int16).astype(np.int8), 99),
    "bool": (np.zeros(400, bool), True),
    "negative_zero": (-np.zeros(400, np.float32), 0.0),
    "infinity": (np.append(np.linspace(0, 1, 399, dtype=np.float32), -np.float32(np.inf)), 0.5),
    "infinity16": (np.append(np.linspace(0, 1, 399, dtype=np.float16), -np.float16(np.inf)), 0.5),
    "float64": (np.ones(400), 1 + 1e-12),
}
"""Tables, and what takes the place of the element 7 in the next version."""


@pytest.mark.parametrize("method", ["lossless", "grid"])
def test_the_least_change_of_a_table_is_kept(method: str, tmp_path: Path) -> None:
    tables = {name: table for name, (table, _) in TABLES.items() if method == "lossless" or table.dtype.kind in "bi"}
    changed = {
        name: np.where(np.arange(400) == 7, table.dtype.type(TABLES[name][1]), table) for name, table in tables.items()
    }
    v1, v2 = with_tables(tables, tmp_path / "v1.onnx"), with_tables(changed, tmp_path / "v2.onnx")
    base = export(v1, "v1.seed", method=method)
    update = export(v2, "v2.seed", [base.path], method=method)
    assert UNCHANGED in modes(update).values()
    found = weights(chain(base.path, update.path))
    assert [name for name, table in changed.items() if table.tobytes() not in found] == []


def test_weights_are_coded_once_where_the_base_has_another_graph(
    versions: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = export(versions[0], "v1.seed")
    model = onnx.load(versions[1])
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Tanh"
    onnx.save(model, versions[1])
    coded, encode = list[int](), StreamEncoder.encode

    def counted(encoder: StreamEncoder, *arguments: Any, **options: Any) -> list[CodedStream]:
        coded.append(1)
        return encode(encoder, *arguments, **options)

    monkeypatch.setattr(StreamEncoder, "encode", counted)
    update = export(versions[1], "v2.seed", [base.path])
    assert not update.seed.shares
    assert set(modes(update).values()) <= {UNCHANGED, DIFFERENCE}
    assert len(coded) == 1


# The command line


@pytest.mark.slow
def test_the_command_takes_a_base(versions: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    base = export(versions[0], "v1.seed")
    output = versions[1].with_name("v2.seed")
    ran = Ran(capfd, versions[1], "-o", output, "--base", base.path, "--effort", "1", "--json")
    assert ran.code == 0
    facts = json.loads(ran.out)
    assert facts["base"] == base.digest
    assert facts["bytes"] == output.stat().st_size


@pytest.mark.slow
def test_a_base_that_can_not_be_one_is_refused(versions: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder = versions[0].parent

    def said(code: int, *arguments: str | Path) -> str:
        line = refused(capfd, code, versions[1], "-o", folder / "v2.seed", *arguments, "-q")
        assert not (folder / "v2.seed").exists()
        return line

    assert "absent.seed: No such file" in said(2, "--base", folder / "absent.seed")
    assert "not a seed" in said(10, "--base", versions[0])
    base = export(versions[0], "v1.seed").path
    assert "leave out one of them" in said(2, "--base", base, "--heal", "x.npz", "--target", "20x")
    links = [base]
    for number in range(CHAIN_MAX):
        links.append(folder / f"{number}.seed")
        write_delta(chain(*links[:-1]), {}, links[-1])
    words = [word for link in links for word in ("--base", link)]
    assert "the end of a chain of 32 seeds" in said(2, *words)
    assert "builds on the seed with the digest" in said(12, "--base", base, "--base", links[2])
