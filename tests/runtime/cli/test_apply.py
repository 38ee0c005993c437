"""`seed-run model.seed --apply tuned.seed`: every action on a seed that has a base, and how refusals end."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.assembly.cache import default_cache
from seed_runtime.delta import write_delta
from tests.support.model_seeds import CLASSES, FEATURES, tokens
from tests.support.seed_run import COMMAND, cache_folder, files_under, refused, result, seed_run


@pytest.fixture
def tuned(seed: Path, tmp_path: Path) -> Path:
    """The seed of a small classifier whose bias was trained."""
    base = seed_runtime.open(seed)
    with base.assembled_weights() as weights:
        bias = weights.read(2, 0, CLASSES) + np.linspace(0, 1, CLASSES, dtype=np.float32)
    write_delta(base, {2: bias}, tmp_path / "tuned.seed", mode="small", scores=("accuracy", 0.5, 0.75))
    return tmp_path / "tuned.seed"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=np.ones((1, FEATURES), np.float32))
    return tmp_path / "x.npz"


def test_it_runs_what_was_trained(seed: Path, tuned: Path, data: Path, tmp_path: Path) -> None:
    for name, more in (("before", ()), ("after", ("--apply", tuned))):
        assert seed_run(seed, *more, "--input", data, "--output", tmp_path / f"{name}.npz").returncode == 0
    with np.load(tmp_path / "before.npz") as before, np.load(tmp_path / "after.npz") as after:
        difference = (after["scores"] - before["scores"])[0]
    assert np.abs(difference - np.linspace(0, 1, CLASSES)).max() < 0.2
    with tuned.open("rb") as pipe:
        done = subprocess.run(
            [*COMMAND, seed, "--apply", "-", "--input", data, "--output", "-"], stdin=pipe, capture_output=True
        )
    assert done.returncode == 0
    with np.load(io.BytesIO(done.stdout)) as piped:
        assert np.array_equal((piped["scores"] - before_scores(tmp_path))[0], difference)


def before_scores(folder: Path) -> np.ndarray:
    with np.load(folder / "before.npz") as before:
        return np.array(before["scores"])


def test_inspect_says_how_deep_the_chain_is(seed: Path, tuned: Path, tmp_path: Path) -> None:
    once = seed_runtime.open(tuned, base=seed_runtime.open(seed))
    write_delta(once, {}, tmp_path / "again.seed")
    one, two = seed_run(tuned, "--inspect"), seed_run(tmp_path / "again.seed", "--inspect")
    assert f"{once.base.digest.hex()}; the chain is 1 seed deep" in one.stdout.decode()
    assert f"{once.digest.hex()}; the chain is 2 seeds deep" in two.stdout.decode()


def test_every_action_takes_it(seed: Path, tuned: Path, data: Path, tmp_path: Path) -> None:
    verified = result(seed, "--apply", tuned, "--verify")
    assert (verified["ok"], verified["golden"]) == (True, None)
    assert verified["digest"] == seed_runtime.open(tuned).digest.hex()
    assembled = result(seed, "--apply", tuned, "--assemble", tmp_path / "model", "--no-cache")
    assert assembled["weights_digest"] == verified["weights_digest"]
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.onnx", "model.weights"}
    assert result(seed, "--apply", tuned, "--bench", "--input", data, "--runs", "1")["runs"] == 1
    inspected = result(seed, "--apply", tuned, "--inspect")
    assert inspected["base"] == {"digest": seed_runtime.open(seed).digest.hex(), "depth": 1}
    assert inspected["tuned"] == {"mode": "small", "metric": "accuracy", "before": 0.5, "after": 0.75}
    assert [row["codec"] for row in inspected["codecs"]] == ["delta"]
    assert len(inspected["tensors"]) == 3
    text = seed_run(seed, "--apply", tuned, "--inspect").stdout.decode()
    assert "small, accuracy 0.5 before and 0.75 after" in text
    plain = result(seed, "--inspect")
    assert (plain["base"], plain["tuned"]) == (None, None)


def test_without_the_cache_nothing_stays(seed: Path, tuned: Path, data: Path, own_folders: Path) -> None:
    default_cache().remove(seed_runtime.open(seed).digest.hex())
    assert seed_run(seed, "--apply", tuned, "--input", data, "--no-cache").returncode == 0
    assert seed_run(seed, "--apply", tuned, "--verify", "--no-cache").returncode == 0
    assert files_under(cache_folder(own_folders)) == []


def test_a_seed_without_its_base_can_be_inspected_and_nothing_else(
    seed: Path, tuned: Path, data: Path, tmp_path: Path
) -> None:
    digest = seed_runtime.open(seed).digest.hex()
    facts = result(tuned, "--inspect")
    assert facts["base"] == {"digest": digest, "depth": 1}
    assert facts["model_id"] == "classifier"
    text = seed_run(tuned, "--inspect").stdout.decode()
    assert digest in text
    assert "seed-run BASE --apply tuned.seed --inspect" in text
    for action in (("--verify",), ("--input", data), ("--assemble", tmp_path / "m"), ("--serve", ":0"), ("--bench",)):
        error = refused(12, tuned, *action)
        assert digest in error
        assert "give both: seed-run BASE --apply tuned.seed" in error
    done = seed_run(tuned, "--verify", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (12, False)


def test_another_base_is_12_and_names_both_digests(seed: Path, tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "other.seed").write_bytes(tokens())
    error = refused(12, tmp_path / "other.seed", "--apply", tuned, "--verify")
    for path in (seed, tmp_path / "other.seed"):
        assert seed_runtime.open(path).digest.hex() in error
    assert "has no base" in refused(3, tuned.with_name("other.seed"), "--apply", seed, "--verify")


def test_a_damaged_one_is_10(seed: Path, tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.seed").write_bytes(tuned.read_bytes()[:-1])
    assert "cut.seed: it has" in refused(10, seed, "--apply", tmp_path / "cut.seed", "--verify")


def test_seeds_are_applied_in_the_order_in_which_they_are_given(
    seed: Path, tuned: Path, data: Path, tmp_path: Path
) -> None:
    second = seed_runtime.open(seed).apply(tuned)
    write_delta(second, {2: np.zeros(CLASSES, np.float32)}, tmp_path / "second.seed", step=None)
    links = ("--apply", tuned, "--apply", tmp_path / "second.seed")
    assert result(seed, *links, "--verify")["ok"]
    assert result(seed, *links, "--inspect")["base"]["depth"] == 2
    assert "all seeds between" in refused(12, seed, "--apply", tmp_path / "second.seed", "--verify")
