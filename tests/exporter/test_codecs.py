"""A codec is one file and one line: what is registered is grouped, sized, coded, reported and restored by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import seed_exporter
from seed_exporter import codecs
from seed_exporter.build import streams
from seed_exporter.codecs import grid, raw
from seed_exporter.codecs.base import Codec, Plan, Progress, measured
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import raw as raw_encoder
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from tests.exporter.support.exporting import codecs_of, decoded, graph_of


@dataclass(frozen=True)
class NearBasePlan(Plan):
    """Where a weight is within a tolerance of the base's, the base's is taken."""

    tolerance: float
    base: np.ndarray = field(compare=False, repr=False)

    def describe(self) -> str:
        return f"the base's within {self.tolerance:g}"


class NearBaseCodec(Codec[NearBasePlan, np.ndarray]):
    """Needs the base's weights, which its plans hold. Its streams are those of the decoder `raw`."""

    name = "raw"
    plan = NearBasePlan

    def stream_key(self, weight: Weight) -> str:
        return f"near {weight.dtype.name}"

    def prepare(self, weight: Weight, plan: NearBasePlan, index: int) -> np.ndarray:
        return np.where(np.abs(weight.data - plan.base) <= plan.tolerance, plan.base, weight.data)

    def encode(self, prepared: Sequence[np.ndarray], progress: Progress | None = None) -> SymbolStream:
        return SymbolStream(raw_encoder.encode(b"".join(each.tobytes() for each in prepared), 4), 0.0)

    def estimate(self, prepared: Sequence[np.ndarray]) -> StreamEstimate:
        return measured(self.encode(prepared), [each.nbytes for each in prepared])

    def restore(self, weight: Weight, plan: NearBasePlan) -> np.ndarray:
        return self.prepare(weight, plan, 0)


def test_a_codec_of_ones_own_passes_all_rooms(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = MappingProxyType({**codecs.CODECS, NearBasePlan: NearBaseCodec()})
    monkeypatch.setattr(codecs, "CODECS", more)
    monkeypatch.setattr(streams, "CODECS", more)
    base = rng.standard_normal((40, 50)).astype(np.float32)
    moved = base + np.where(rng.random((40, 50)) < 0.1, 1, 1e-4).astype(np.float32)
    graph = graph_of(a=moved, b=base.copy(), c=np.arange(90))
    plans: dict[str, Plan] = {"a": NearBasePlan(0.01, base), "b": grid.GridPlan(0.1), "c": raw.RawPlan()}
    assert codecs_of(plans) == {"a": "raw", "b": "grid", "c": "raw"}
    encoder = streams.StreamEncoder(graph, jobs=1)
    coded = encoder.encode(plans)
    assert [stream.names for stream in coded] == [["c"], ["b"], ["a"]]
    assert [stream.sizes.size for stream in encoder.estimate(plans)] == [stream.size for stream in coded]
    assert encoder.estimate_candidates(plans, {"a": [plans["a"]]})["a"] == [coded[2].size]
    back = decoded(graph, plans, tmp_path)["a"]
    assert back.tobytes() == streams.restored(graph.weights["a"], plans["a"]).tobytes()
    assert (back == base).mean() > 0.8


def test_no_module_compares_with_the_name_of_a_codec_or_a_method() -> None:
    names = {codec.name for codec in codecs.CODECS.values()} | {"lossless", "published", "quantized"}
    compared = re.compile(rf"""(==|!=|\bin \(|\bcase )\s*["']({"|".join(names)})["']""")
    root = Path(seed_exporter.__file__).parent
    found = [str(path) for path in root.rglob("*.py") if compared.search(path.read_text(encoding="utf-8"))]
    assert not found
