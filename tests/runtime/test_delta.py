"""Seeds on top of others: what a device writes, what they become, and what is refused."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_runtime.assembly.base_file import BaseFile, MappedWeights, holes_of_base
from seed_runtime.assembly.cache import ModelCache, default_cache
from seed_runtime.delta import STREAM_SYMBOLS, write_delta
from seed_runtime.errors import (
    DigestError,
    FormatError,
    InputError,
    MemoryBudgetError,
    MissingBaseError,
    TrustError,
    UnsupportedError,
    WrongBaseError,
)
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole, Tuned
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.memory import plan
from seed_runtime.memory.process import Usage
from seed_runtime.seed import Seed
from tests.support.model_seeds import FEATURES, build_model_seed, classifier, onnx_model, tokens

Values = Mapping[int, np.ndarray]


@pytest.fixture
def base(tmp_path: Path) -> Seed:
    path = tmp_path / "model.seed"
    path.write_bytes(classifier())
    return seed_runtime.open(path)


def weights_of(seed: Seed) -> dict[int, Any]:
    """Return all weights of a seed by the number of their hole."""
    with seed.assembled_weights() as weights:
        return {
            number: weights.read(number, 0, hole.count).reshape(hole.dims)
            for number, hole in enumerate(seed.header.holes)
        }


def trained(seed: Seed, rng: np.random.Generator, deviation: float = 0.01) -> dict[int, Any]:
    """Return other values of all weights."""
    return {
        number: (values + rng.normal(0, deviation, values.shape)).astype(np.float32)
        for number, values in weights_of(seed).items()
    }


def bias(values: Values) -> dict[int, Any]:
    """Return the vectors among some values."""
    return {number: each for number, each in values.items() if each.ndim == 1}


def test_a_bias_that_was_trained_is_some_hundred_bytes(base: Seed, rng: np.random.Generator, tmp_path: Path) -> None:
    before, new = weights_of(base), bias(trained(base, rng))
    size = write_delta(base, new, tmp_path / "tuned.seed", mode="small", scores=("accuracy", 0.5, 0.75))
    assert size == (tmp_path / "tuned.seed").stat().st_size < 400
    tuned = base.apply(tmp_path / "tuned.seed")
    assert tuned.base is base
    assert tuned.header.tuned == Tuned("small", "accuracy", 0.5, 0.75)
    assert tuned.header.base is not None
    assert (tuned.header.base.digest, tuned.header.base.depth) == (base.digest, 1)
    tuned.check()
    after = weights_of(tuned)
    for number, old in before.items():
        if number not in new:
            assert after[number].tobytes() == old.tobytes()
            continue
        wanted = new[number] - old
        assert np.square(after[number] - new[number]).mean() < 0.01 * np.square(wanted).mean()


def test_a_seed_with_a_base_runs_like_any_other(base: Seed, rng: np.random.Generator, tmp_path: Path) -> None:
    write_delta(base, trained(base, rng), tmp_path / "tuned.seed", step=None)
    tuned = base.apply(tmp_path / "tuned.seed")
    folder = tuned.assemble(tmp_path / "model")
    assert (folder / "model.onnx").read_bytes() == bytes(base.skeleton_bytes()) == bytes(tuned.skeleton_bytes())
    x = rng.normal(size=(2, FEATURES)).astype(np.float32)
    with base.session() as first, tuned.session(max_memory=4 << 30) as second:
        assert first.run({"x": x})["scores"].shape == second.run({"x": x})["scores"].shape
        assert np.abs(first.run({"x": x})["scores"] - second.run({"x": x})["scores"]).max() > 1e-4
        values = weights_of(tuned)
        hidden = np.maximum(x @ values[0], 0)
        assert np.allclose(second.run({"x": x})["scores"], hidden @ values[1] + values[2], atol=1e-4)
    # The footprint depends on the graph; the golden sample doesn't.
    assert tuned.footprint() == base.footprint() is not None
    assert base.golden is not None
    assert tuned.golden is None


def test_nothing_is_needed_of_the_base_once_the_model_is_in_the_cache(
    base: Seed, rng: np.random.Generator, tmp_path: Path
) -> None:
    write_delta(base, trained(base, rng), tmp_path / "tuned.seed")
    tuned, x = base.apply(tmp_path / "tuned.seed"), np.ones((1, FEATURES), np.float32)
    with tuned.session() as session:
        scores = session.run({"x": x})["scores"]
    default_cache().remove(base.digest.hex())
    with tuned.session() as session:
        assert session.run({"x": x})["scores"].tobytes() == scores.tobytes()
    assert not (default_cache().root / base.digest.hex()).exists()


@pytest.mark.parametrize("step", [None, "quantized"])
@pytest.mark.parametrize("dtype", sorted(BY_NAME))
def test_every_type_of_weights_can_change(
    dtype: str, step: str | None, rng: np.random.Generator, tmp_path: Path
) -> None:
    base = open_typed(dtype, tmp_path)
    kind = BY_NAME[dtype]
    (hole,) = base.header.holes
    with base.assembled_weights() as weights:
        old = weights.read(0, 0, hole.count)
    shape = hole.dims if kind.bits >= 8 else old.shape
    is_float = kind.storage.kind == "f"
    new = (old + rng.normal(0, 0.1, old.shape)).astype(kind.storage) if is_float else old ^ (old.dtype.type(1))
    options: dict[str, Any] = {"step": None} if step is None else {}
    write_delta(base, {0: new.reshape(shape)}, tmp_path / "tuned.seed", **options)
    tuned = base.apply(tmp_path / "tuned.seed")
    with tuned.assembled_weights() as weights:
        found = weights.read(0, 0, hole.count)
    if is_float and step is not None:
        assert np.square(found.astype(np.float64) - new).mean() < 0.01 * 0.1**2
    elif dtype != "bfloat16" or step is None:
        assert found.tobytes() == new.tobytes()


def open_typed(dtype: str, folder: Path) -> Seed:
    """Return a seed with one tensor of a type, 6 x 5, made of a whole seed of another type by its own bytes."""
    from tests.conformance.support.seeds import Tensor, build
    from tests.conformance.support.valid_exact import noise, raw

    kind = BY_NAME[dtype]
    size = kind.size(30)
    data = np.linspace(-2, 3, 30).astype(kind.storage).tobytes() if kind.storage.kind == "f" else noise(size)
    (folder / "base.seed").write_bytes(build("", "", [raw([Tensor(kind.code, (6, 5))], data)]).seed)
    return seed_runtime.open(folder / "base.seed")


def test_a_chain_is_assembled_one_after_the_other(base: Seed, rng: np.random.Generator, tmp_path: Path) -> None:
    chain, links = [trained(base, rng)], [base]
    for number in range(3):
        write_delta(links[-1], chain[-1], tmp_path / f"{number}.seed", step=None)
        links.append(links[-1].apply(tmp_path / f"{number}.seed"))
        chain.append(trained(links[-1], rng))
    found = weights_of(links[-1])
    assert all(found[number].tobytes() == chain[-2][number].tobytes() for number in found)
    assert links[-1].header.base is not None
    assert links[-1].header.base.depth == 3
    # A link is missing.
    with pytest.raises(WrongBaseError, match="give its own base, and all seeds between"):
        links[1].apply(tmp_path / "2.seed")


def test_of_a_chain_the_cache_holds_no_more_than_two_beyond_its_limit(
    base: Seed, rng: np.random.Generator, tmp_path: Path
) -> None:
    top = base
    for link in range(4):
        write_delta(top, bias(trained(top, rng)), tmp_path / f"{link}.seed")
        top = top.apply(tmp_path / f"{link}.seed")
    cache = ModelCache(tmp_path / "cold", 0)
    with top.assembled(cache=cache) as folder:
        assert top.base is not None
        assert {path.name for path in cache.root.iterdir() if path.is_dir()} == {folder.name, top.base.digest.hex()}


def test_a_chain_has_an_end(base: Seed, tmp_path: Path) -> None:
    seed = base
    for number in range(CHAIN_MAX):
        write_delta(seed, {}, tmp_path / f"{number}.seed")
        seed = seed.apply(tmp_path / f"{number}.seed")
    with pytest.raises(UnsupportedError, match="a chain has at most 32"):
        write_delta(seed, {}, tmp_path / "more.seed")
    assert not (tmp_path / "more.seed").exists()


def test_another_base_and_none_are_12(base: Seed, tmp_path: Path) -> None:
    write_delta(base, {}, tmp_path / "tuned.seed")
    (tmp_path / "other.seed").write_bytes(tokens())
    with pytest.raises(WrongBaseError) as caught:
        seed_runtime.open(tmp_path / "other.seed").apply(tmp_path / "tuned.seed")
    other = seed_runtime.open(tmp_path / "other.seed").digest.hex()
    assert caught.value.exit_code == 12
    assert base.digest.hex() in str(caught.value)
    assert other in str(caught.value)
    alone = seed_runtime.open(tmp_path / "tuned.seed")
    assert alone.header.model.model_id == "classifier"
    for work in (alone.check, alone.inputs, alone.session, alone.plan_assembly, alone.trellises, alone.skeleton_bytes):
        with pytest.raises(MissingBaseError, match=base.digest.hex()) as missing:
            work()
        assert missing.value.exit_code == 12
    with pytest.raises(InputError, match="is a whole seed and has no base"):
        base.apply(tmp_path / "model.seed")


def test_a_damaged_one_is_10_and_leaves_nothing(base: Seed, rng: np.random.Generator, tmp_path: Path) -> None:
    write_delta(base, trained(base, rng), tmp_path / "tuned.seed")
    data = (tmp_path / "tuned.seed").read_bytes()
    for place in (60, 130, len(data) - 1):
        broken = bytearray(data)
        broken[place] ^= 1
        (tmp_path / "broken.seed").write_bytes(broken)
        with pytest.raises(FormatError) as caught:
            base.apply(tmp_path / "broken.seed").assemble(tmp_path / "model")
        assert caught.value.exit_code == 10
        assert not (tmp_path / "model").exists()


def test_an_altered_copy_of_the_base_is_assembled_again(
    base: Seed, rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_delta(base, trained(base, rng), tmp_path / "tuned.seed")
    with (default_cache().root / base.digest.hex() / "model.weights").open("r+b") as file:
        file.write(b"\xff\xff")
    base.apply(tmp_path / "tuned.seed").check()
    assert "was altered; assembling it again" in capsys.readouterr().err


def test_the_digest_after_applying_is_checked(base: Seed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_delta(base, {}, tmp_path / "tuned.seed")
    real = BaseFile.read

    def other(self: BaseFile, hole: int, start: int, stop: int) -> Any:
        found = real(self, hole, start, stop)
        found[:1] = 7
        return found

    monkeypatch.setattr(BaseFile, "read", other)
    with pytest.raises(DigestError, match="assembled weights"):
        base.apply(tmp_path / "tuned.seed").check()


def test_a_pipe_may_bring_the_seed_and_not_its_base(base: Seed, rng: np.random.Generator, tmp_path: Path) -> None:
    write_delta(base, trained(base, rng), tmp_path / "tuned.seed")
    data = (tmp_path / "tuned.seed").read_bytes()
    with base.apply(io.BytesIO(data)).session() as session:
        assert session.run({"x": np.ones((1, FEATURES), np.float32)})["scores"].size
    with pytest.raises(InputError, match="a base is read more than once"):
        seed_runtime.open(io.BytesIO(classifier())).apply(tmp_path / "tuned.seed")


def test_values_that_do_not_fit_are_3(base: Seed, tmp_path: Path) -> None:
    for values, text in (
        ({3: np.zeros(1, np.float32)}, "there is no hole 3"),
        ({2: np.zeros(3, np.float32)}, r"hole 2 is float32\[40\], and its new value float32\[3\]"),
        ({2: np.zeros(40, np.int32)}, "its new value int32"),
        ({2: np.full(40, np.nan, np.float32)}, "holds infinities or NaN"),
    ):
        with pytest.raises(InputError, match=text) as caught:
            write_delta(base, values, tmp_path / "tuned.seed")
        assert caught.value.exit_code == 3
    assert not (tmp_path / "tuned.seed").exists()


def test_the_same_values_give_the_same_bytes(base: Seed, rng: np.random.Generator, tmp_path: Path) -> None:
    new = trained(base, rng)
    for name in ("a", "b"):
        write_delta(base, new, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_chain_is_planned_with_all_its_headers_in_memory_and_on_top_of_what_the_process_holds(
    base: Seed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = base
    for number in range(5):
        write_delta(top, {}, tmp_path / f"{number}.seed")
        top = top.apply(tmp_path / f"{number}.seed")
    # So headers needn't be added to the plan, however many there are.
    monkeypatch.delattr("seed_runtime.format.reader.SeedReader.__init__")
    needed = []
    for held in (100_000_000, 105_000_000):
        monkeypatch.setattr(plan, "baseline", lambda held=held: Usage(held, held))
        needed.append(top.plan_assembly(cores=1).needed_bytes)
    assert needed[1] - needed[0] == 5_000_000


def test_a_limit_of_memory_holds_for_the_whole_chain(base: Seed, tmp_path: Path) -> None:
    write_delta(base, {}, tmp_path / "tuned.seed")
    tuned = base.apply(tmp_path / "tuned.seed")
    alone, both = base.plan_assembly(cores=1).needed_bytes, tuned.plan_assembly(cores=1).needed_bytes
    assert alone is not None
    assert both is not None
    # One is assembled after the other: what a block of the base and of buckets takes is all that may be added.
    assert 0 <= both - alone <= 4 << 20
    with pytest.raises(MemoryBudgetError):
        tuned.assemble(tmp_path / "model", max_memory=1 << 20)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_memory_grows_neither_when_applied_nor_when_written(rng: np.random.Generator, tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "cache", 1 << 30)
    peaks = []
    for count in (2, 8):
        weights = {f"w{i}": rng.normal(size=(1024, 512)).astype(np.float32) for i in range(count)}
        nodes = [] if not weights else _sum_of(weights)
        model = onnx_model(nodes, {"x": [1024, 512]}, {"y": [1024, 512]}, weights)
        (tmp_path / "base.seed").write_bytes(build_model_seed(model, model_id="sum", step=0.1))
        base = seed_runtime.open(tmp_path / "base.seed")
        new = {i: w + np.float32(0.01) * w[::-1] for i, w in enumerate(weights.values())}
        base.assembled_weights(cache).__enter__()
        tracemalloc.start()
        write_delta(base, new, tmp_path / "tuned.seed", cache=cache)
        writing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        base.apply(tmp_path / "tuned.seed").check(cache=cache)
        peaks.append((writing, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
        if count == 8:
            assert 3 * STREAM_SYMBOLS < 8 * 1024 * 512
            assert len(base.apply(tmp_path / "tuned.seed").header.streams) == 4
    (writing, applying), (writing_more, applying_more) = peaks
    assert writing_more < writing + (4 << 20)  # the coded chunks
    assert applying_more < applying + (1 << 20)


def _sum_of(weights: Mapping[str, np.ndarray]) -> list[Any]:
    from onnx import helper

    before, nodes = "x", []
    for index, name in enumerate(weights):
        after = "y" if index == len(weights) - 1 else f"s{index}"
        nodes.append(helper.make_node("Add", [before, name], [after]))
        before = after
    return nodes


def test_holes_are_found_by_name_type_and_dimensions() -> None:
    f32, f16 = BY_NAME["float32"], BY_NAME["float16"]

    def hole(name: bytes, *dims: int, dtype: Any = f32) -> Hole:
        return Hole(dtype, dims, 0, 0, name)

    base = [hole(b"aaa", 3), hole(b"bbb", 3), hole(b"bbb", 3), hole(b"bbb", 4), hole(b"ccc", 3, dtype=f16)]
    wanted = [hole(b"ccc", 3), hole(b"aaa", 3), hole(b"bbb", 4), hole(b"bbb", 3), hole(b"aaa", 3, 1), hole(b"aaa", 3)]
    assert holes_of_base(wanted, base) == [None, 0, 3, None, None, 0]


def test_weights_for_other_holes_are_the_base_s_where_it_has_them(base: Seed) -> None:
    with base.assembled_weights() as weights:
        mapped = MappedWeights(weights, [None, 2, 0])
        assert mapped.read(1, 0, 5).tobytes() == weights.read(2, 0, 5).tobytes()
        with pytest.raises(FormatError, match="the base, which has no such tensor"):
            mapped.read(0, 0, 5)


def test_a_machine_with_allowed_signers_accepts_a_base_by_what_is_signed_on_top_of_it(
    base: Seed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_delta(base, {}, tmp_path / "tuned.seed")
    config = tmp_path / "config"
    (config / "seed").mkdir(parents=True)
    (config / "seed" / "allowed_signers").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    unchecked = seed_runtime.open(tmp_path / "model.seed", enforce=False)
    with pytest.raises(TrustError):
        unchecked.apply(tmp_path / "tuned.seed")
