"""Plans of a search as arrays and JSON."""

from __future__ import annotations

import io
import json

import numpy as np

from seed_exporter.build.streams import StreamEncoder, restored
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.lowrank import LowRankPlan
from seed_exporter.graph.matrix import as_float32
from seed_exporter.heal.saved_plans import packed, unpacked
from seed_exporter.quantize.allocate import lossless
from seed_exporter.quantize.factorize import factorize
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from tests.exporter.support.convolutions import CHANNELS, convolutions


def test_plans_of_all_kinds_give_the_same_bytes_after_a_file(rng: np.random.Generator) -> None:
    graph = convolutions(rng)
    plans = lossless(graph)
    integers = rng.integers(-3, 4, (CHANNELS, graph.weights["k1"].count // CHANNELS)).astype(np.int32)
    codes = rng.integers(0, 9, CHANNELS).astype(np.uint8)
    plans["k1"] = GridPlan.of_narrow(QuantizedMatrix(integers, 0.25, row_steps=codes, delay=4))
    weights = as_float32(graph.weights["k0"])
    factors = factorize(weights, float(np.square(weights).mean()) / 4)
    assert factors is not None
    plans["k0"] = LowRankPlan(0.5, factors)

    arrays, facts = packed(plans)
    np.savez(file := io.BytesIO(), **arrays)  # type: ignore[arg-type]
    file.seek(0)
    again = unpacked(dict(np.load(file, allow_pickle=False)), json.loads(json.dumps(facts)))

    assert {name: type(plan) for name, plan in again.items()} == {name: type(plan) for name, plan in plans.items()}
    for name, weight in graph.weights.items():
        assert restored(weight, again[name]).tobytes() == restored(weight, plans[name]).tobytes()
    before, after = (
        [stream.chunks for stream in StreamEncoder(graph, 1).encode(each, lambda count: None)]
        for each in (plans, again)
    )
    assert before == after
