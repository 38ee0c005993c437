"""The packing that is chosen for bytes of any kind."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.codecs.encode import packing
from seed_runtime.format.packing import LZMA, unpack


def test_of_large_data_samples_tell_the_setting_that_packs_it_best(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(1 << 18, size=1 << 16).astype("<u4").tobytes()
    best = packing.pack(data)
    tried: list[int] = []
    monkeypatch.setattr(packing, "_TRIED_WHOLE", 1 << 14)
    whole = packing._lzma

    def watched(data: bytes, setting: int) -> bytes:
        tried.append(len(data))
        return whole(data, setting)

    monkeypatch.setattr(packing, "_lzma", watched)
    assert packing.pack(data) == best
    assert tried == [1 << 14] * len(packing.PROPERTIES) + [len(data)]
    assert best[0] == LZMA
    assert unpack(best[0], memoryview(best[1]), len(data), "test") == data
