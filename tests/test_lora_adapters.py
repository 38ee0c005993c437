"""Adapters of low rank that bench/lora.py trains in torch. Skipped without torch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.assembly.cache import ModelCache
from seed_runtime.tune.samples import Samples, split
from tests.support.shared import SharedFolder
from tests.support.tuned_model import COUNT, damaged_seed, data

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")
from bench.lora_adapters import Adapter, Trainer, quantized  # noqa: E402

pytestmark = pytest.mark.slow  # importing torch takes seconds


@pytest.fixture
def trainer(shared_folder: SharedFolder, tmp_path: Path) -> Trainer:
    samples = data()
    parts = split(Samples({}, samples["labels"], COUNT, None, ""), samples["labels"], np.random.default_rng(0))
    return Trainer(damaged_seed(shared_folder, "small"), samples, parts, ModelCache(tmp_path, 1 << 30))


@pytest.mark.parametrize(("rank", "with_vectors"), [(2, False), (0, True), (2, True)])
def test_an_adapter_wins_back_what_damage_cost_also_as_it_is_coded(
    trainer: Trainer, shared_folder: SharedFolder, rank: int, with_vectors: bool
) -> None:
    judged = {name: array[-COUNT:] for name, array in data(3 * COUNT).items()}
    seed = damaged_seed(shared_folder, "small")
    found = trainer.train(rank, 0.02, with_vectors, 0)
    _, decoded = quantized(found, 0.25, seed)
    before, after, coded = (trainer.accuracy(each, judged) for each in (None, found, decoded))
    assert after > before + 0.03
    assert coded > before + 0.03


def test_coarser_steps_and_lower_ranks_take_fewer_bytes(shared_folder: SharedFolder) -> None:
    rng, seed = torch.Generator().manual_seed(0), damaged_seed(shared_folder, "small")
    sizes = []
    for rank in (1, 4):
        factors = {"w": (torch.randn(64, rank, generator=rng), torch.randn(rank, 64, generator=rng))}
        sizes += [quantized(Adapter(factors, {}, None), share, seed)[0] for share in (1.0, 0.25)]
    assert all(few < many for few, many in itertools.pairwise(sizes))


def test_a_product_stays_what_it_is_in_fine_steps(shared_folder: SharedFolder) -> None:
    rng = torch.Generator().manual_seed(0)
    b, a = torch.randn(40, 3, generator=rng), 1e3 * torch.randn(3, 30, generator=rng)
    _, decoded = quantized(Adapter({"w": (b, a)}, {}, None), 1 / 64, damaged_seed(shared_folder, "small"))
    left, right = decoded.factors["w"]
    assert float((left @ right - b @ a).norm() / (b @ a).norm()) < 0.02
