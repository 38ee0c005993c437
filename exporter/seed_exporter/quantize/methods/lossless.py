"""`--method lossless`: every bit of every weight, in whichever codec takes fewer bytes for it."""

from __future__ import annotations

import zlib
from typing import Final

from seed_exporter.codecs import codec_of
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_exporter.graph.model import Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.methods.base import Alive, Choice, Method
from seed_exporter.quantize.methods.evaluator import Evaluator
from seed_runtime.codecs.encode import raw

_REPETITIONS_SHARE: Final = 0.75
"""Share of a weight's bytes that deflate leaves of repetitions, which LZMA finds; of trained floats it leaves 90 %."""
_TRIED_MAX: Final = 1 << 18
"""Size of a weight up to which both codecs are tried [B]: LZMA takes seconds a MiB."""


def choose(evaluator: Evaluator, alive: Alive) -> Choice:
    """Plan `split`, which knows numbers, or `raw`, which finds repetitions such as a filter bank's."""
    plans = allocate.lossless(evaluator.graph)
    repeated: dict[str, Plan] = {}
    for name, weight in evaluator.graph.weights.items():
        alive()
        if isinstance(plans[name], SplitPlan) and _repeats(weight, plans[name]):
            repeated[name] = RawPlan()
    # Alone, each of them was smaller; together they share the tables of `split` no longer.
    if repeated and evaluator.size_of({**plans, **repeated}) < evaluator.size_of(plans):
        plans |= repeated
    return Choice(plans)


METHOD: Final = Method(choose, has_sizes=False)


def _repeats(weight: Weight, plan: Plan) -> bool:
    """Return whether packing finds more in a weight's bytes than its own tables would."""
    if weight.size > _TRIED_MAX:
        return False
    data = weight.data.tobytes()
    if len(zlib.compress(data, 1)) > _REPETITIONS_SHARE * len(data):
        return False
    packed = sum(map(len, raw.encode(data, max(1, weight.dtype.bits // 8), thorough=True)))
    codec = codec_of(plan)
    return packed < codec.estimate([codec.prepare(weight, plan, 0)]).size
