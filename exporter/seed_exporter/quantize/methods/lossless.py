"""`--method lossless`: every bit of every weight, in whichever codec takes fewer bytes for it."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Final

import numpy as np

from seed_exporter.codecs import codec_of
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_exporter.graph.model import Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.methods.base import Alive, Choice, Method
from seed_runtime.codecs.encode import raw
from seed_runtime.limits import CHUNK_DECODED_MAX

_REPETITIONS_SHARE: Final = 0.8
"""Share of a sample's bytes that deflate leaves of repetitions, which LZMA finds; of trained floats it leaves 85 %."""
_SAMPLE: Final = 1 << 19
"""Bytes of a weight that are deflated to find out whether it is worth a try [B]."""


def choose(evaluator: Evaluator, alive: Alive) -> Choice:
    """Plan `split`, which knows numbers, or `raw`, which finds repetitions such as a filter bank's.

    Weights with the most repetitions are tried first, and whole, until the work of a stream is used up. From then on
    LZMA isn't used any more, and a chunk of a weight tells.
    """
    weights = evaluator.graph.weights
    plans = allocate.lossless(evaluator.graph)
    shares = {name: _deflated_share(weights[name]) for name, plan in plans.items() if isinstance(plan, SplitPlan)}
    work = raw.Work()
    whole: dict[str, Plan] = {}
    parts: dict[str, Plan] = {}
    for name in sorted(shares, key=lambda name: shares[name]):
        alive()
        if shares[name] > _REPETITIONS_SHARE:
            break
        weight = weights[name]
        if weight.size <= work.left:
            if _repeats(weight, plans[name], work):
                whole[name] = RawPlan()
        elif _repeats(_part(weight), plans[name], raw.Work(0)):
            parts[name] = RawPlan()
    # Alone, each of them was smaller; together they share the tables of `split` no longer.
    options = [{**plans, **whole, **parts}, {**plans, **whole}, plans] if parts else [{**plans, **whole}, plans]
    return Choice(min(options, key=evaluator.size_of) if whole or parts else plans)


METHOD: Final = Method(choose, has_sizes=False)


def _deflated_share(weight: Weight) -> float:
    """Compute the share of a sample of a weight that deflate leaves, of its bytes as they lie or by planes."""
    width = weight.data.itemsize
    octets = np.frombuffer(weight.data.reshape(-1)[: _SAMPLE // width].tobytes(), np.uint8)
    orders = (octets, octets.reshape(-1, width).T)
    return min(len(zlib.compress(order.tobytes(), 1)) for order in orders) / max(1, octets.size)


def _part(weight: Weight) -> Weight:
    """Return as many of the first elements as a chunk holds, as a weight of their own."""
    data = weight.data.reshape(-1)[: CHUNK_DECODED_MAX // weight.data.itemsize]
    return replace(weight, shape=(8 * data.nbytes // weight.dtype.bits,), data=data)


def _repeats(weight: Weight, plan: Plan, work: raw.Work) -> bool:
    """Return whether packing finds more in a weight's bytes than its own tables would."""
    packed = sum(map(len, raw.encode(weight.data.tobytes(), weight.data.itemsize, work=work)))
    codec = codec_of(plan)
    return packed < codec.estimate([codec.prepare(weight, plan, 0)]).size
